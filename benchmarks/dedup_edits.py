"""More edits that copies on the web have gone through, beside those of `benchmarks.pictures`.

Nobody tunes on the edits of HELD_OUT.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from benchmarks.pictures import BICUBIC, EDITS, Edit, encoded, in_turn, resized

Draws = np.random.Generator
_WORDS = "this is what people write over the pictures that they share with each other"
WORDS = _WORDS.split()


def turned(degrees: float) -> Edit:
    return lambda image, _: image.rotate(
        degrees, BICUBIC, expand=degrees % 90 == 0, fillcolor="white"
    )


def _blended(image: Image.Image, over: Image.Image) -> Image.Image:
    return Image.alpha_composite(image.convert("RGBA"), over).convert("RGB")


def _sheet(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    over = Image.new("RGBA", image.size)
    return over, ImageDraw.Draw(over)


def vignette(image: Image.Image, _: Draws) -> Image.Image:
    down, across = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    light = np.clip(1.15 - 0.55 * (down**2 + across**2), 0.1, 1)[..., None]
    return Image.fromarray((np.asarray(image) * light).astype(np.uint8))


def with_text(lines: int, opacity: int, colour: tuple[int, int, int] = (255, 255, 255)) -> Edit:
    """Lines of words across the picture, anywhere."""

    def edit(image: Image.Image, rng: Draws) -> Image.Image:
        over, draw = _sheet(image)
        size = max(image.width / 12, 3)
        top = rng.uniform(0.15, max(0.85 - 0.11 * lines, 0.16)) * image.height
        for line in range(lines):
            words = " ".join(rng.choice(WORDS, 4).tolist())
            place = image.width / 2, top + 1.2 * size * line
            draw.text(place, words, (*colour, opacity), None, "mm", font_size=size)
        return _blended(image, over)

    return edit


def meme(image: Image.Image, rng: Draws) -> Image.Image:
    image = image.copy()
    draw = ImageDraw.Draw(image)
    size = max(image.height / 8, 3)
    for height in (0.09, 0.9):
        words = " ".join(rng.choice(WORDS, 3).tolist()).upper()
        while size > 3 and draw.textlength(words, font_size=size) > 0.95 * image.width:
            size *= 0.9
        place = image.width / 2, image.height * height
        wide = size / 12
        draw.text(
            place, words, "white", anchor="mm", font_size=size, stroke_width=wide, stroke_fill=0
        )
    return image


def tiled_watermark(image: Image.Image, rng: Draws) -> Image.Image:
    side = round(1.6 * max(image.size))
    over = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(over)
    size, start = max(image.width / 16, 3), rng.uniform(0, 0.1) * side
    for row in range(14):
        for column in range(5):
            place = start + side * (column + row % 2 / 2) / 5, side * row / 14
            draw.text(place, "stock.example", (255, 255, 255, 120), font_size=size)
    over = over.rotate(30, BICUBIC)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    return _blended(image, over.crop((left, top, left + image.width, top + image.height)))


def screenshot(image: Image.Image, rng: Draws) -> Image.Image:
    """The picture in a post on a telephone's screen."""
    unit = image.width / 20
    top, below = round(4 * unit), round(7 * unit)
    page = Image.new("RGB", (image.width, image.height + top + below), "white")
    page.paste(image, (0, top))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, page.width, unit), "black")
    draw.ellipse((0.6 * unit, 1.5 * unit, 2.6 * unit, 3.5 * unit), "#8899aa")
    size = max(0.9 * unit, 3)
    draw.text((3.2 * unit, 2.5 * unit), "someone", "black", anchor="lm", font_size=size)
    under = top + image.height
    for place in range(3):
        left = (0.8 + 2.2 * place) * unit
        draw.ellipse(
            (left, under + 0.7 * unit, left + 1.5 * unit, under + 2.2 * unit), None, "black"
        )
    for line in range(3):
        words = " ".join(rng.choice(WORDS, 4).tolist())
        draw.text((0.8 * unit, under + (2.8 + 1.3 * line) * unit), words, "#222222", font_size=size)
    return page


def in_a_page(image: Image.Image, rng: Draws) -> Image.Image:
    """The picture at half the width of an article of text."""
    width, height = 2 * image.width, round(1.6 * image.height)
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    size = max(image.width / 18, 3)
    page.paste(image, (round(0.05 * width), round(0.15 * height)))
    draw.text((0.05 * width, 0.03 * height), "A headline", "black", font_size=1.6 * size)
    for line in range(math.floor(0.8 * height / (1.4 * size))):
        words = " ".join(rng.choice(WORDS, 3).tolist())
        draw.text(
            (0.58 * width, 0.15 * height + 1.4 * size * line), words, "#333333", font_size=size
        )
    return page


def half_collage(image: Image.Image, rng: Draws) -> Image.Image:
    """Another picture of smooth colours and shapes beside it."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    other = coarse.resize(image.size, BICUBIC)
    draw = ImageDraw.Draw(other)
    for x, y in rng.uniform(0, 0.7, (6, 2)).tolist():
        box = (
            x * image.width,
            y * image.height,
            (x + 0.25) * image.width,
            (y + 0.2) * image.height,
        )
        draw.ellipse(box, tuple(rng.integers(0, 256, 3).tolist()))
    page = Image.new("RGB", (2 * image.width, image.height))
    for place, part in enumerate((image, other) if rng.random() < 0.5 else (other, image)):
        page.paste(part, (place * image.width, 0))
    return page


def sepia(image: Image.Image, _: Draws) -> Image.Image:
    return ImageOps.colorize(image.convert("L"), "#1c0f05", "#fff1d6", "#a57c52")


def stickers(image: Image.Image, rng: Draws) -> Image.Image:
    """A large smiling face, anywhere."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    r = 0.14 * min(image.size)
    x, y = (float(rng.uniform(r, side - r)) for side in image.size)
    draw.ellipse((x - r, y - r, x + r, y + r), "#ffcc22", "#aa7700")
    for eye in (-0.35, 0.35):
        draw.ellipse((x + eye * r - r / 8, y - r / 2, x + eye * r + r / 8, y - r / 5), "black")
    draw.chord((x - r / 2, y - r / 3, x + r / 2, y + r / 1.6), 0, 180, "#aa2222")
    return image


def colour_cast(image: Image.Image, rng: Draws) -> Image.Image:
    gains = rng.permutation([0.75, 1.0, 1.2])
    return Image.fromarray((np.asarray(image) * gains).clip(0, 255).astype(np.uint8))


def noise(image: Image.Image, rng: Draws) -> Image.Image:
    pixels = np.asarray(image) + rng.normal(0, 18, (image.height, image.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def rounded(image: Image.Image, _: Draws) -> Image.Image:
    mask = Image.new("L", image.size)
    box = (0, 0, image.width - 1, image.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, 0.18 * min(image.size), 255)
    return Image.composite(image, Image.new("RGB", image.size, "white"), mask)


def local_contrast(image: Image.Image, _: Draws) -> Image.Image:
    """Away from the mean of the neighbourhood, as adaptive equalisation does."""
    wide = image.filter(ImageFilter.GaussianBlur(max(image.size) / 10))
    pixels = np.asarray(image, np.float32), np.asarray(wide, np.float32)
    changed = 128 + 0.5 * (pixels[1] - 128) + 1.6 * (pixels[0] - pixels[1])
    return Image.fromarray(changed.clip(0, 255).astype(np.uint8))


def perspective(image: Image.Image, rng: Draws) -> Image.Image:
    """Seen from a little aside."""
    width, height = image.size
    far = rng.uniform(-0.06, 0.06, (4, 2)) * image.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    # the map from the new picture's corners to places inside the old one
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, corners + far, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(values)).tolist()
    kind = Image.Transform.PERSPECTIVE
    return image.transform(image.size, kind, coefficients, BICUBIC, fillcolor="white")


def with_shadow(image: Image.Image, _: Draws) -> Image.Image:
    edge = max(round(0.07 * max(image.size)), 2)
    page = Image.new("RGB", (image.width + 3 * edge, image.height + 3 * edge), "#f0f0f0")
    shadow = Image.new("L", page.size)
    shadow.paste(150, (2 * edge, 2 * edge, 2 * edge + image.width, 2 * edge + image.height))
    shadow = shadow.filter(ImageFilter.GaussianBlur(edge / 2))
    page.paste("#333333", (0, 0), shadow)
    page.paste(ImageOps.expand(image, max(edge // 4, 1), "white"), (edge, edge))
    return page


def polaroid(image: Image.Image, rng: Draws) -> Image.Image:
    edge, below = max(round(0.06 * image.width), 1), round(0.22 * image.height)
    page = Image.new("RGB", (image.width + 2 * edge, image.height + edge + below), "#faf8f2")
    page.paste(image, (edge, edge))
    draw = ImageDraw.Draw(page)
    place = page.width / 2, image.height + edge + below / 2
    words = " ".join(rng.choice(WORDS, 2).tolist())
    draw.text(place, words, "#334477", anchor="mm", font_size=max(below / 2.5, 3))
    return page


def torn_corner(image: Image.Image, rng: Draws) -> Image.Image:
    """A corner of a third of each side is gone, with a ragged edge."""
    points = [(0.0, 0.0), (0.34 * image.width, 0.0)]
    for part in np.linspace(0, 1, 9)[1:-1].tolist():
        ragged = rng.normal(0, 0.015, 2)
        x, y = 0.34 * (1 - part) + ragged[0], 0.34 * part + ragged[1]
        points.append((x * image.width, y * image.height))
    points.append((0.0, 0.34 * image.height))
    image = ImageOps.mirror(image) if (other := bool(rng.integers(0, 2))) else image.copy()
    ImageDraw.Draw(image).polygon(points, "white")
    return ImageOps.mirror(image) if other else image


def posterised(image: Image.Image, _: Draws) -> Image.Image:
    return ImageOps.posterize(image, 2)


def faded(image: Image.Image, _: Draws) -> Image.Image:
    """Pale and low in contrast, as old prints."""
    image = ImageEnhance.Color(image).enhance(0.5)
    return Image.blend(image, Image.new("RGB", image.size, "#d8cdb8"), 0.45)


MORE: dict[str, Edit] = {
    "rotate 5°": turned(5),
    "rotate 10°": turned(-10),
    "quarter turn": turned(90),
    "half turn": turned(180),
    "vignette": vignette,
    "text, 1 line": with_text(1, 255),
    "text, 3 lines": with_text(3, 255),
    "text, 5 lines, dark": with_text(5, 255, (20, 20, 20)),
    "text, 4 lines, half transparent": with_text(4, 128),
    "meme": meme,
    "tiled watermark": tiled_watermark,
    "screenshot": screenshot,
    "in a page of text": in_a_page,
    "half collage": half_collage,
    "sepia": sepia,
    "faded": faded,
    "colour cast": colour_cast,
    "noise": noise,
    "local contrast": local_contrast,
    "posterise": posterised,
    "sticker": stickers,
    "rounded corners": rounded,
    "torn corner": torn_corner,
    "perspective": perspective,
    "border and shadow": with_shadow,
    "polaroid": polaroid,
    "chain: x0.4, q20, x2.5, q40": in_turn(
        resized(0.4, 0.4), encoded(20), resized(2.5, 2.5), encoded(40)
    ),
}
ALL = EDITS | MORE
HELD_OUT = frozenset(
    {
        "rotate 10°",
        "half turn",
        "text, 3 lines",
        "text, 4 lines, half transparent",
        "meme",
        "in a page of text",
        "half collage",
        "faded",
        "local contrast",
        "torn corner",
        "perspective",
        "polaroid",
        "border and shadow",
    }
)
