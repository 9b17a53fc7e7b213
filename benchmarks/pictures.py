"""Real pictures, and the edits that their copies on the web have gone through."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from pipeline.dedup.fingerprints import ARRAYS, Fingerprints, fingerprint_images

SAVED = 92  # JPEG quality of a picture on the web
AT_ONCE = 2000  # pictures decoded
BICUBIC = Image.Resampling.BICUBIC
Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def resized(across: float, down: float) -> Edit:
    return lambda image, _: image.resize(
        (round(image.width * across), round(image.height * down)), BICUBIC
    )


def saved(image: Image.Image, quality: int = SAVED) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def encoded(quality: int) -> Edit:
    return lambda image, _: Image.open(io.BytesIO(saved(image, quality)))


def cropped(share: float) -> Edit:
    """Leaves out `share` of width and height, anywhere."""

    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = (round(side * (1 - share)) for side in image.size)
        left = int(rng.integers(image.width - width + 1))
        top = int(rng.integers(image.height - height + 1))
        return image.crop((left, top, left + width, top + height))

    return edit


def enhanced(kind: Any, factor: float) -> Edit:
    return lambda image, _: kind(image).enhance(factor)


def framed(colour: str) -> Edit:
    return lambda image, _: ImageOps.expand(image, round(0.05 * max(image.size)), colour)


def in_turn(*edits: Edit) -> Edit:
    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for one in edits:
            image = one(image, rng)
        return image

    return edit


def watermarked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    text = Image.new("RGBA", image.size)
    middle = image.width / 2, image.height * rng.uniform(0.3, 0.7)
    size = image.width / 8
    ImageDraw.Draw(text).text(
        middle, "example.com", (255, 255, 255, 150), None, "mm", font_size=size
    )
    return Image.alpha_composite(image.convert("RGBA"), text).convert("RGB")


def with_logo(image: Image.Image, _: np.random.Generator) -> Image.Image:
    side = min(image.size) // 5
    right, bottom = image.width - side // 4, image.height - side // 4
    image = image.copy()
    draw = ImageDraw.Draw(image)
    draw.rectangle((right - side, bottom - side, right, bottom), (190, 30, 40))
    middle = right - side / 2, bottom - side / 2
    draw.text(middle, "ab", "white", anchor="mm", font_size=side / 2)
    return image


def with_caption(image: Image.Image, _: np.random.Generator) -> Image.Image:
    bar = round(0.15 * image.height)
    page = Image.new("RGB", (image.width, image.height + bar), "white")
    page.paste(image)
    middle = image.width / 2, image.height + bar / 2
    ImageDraw.Draw(page).text(middle, "what it shows", "black", anchor="mm", font_size=bar / 2)
    return page


def letterboxed(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.pad(image, (round(image.height * 16 / 9), image.height), BICUBIC, "black")


EDITS: dict[str, Edit] = {
    "resize x0.25": resized(0.25, 0.25),
    "resize x0.5": resized(0.5, 0.5),
    "resize x1.5": resized(1.5, 1.5),
    "resize x2": resized(2, 2),
    "squeeze to 3:4": resized(0.75, 1),
    "JPEG q30": encoded(30),
    "JPEG q50": encoded(50),
    "JPEG q70": encoded(70),
    "JPEG q90": encoded(90),
    "greyscale": lambda image, _: image.convert("L").convert("RGB"),
    "blur": lambda image, _: image.filter(ImageFilter.GaussianBlur(image.width / 114)),
    "brighter x1.4": enhanced(ImageEnhance.Brightness, 1.4),
    "darker x0.6": enhanced(ImageEnhance.Brightness, 0.6),
    "contrast x1.5": enhanced(ImageEnhance.Contrast, 1.5),
    "watermark": watermarked,
    "crop 2 %": cropped(0.02),
    "crop 5 %": cropped(0.05),
    "crop 10 %": cropped(0.1),
    "web mix: crop 3 %, x0.5, q50": in_turn(cropped(0.03), resized(0.5, 0.5), encoded(50)),
    "rotate 3°": lambda image, _: image.rotate(3, BICUBIC, fillcolor="white"),
    "corner logo": with_logo,
    "caption bar": with_caption,
    "border white 5 %": framed("white"),
    "border black 5 %": framed("black"),
    "letterbox 16:9": letterboxed,
    "mirror": lambda image, _: ImageOps.mirror(image),
}


def load(path: Path) -> list[bytes]:
    """The encoded images; of PACS without its sketches, whose lines on white are all alike."""
    table = pq.read_table(path)
    if "domain" in table.column_names:
        table = table.filter(pc.not_equal(table["domain"], "sketch"))
    return [image["bytes"] for image in table["image"].to_pylist()]


def fingerprints_of(files: Sequence[bytes]) -> Fingerprints:
    """Fingerprints of encoded images, with what a search for test images reads of their table."""
    parts = [
        fingerprint_images(files[start : start + AT_ONCE], "phash", exact=False)
        for start in range(0, len(files), AT_ONCE)
    ]
    sizes = np.array([Image.open(io.BytesIO(file)).size for file in files])
    errors = [error for _, part in parts for error in part]
    table = pa.table({"width": sizes[:, 0], "height": sizes[:, 1], "error": errors})
    arrays = {name: np.concatenate([getattr(part, name) for part, _ in parts]) for name in ARRAYS}
    return Fingerprints(table, **arrays)
