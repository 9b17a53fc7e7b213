"""Perceptual hashes of stored images, as imagehash defines them, as 64-bit integers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from pipeline.console import Advance, no_progress
from pipeline.images import ImageError, decode
from pipeline.store import read_shard

HASHES: dict[str, Callable[[Image.Image], imagehash.ImageHash]] = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "ahash": imagehash.average_hash,
    "whash": imagehash.whash,
}


@dataclass(frozen=True)
class HashedImage:
    """A stored image's place and hash; `error` says why there is none."""

    id: str
    shard: int
    row: int
    label: int
    width: int
    height: int
    size: int  # bytes
    hash: int  # 64 bits
    error: str = ""


def hash_image(image: Image.Image, kind: str) -> int:
    """The 64 bits of imagehash's `kind`, the first bit highest.

    Raises:
        ImageError: `too_small` for whash, whose wavelets need 8 pixels a side.
    """
    if kind == "whash" and min(image.size) < 8:
        raise ImageError("too_small", f"{image.width} x {image.height}: whash needs 8 pixels")
    bits = HASHES[kind](image).hash.flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_shard(
    path: Path, shard: int, kind: str, advance: Advance = no_progress
) -> list[HashedImage]:
    """Hashes every image of a shard; one that cannot be decoded is named, not fatal."""
    hashed = []
    for row, image in enumerate(read_shard(path)):
        value, error = 0, ""
        try:
            value = hash_image(decode(image.data), kind)
        except ImageError as problem:
            error = str(problem) or problem.outcome
        hashed.append(
            HashedImage(
                image.id,
                shard,
                row,
                image.label,
                image.width,
                image.height,
                len(image.data),
                value,
                error,
            )
        )
        advance(1)
    return hashed
