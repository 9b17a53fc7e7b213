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

from kd3_pipeline.dedup.fingerprints import COLUMNS, Fingerprints, fingerprint_images, zeros

SAVED = 92  # JPEG quality of a picture on the web
AT_ONCE = 2000  # pictures decoded
BICUBIC = Image.Resampling.BICUBIC
Edit = Callable[[Image.Image, np.random.Generator], Image.Image]

# pairs of PACS that show the same picture: mirrored, recoloured, framed, under another watermark
# (first 8 digits of the files' SHA-256)
SAME_PAIRS = """
    3ca71dfc 40029ced, 6eef78e8 5ea63fe0, 82422bda d327b2a7, 4f23e3db e3eda755,
    3c049ba6 3cb07510, e8ada8cf a4438d5a, 1109b144 e2fbac38, e852c0c6 4f0a4e14,
    1e8e3531 3ce87b56, df25b561 8bab8dc6, 0dd56f8d aeb10fa0, 97bb91c0 aaa2fe55,
    42a360ea ff486dd5, bfac91ab f85d4ba3, 6aaadd44 412e5a2b, 449c03ac 682c3f01,
    1e0e937d bd68287b, 23a847c4 ff486dd5, 1e8e3531 43f4b9a7, 3ce87b56 43f4b9a7,
    26ed99be 27537efc, 42a360ea 23a847c4, b299d5b9 8b0d1c5d, 2b29f468 9658b00d,
    47263328 a631178d, 4fae55bb 813d7ca8, 449c03ac 023271b9, 682c3f01 023271b9,
    18846dd7 9367f402, b76fc9f3 a3b4799e
"""
SAME = frozenset(frozenset(pair.split()) for pair in SAME_PAIRS.split(","))


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


def edited(files: Sequence[bytes], edit: Edit, seed: int) -> list[bytes]:
    """A copy of each encoded picture by one edit."""
    copies = []
    for place, file in enumerate(files):
        image = Image.open(io.BytesIO(file)).convert("RGB")
        copies.append(saved(edit(image, np.random.default_rng([seed, place]))))
    return copies


def styles(path: Path) -> dict[str, list[bytes]]:
    """The encoded images of PACS by style: photo, art_painting, cartoon, sketch."""
    table = pq.read_table(path, columns=["image", "domain"])
    found: dict[str, list[bytes]] = {}
    for image, style in zip(table["image"].to_pylist(), table["domain"].to_pylist(), strict=True):
        found.setdefault(style, []).append(image["bytes"])
    return found


def load(path: Path) -> list[bytes]:
    """The encoded images; of PACS without its sketches, whose lines on white are all alike."""
    table = pq.read_table(path)
    if "domain" in table.column_names:
        table = table.filter(pc.not_equal(table["domain"], "sketch"))
    return [image["bytes"] for image in table["image"].to_pylist()]


def fingerprints_of(files: Sequence[bytes]) -> Fingerprints:
    """Fingerprints of encoded images, with a table as if they lay in one shard, one class."""
    parts = [
        fingerprint_images(files[start : start + AT_ONCE], "phash", exact=False)
        for start in range(0, len(files), AT_ONCE)
    ]
    sizes = np.array([Image.open(io.BytesIO(file)).size for file in files], np.int32).reshape(-1, 2)
    rows = np.arange(len(files))
    columns = {
        "id": [f"{row:09}" for row in rows],
        "shard": np.zeros(len(files)),
        "row": rows,
        "label": np.zeros(len(files)),
        "width": sizes[:, 0],
        "height": sizes[:, 1],
        "size": [len(file) for file in files],
        "error": [error for _, part in parts for error in part],
    }
    table = pa.table({name: pa.array(columns[name]).cast(COLUMNS[name]) for name in COLUMNS})
    arrays = zeros(len(files))
    for name, array in arrays.items():
        if parts:
            array[:] = np.concatenate([getattr(part, name) for part, _ in parts])
    return Fingerprints(table, **arrays)
