"""Pictures of no class: what a search engine returns off topic."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from kd3_pipeline.demo.textures import (
    Size,
    colour,
    grain,
    ramp,
    smooth_noise,
    surface,
    to_image,
)

_PHRASES = (
    "the price of a plan in web and for page",
    "shop sale news with list free size more link",
    "terms of use and how to order by mail today",
    "chapter two in which nothing is drawn at all",
)


def draw_off_topic(size: Size | int, rng: np.random.Generator) -> Image.Image:
    """A picture that shows none of the classes, RGB; `size` is (width, height) or a side."""
    frame = (size, size) if isinstance(size, int) else size
    return _SUBJECTS[rng.integers(len(_SUBJECTS))](frame, rng)


def _texture(size: Size, rng: np.random.Generator) -> Image.Image:
    pixels = surface(size, colour(rng), rng) + surface(size, colour(rng), rng)
    return to_image(pixels / 2 + grain(size, 0.05, rng))


def _gradient(size: Size, rng: np.random.Generator) -> Image.Image:
    start, stop = colour(rng, (0.3, 1), (0.2, 1)), colour(rng, (0.3, 1), (0.2, 1))
    along = 0.5 + 0.5 * ramp(size, rng) + 0.1 * smooth_noise(size, 3, rng)
    return to_image(start + (stop - start) * along[..., None])


def _marble(size: Size, rng: np.random.Generator) -> Image.Image:
    veins = sum(smooth_noise(size, cells, rng) / cells**0.5 for cells in (3, 6, 12, 24))
    share = 0.5 + 0.5 * np.sin(6 * veins)
    first, second = colour(rng), colour(rng)
    return to_image(first + (second - first) * share[..., None])


def _landscape(size: Size, rng: np.random.Generator) -> Image.Image:
    width, height = size
    sky = colour(rng, (0.2, 0.6), (0.7, 1))
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    pixels = np.broadcast_to((sky + (1 - sky) * y)[:, None], (height, width, 3)).copy()
    for level in np.sort(rng.uniform(0.3, 0.95, int(rng.integers(3, 6)))):
        ridge = level + 0.12 * smooth_noise((width, 1), int(rng.integers(3, 7)), rng)[0]
        land = surface(size, colour(rng, (0.2, 0.7), (0.15, 0.7)), rng)
        pixels = np.where((y > ridge)[..., None], land, pixels)
    return to_image(pixels + grain(size, 0.02, rng))


def _text_page(size: Size, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", size, (int(rng.integers(230, 256)),) * 3)
    draw = ImageDraw.Draw(image)
    height = int(rng.integers(8, 15))
    font = ImageFont.load_default(height)
    for top in range(3, size[1], round(height * 1.4)):
        if rng.random() < 0.85:
            phrase = _PHRASES[rng.integers(len(_PHRASES))]
            text = phrase[int(rng.integers(0, 15)) :]
            draw.text((4, top), text, fill=(int(rng.integers(0, 90)),) * 3, font=font)
    return image


def _scribble(size: Size, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", size, (int(rng.integers(225, 256)),) * 3)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 4)):
        points = np.cumsum(rng.normal(0, 0.16, (40, 2)), axis=0)
        points = (points - points.min(axis=0)) / np.ptp(points, axis=0) * 0.9 + 0.05
        ink = tuple((colour(rng, (0, 1), (0, 0.6)) * 255).astype(int).tolist())
        path = (points * size).ravel().tolist()
        draw.line(path, fill=ink, width=int(rng.integers(1, 4)), joint="curve")
    return image


def _clutter(size: Size, rng: np.random.Generator) -> Image.Image:
    image = to_image(surface(size, colour(rng), rng))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(14, 40)):
        ink = tuple((colour(rng) * 255).astype(int).tolist())
        centre, reach = rng.uniform(0, 1, 2) * size, rng.uniform(0.06, 0.25) * min(size)
        if rng.random() < 0.3:  # flat ellipses, lest they pass for circles
            half = np.array([reach, reach * rng.uniform(0.2, 0.45)])[:: rng.choice((-1, 1))]
            draw.ellipse([*(centre - half), *(centre + half)], fill=ink)
        else:
            corners = centre + rng.normal(0, reach, (int(rng.integers(4, 7)), 2))
            draw.polygon(corners.ravel().tolist(), fill=ink)
    return image


def _bokeh(size: Size, rng: np.random.Generator) -> Image.Image:
    return _clutter(size, rng).filter(ImageFilter.GaussianBlur(min(size) * rng.uniform(0.03, 0.08)))


_SUBJECTS: tuple[Callable[[Size, np.random.Generator], Image.Image], ...] = (
    _texture,
    _gradient,
    _marble,
    _landscape,
    _text_page,
    _scribble,
    _clutter,
    _bokeh,
)
