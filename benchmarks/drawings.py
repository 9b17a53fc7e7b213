"""Drawn pictures of many kinds: in each all are different, and all are much alike.

    python -m benchmarks.drawings --sheet kinds.png

Each kind draws one picture from random numbers; pictures of the same bytes are drawn only once.
"""

import argparse
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps
from scipy.ndimage import map_coordinates

FONTS = Path("/usr/share/fonts/truetype/dejavu")  # of the package fonts-dejavu
BICUBIC = Image.Resampling.BICUBIC
Rng = np.random.Generator
PAPER = (245, 240, 230)
INKS = [(200, 30, 40), (30, 90, 180), (20, 20, 20), (30, 140, 70), (240, 160, 20), (120, 40, 130)]
CLOTH = [(200, 20, 40), (0, 50, 150), (255, 255, 255), (0, 130, 60), (250, 200, 20), (0, 0, 0)]
SHIRT = [(60, 30), (85, 40), (115, 40), (140, 30), (185, 70), (165, 95), (145, 80), (145, 180)]
SHIRT += [(55, 180), (55, 80), (35, 95), (15, 70)]


def font(rng: Rng, size: int) -> ImageFont.FreeTypeFont:
    faces = sorted(path for path in FONTS.glob("*.ttf") if "Math" not in path.name)
    return ImageFont.truetype(str(faces[rng.integers(len(faces))]), size)


def colour(rng: Rng) -> tuple[int, ...]:
    return tuple(rng.integers(0, 256, 3).tolist())


def word(rng: Rng, letters: str, least: int, most: int) -> str:
    return "".join(letters[at] for at in rng.integers(len(letters), size=rng.integers(least, most)))


def bent(image: Image.Image, rng: Rng, pixels: float) -> Image.Image:
    """A grey picture sheared, and pulled out of shape as a hand would."""
    side = image.width
    away = [
        np.asarray(
            Image.fromarray(rng.normal(0, pixels, (4, 4)).astype(np.float32)).resize(
                (side, side), BICUBIC
            )
        )
        for _ in range(2)
    ]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    places = [y + away[1], x + away[0] + rng.normal(0, 0.15) * (y - side / 2)]
    values = map_coordinates(np.asarray(image, np.float32), places, order=1, mode="nearest")
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def glyph(rng: Rng, letters: str) -> Image.Image:
    image = Image.new("L", (112, 112), 0)
    place = 56 + rng.normal(0, 2, 2)
    letter = letters[rng.integers(len(letters))]
    face = font(rng, int(rng.integers(78, 92)))
    ImageDraw.Draw(image).text(tuple(place), letter, 255, face, "mm")
    return bent(image, rng, 4).resize((28, 28), Image.Resampling.BOX)


def digits(rng: Rng) -> Image.Image:
    return glyph(rng, string.digits).convert("RGB")


def ones(rng: Rng) -> Image.Image:
    return glyph(rng, "1").convert("RGB")


def letters(rng: Rng) -> Image.Image:
    return (
        ImageOps.invert(glyph(rng, string.ascii_lowercase)).resize((32, 32), BICUBIC).convert("RGB")
    )


def logos(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (200, 200), "white")
    draw, ink, half = ImageDraw.Draw(image), INKS[rng.integers(6)], int(rng.integers(45, 70))
    box = (100 - half, 70 - half, 100 + half, 70 + half)
    kind = rng.integers(4)
    if kind == 0:
        draw.ellipse(box, ink)
    elif kind == 1:
        draw.regular_polygon((100, 70, half), 3, fill=ink)
    else:
        draw.rounded_rectangle(box, 20 * (kind - 2), ink)
    draw.text((100, 72), word(rng, string.ascii_uppercase, 1, 3), "white", font(rng, 50), "mm")
    draw.text((100, 165), word(rng, string.ascii_lowercase, 4, 8), ink, font(rng, 30), "mm")
    return image


def icons(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 6)):
        x, y = rng.integers(40, 88, 2).tolist()
        half, width, kind = int(rng.integers(15, 36)), int(rng.integers(4, 10)), rng.integers(5)
        box = (x - half, y - half, x + half, y + half)
        if kind == 0:
            draw.ellipse(box, outline="black", width=width)
        elif kind == 1:
            draw.rectangle(box, outline="black", width=width)
        elif kind == 2:
            draw.line(box, "black", width)
        elif kind == 3:
            draw.ellipse((x - half // 2, y - half // 2, x + half // 2, y + half // 2), "black")
        else:
            draw.line((x - half, y, x + half, y), "black", width)
    return image


def signs(rng: Rng) -> Image.Image:
    """A speed limit as photographed: light, a turn, and unevenness of its own."""
    image = Image.new("RGB", (160, 160), (200, 210, 220))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 10, 150, 150), (200, 20, 30))
    draw.ellipse((28, 28, 132, 132), "white")
    face = ImageFont.truetype(str(FONTS / "DejaVuSans-Bold.ttf"), int(rng.integers(55, 66)))
    draw.text((80, 80), str(rng.integers(1, 100)), "black", face, "mm")
    image = image.rotate(float(rng.normal(0, 4)), BICUBIC, fillcolor=(200, 210, 220))
    noise = rng.integers(98, 158, (6, 6, 3), dtype=np.uint8)
    uneven = np.asarray(Image.fromarray(noise).resize(image.size, BICUBIC)).astype(int) - 128
    image = Image.fromarray((np.asarray(image) + uneven).clip(0, 255).astype(np.uint8))
    return ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.8, 1.1)))


def shirts(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(image)
    draw.polygon(SHIRT, (60, 60, 70))
    for _ in range(4):
        x, y, half = (int(rng.integers(*limits)) for limits in ((75, 125), (80, 140), (5, 22)))
        shape = draw.ellipse if rng.integers(2) else draw.rectangle
        shape((x - half, y - half, x + half, y + half), colour(rng))
    return image


def flags(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (150, 100))
    draw, upright = ImageDraw.Draw(image), rng.integers(2)
    for at in range(3):
        box = (50 * at, 0, 50 * at + 49, 99) if upright else (0, 33 * at, 149, 33 * at + 34)
        draw.rectangle(box, CLOTH[rng.integers(6)])
    x, y, half = (int(rng.integers(*limits)) for limits in ((20, 130), (20, 80), (4, 20)))
    draw.ellipse((x - half, y - half, x + half, y + half), colour(rng))
    return image


def faces(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (128, 128), PAPER)
    draw = ImageDraw.Draw(image)

    def near(place: float) -> int:
        return int(place + rng.normal(0, 3))

    skin = [(255, 220, 180), (220, 170, 130), (150, 100, 70)][rng.integers(3)]
    draw.ellipse((20, near(15), 108, near(115)), skin, "black", 2)
    height = near(52)
    for x in (near(46), near(82)):
        half = int(rng.integers(4, 9))
        draw.ellipse((x - half, height - half, x + half, height + half), "white", "black")
        draw.ellipse((x - 2, height - 2, x + 2, height + 2), "black")
    draw.arc((near(45), near(70), near(83), near(98)), 10, 170, "black", 3)
    draw.line((64, near(60), near(60), near(74)), "black", 2)
    draw.pieslice((18, near(5), 110, near(70)), 180, 360, colour(rng))
    return image


def scribbles(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (200, 200), "white")
    along = np.linspace(0, 1, 30)[:, None]
    for _ in range(rng.integers(2, 5)):
        a, b, c, d = rng.uniform(30, 170, (4, 2))
        line = (1 - along) ** 3 * a + 3 * (1 - along) ** 2 * along * b
        line += 3 * (1 - along) * along**2 * c + along**3 * d
        ImageDraw.Draw(image).line([tuple(place) for place in line.tolist()], "black", 3)
    return image


def pens(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(image)
    half, x, top = int(rng.integers(5, 10)), int(rng.integers(94, 107)), int(rng.integers(20, 40))
    draw.rectangle((x - half, top, x + half, 160), colour(rng))
    draw.polygon([(x - half, 160), (x + half, 160), (x, 180)], (90, 90, 90))
    draw.rectangle((x - half, top, x + half, top + int(rng.integers(10, 50))), colour(rng))
    return image.rotate(float(rng.uniform(30, 60)), BICUBIC, fillcolor="white")


KINDS: dict[str, Callable[[Rng], Image.Image]] = {
    one.__name__: one
    for one in (digits, ones, logos, icons, letters, signs, shirts, flags, faces, scribbles, pens)
}


def drawn(kind: str, seed: int) -> Iterator[Image.Image]:
    """Pictures without end, no two of the same bytes."""
    seen, number = set(), 0
    while True:
        image = KINDS[kind](np.random.default_rng([seed, number]))
        number += 1
        if image.tobytes() not in seen:
            seen.add(image.tobytes())
            yield image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sheet", type=Path, required=True, help="PNG of twelve of each kind")
    options = parser.parse_args()
    page = Image.new("RGB", (12 * 68, len(KINDS) * 68), "grey")
    for row, kind in enumerate(KINDS):
        for column, image in zip(range(12), drawn(kind, 0), strict=False):
            page.paste(image.resize((64, 64), BICUBIC), (column * 68, row * 68))
    page.save(options.sheet)


if __name__ == "__main__":
    main()
