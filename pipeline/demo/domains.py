"""The two domains of the demo world: the teacher's original images and what the web shows."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from kd3_pipeline.demo import shapes
from kd3_pipeline.demo.clutter import draw_off_topic as draw_off_topic
from kd3_pipeline.demo.textures import (
    LUMINANCE,
    Size,
    blend,
    blurred,
    colour,
    colour_pair,
    coordinates,
    grain,
    ramp,
    smooth_noise,
    surface,
    to_image,
)

WEB_STYLES: tuple[str, ...] = ("line", "cartoon", "paper", "inverted", "watermark", "pattern")
_SPLIT_STREAMS = {"train": 11, "test": 12}
_WATERMARKS = ("PREVIEW", "stock photo", "© sample", "clipart.example", "DO NOT COPY")


def original_images(
    split: Literal["train", "test"],
    count: int,
    size: int = 32,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[np.ndarray, np.ndarray]:
    """`count` images of the original domain, balanced over the classes.

    Returns images, uint8 [count, size, size, 3], and labels, int64 [count], label i % 10 at i.
    The splits draw from separate random streams, so that they share no image at any seed.
    `advance` is called with 1 for each image.
    """
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(shapes.CLASS_NAMES)
    for index, label in enumerate(labels):
        rng = np.random.default_rng([seed, _SPLIT_STREAMS[split], index])
        images[index] = np.asarray(draw_original(int(label), size, rng))
        advance(1)
    return images, labels


def draw_original(label: int, size: int, rng: np.random.Generator) -> Image.Image:
    """A lit, shaded shape on a textured ground, RGB, `size` pixels square."""
    return to_image(_lit_scene(label, (size, size), rng))


def draw_web(label: int, style: str, size: Size | int, rng: np.random.Generator) -> Image.Image:
    """A shape as the web shows it, RGB.

    `style` is one of `WEB_STYLES`, `size` is (width, height) in pixels or the side of a square.
    Raises KeyError for an unknown style.
    """
    return _STYLES[style](label, (size, size) if isinstance(size, int) else size, rng)


def _lit_scene(label: int, size: Size, rng: np.random.Generator) -> np.ndarray:
    ground, body = colour_pair(rng)
    mask = shapes.filled(shapes.placed(label, size, rng), size)
    soft = blurred(mask, 0.06 * min(size))
    shadow = np.roll(soft, (round(0.05 * size[1]), round(0.04 * size[0])), (0, 1))
    pixels = surface(size, ground, rng) * (1 - rng.uniform(0, 0.35) * shadow)[..., None]
    light = 1 + rng.uniform(0.1, 0.3) * ramp(size, rng) + rng.uniform(0, 0.25) * (soft - 0.7)
    pixels = blend(pixels, body * light[..., None], mask)
    return (pixels + grain(size, rng.uniform(0.005, 0.03), rng)).astype(np.float32)


def _line(label: int, size: Size, rng: np.random.Generator) -> Image.Image:
    side = min(size)
    contours = shapes.placed(label, size, rng)
    contours = shapes.wobbled(contours, rng.uniform(0, 0.008) * side, rng)
    mask = shapes.stroked(contours, size, rng.uniform(0.015, 0.045) * side)
    ink = colour(rng, (0, 1), (0, 0.45))
    page = np.full((size[1], size[0], 3), rng.uniform(0.94, 1), dtype=np.float32)
    return to_image(blend(page, ink, mask))


def _cartoon(label: int, size: Size, rng: np.random.Generator) -> Image.Image:
    side = min(size)
    contours = shapes.placed(label, size, rng, (0.5, 0.78))
    white = np.ones(3, dtype=np.float32)
    ground = colour(rng, (0.5, 1), (0.75, 1)) if rng.random() < 0.6 else white
    pixels = np.broadcast_to(ground, (size[1], size[0], 3))
    pixels = blend(pixels, colour(rng, (0.75, 1), (0.7, 1)), shapes.filled(contours, size))
    border = shapes.stroked(contours, size, rng.uniform(0.04, 0.08) * side)
    return to_image(blend(pixels, np.zeros(3, dtype=np.float32), border))


def _paper(label: int, size: Size, rng: np.random.Generator) -> Image.Image:
    side = min(size)
    contours = shapes.wobbled(shapes.placed(label, size, rng, (0.5, 0.7)), 0.006 * side, rng)
    pencil = shapes.stroked(contours, size, rng.uniform(0.02, 0.04) * side)
    if rng.random() < 0.6:
        hatch = 0.5 + 0.5 * np.sin(ramp(size, rng) * np.float32(rng.uniform(30, 60)))
        pencil = np.maximum(pencil, shapes.filled(contours, size) * hatch * 0.7)
    pencil = pencil * (0.8 + 0.2 * smooth_noise(size, 16, rng))
    sheet = np.array([0.95, 0.93, 0.87], dtype=np.float32) * rng.uniform(0.88, 1.03)
    pixels = np.broadcast_to(sheet.astype(np.float32), (size[1], size[0], 3))
    lead = np.full(3, rng.uniform(0.2, 0.45), dtype=np.float32)
    photo = _tilted(to_image(blend(pixels, lead, pencil)), colour(rng, (0.2, 0.6), (0.2, 0.5)), rng)
    x, y = coordinates(size)
    light = 1 - rng.uniform(0.05, 0.25) * (x * x + y * y) + rng.uniform(0, 0.2) * ramp(size, rng)
    lit = np.asarray(photo, dtype=np.float32) / 255 * light[..., None]
    return to_image(lit + grain(size, rng.uniform(0.01, 0.035), rng))


def _tilted(sheet: Image.Image, desk: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """The sheet seen at an angle: its corners move by up to a tenth, the desk shows outside."""
    width, height = sheet.size
    corners = np.array([(0, 0), (0, height), (width, height), (width, 0)], dtype=np.float64)
    corners += rng.uniform(-0.1, 0.06, (4, 2)) * (np.sign(corners - 1) * -1) * (width, height)
    fill = tuple(int(value * 255) for value in desk)
    return sheet.transform(
        sheet.size,
        Image.Transform.QUAD,
        corners.ravel().tolist(),
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )


def _inverted(label: int, size: Size, rng: np.random.Generator) -> Image.Image:
    pixels = np.clip(_lit_scene(label, size, rng), 0, 1)
    treatment = rng.integers(3)
    if treatment == 0:
        return ImageOps.solarize(to_image(pixels), int(rng.integers(90, 170)))
    grey = pixels @ LUMINANCE
    if treatment == 1:
        grey = 1 - grey
    dark, bright = colour(rng, (0.6, 1), (0, 0.35)), colour(rng, (0.1, 0.9), (0.75, 1))
    return to_image(dark + grey[..., None] * (bright - dark))


def _watermark(label: int, size: Size, rng: np.random.Generator) -> Image.Image:
    image = to_image(_lit_scene(label, size, rng))
    ink = (255, 255, 255) if rng.random() < 0.75 else (30, 30, 30)
    image.paste(ink, (0, 0), _text_stripes(size, rng))
    return image


def _text_stripes(size: Size, rng: np.random.Generator) -> Image.Image:
    """Slanted lines of repeated text over a whole frame, mode L; its values are the opacity."""
    points = max(8, round(min(size) * rng.uniform(0.11, 0.17)))
    font = ImageFont.load_default(points)
    text = _WATERMARKS[rng.integers(len(_WATERMARKS))]
    opacity = int(rng.uniform(0.35, 0.7) * 255)
    word = Image.new("L", (round(font.getlength(text)) + 8, round(points * 1.3)))
    ImageDraw.Draw(word).text((0, 0), text, fill=opacity, font=font)
    step = round(points * rng.uniform(1.5, 2.6))
    sheet = Image.new("L", (round(1.45 * max(size)),) * 2)  # its inner circle covers the frame
    for row, top in enumerate(range(0, sheet.height, step)):
        for left in range(-17 * (row % 3), sheet.width, word.width):
            sheet.paste(word, (left, top))
    sheet = sheet.rotate(rng.uniform(15, 40), Image.Resampling.BILINEAR)
    left, top = (sheet.width - size[0]) // 2, (sheet.height - size[1]) // 2
    return sheet.crop((left, top, left + size[0], top + size[1]))


def _pattern(label: int, size: Size, rng: np.random.Generator) -> Image.Image:
    ground, body = colour_pair(rng)
    side = max(10, round(min(size) * rng.uniform(0.14, 0.22)))
    tile = shapes.filled(shapes.placed(label, (side, side), rng, (0.7, 0.85)), (side, side))
    repeats = (size[1] // side + 1, size[0] // side + 1)
    tiled = np.tile(tile, repeats)[: size[1], : size[0]]
    pixels = np.broadcast_to(ground, (size[1], size[0], 3))
    pixels = blend(pixels, colour(rng), tiled * rng.uniform(0.35, 0.8))
    contours = shapes.placed(label, size, rng)
    halo = shapes.stroked(contours, size, 0.1 * min(size))
    pixels = blend(pixels, ground, halo)
    return to_image(blend(pixels, body, shapes.filled(contours, size)))


_STYLES: dict[str, Callable[[int, Size, np.random.Generator], Image.Image]] = {
    "line": _line,
    "cartoon": _cartoon,
    "paper": _paper,
    "inverted": _inverted,
    "watermark": _watermark,
    "pattern": _pattern,
}
