"""Perceptual hashes as imagehash defines them, as 64-bit integers, many pictures at a time.

The DCT hash is that of Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions" (2010), in imagehash's variant: the lowest 8 x 8 coefficients of 32 x 32 grey pixels
against their median.
"""

from collections.abc import Callable
from functools import lru_cache

import imagehash
import numpy as np
from PIL import Image

from kd3_pipeline.images import Box

KEYS = ("whole", "trimmed", "centre", "mirrored", "quarter", "half")  # the last two are turns
SHAPES = {"phash": (32, 32), "dhash": (8, 9), "ahash": (8, 8)}  # pixels: rows, columns
GREY = 64  # side of the grey picture that cut-outs are hashed from
CENTRE = 0.9  # of each side of the trimmed picture


def _largest_segment(image: Image.Image) -> imagehash.ImageHash:
    return imagehash.crop_resistant_hash(image, limit_segments=1).segment_hashes[0]


LIBRARY: dict[str, Callable[[Image.Image], imagehash.ImageHash]] = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "ahash": imagehash.average_hash,
    "whash": imagehash.whash,
    "crop_resistant": _largest_segment,
}
KINDS = tuple(LIBRARY)


def library_hash(image: Image.Image, kind: str) -> int:
    """The 64 bits of imagehash's own function, the first bit highest.

    `crop_resistant` (Steinebach et al., "Efficient Cropping-Resistant Robust Image Hashing", 2014)
    gives one hash a segment; a key holds one, so it is that of the largest segment.
    """
    return int(_packed(LIBRARY[kind](image).hash[None])[0])


def lanczos(grey: Image.Image, kind: str, box: Box | None = None) -> np.ndarray:
    """The pixels that imagehash's `kind` compares: uint8 [*SHAPES[kind]]."""
    rows, columns = SHAPES[kind]
    return np.asarray(grey.resize((columns, rows), Image.Resampling.LANCZOS, box=box))


def hashes(pixels: np.ndarray, kind: str) -> np.ndarray:
    """Hashes of pictures, mirrored and turned, too; imagehash's bits, given its pixels.

    Args:
        pixels: uint8 [N, *SHAPES[kind]], the grey pictures resized as imagehash does (Lanczos).
        kind: one of SHAPES; the other kinds have no form for many pictures.

    Returns:
        uint64 [N, 4]: the picture's, its mirror image's, and of it turned by 90° (to the left) and
        180°. A kind whose pixels make no square has the picture's in place of that at 90°.
    """
    rows, columns = SHAPES[kind]
    values = _spectrum(kind, rows) @ pixels @ _spectrum(kind, columns).T
    mirrored = _mirrored(values, kind)
    upside_down = _mirrored(values.swapaxes(1, 2), kind).swapaxes(1, 2)
    half = _mirrored(upside_down, kind)
    quarter = _mirrored(values, kind).swapaxes(1, 2) if rows == columns else values
    versions = (values, mirrored, quarter, half)
    return np.stack([_bits(version, kind) for version in versions], axis=1)


def cut_hashes(grey: np.ndarray, boxes: np.ndarray, kind: str) -> np.ndarray:
    """Hashes of rectangles of pictures: Lanczos resampling and DCT in one matrix product a side.

    Args:
        grey: uint8 [N, 64, 64].
        boxes: float [N, 4], left, top, right and bottom as shares of width and height.
        kind: one of SHAPES.

    Returns:
        uint64 [N].
    """
    rows, columns = SHAPES[kind]
    found = np.zeros(len(grey), np.uint64)
    boxes, which = np.unique(boxes, axis=0, return_inverse=True)
    for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
        members = np.flatnonzero(which.ravel() == number)
        values = _cut(kind, rows, top, bottom) @ grey[members] @ _cut(kind, columns, left, right).T
        found[members] = _bits(values, kind)
    return found


def centre_of(boxes: np.ndarray) -> np.ndarray:
    """The central 90 % of each side of boxes, float [N, 4]."""
    inset = (boxes[:, 2:] - boxes[:, :2]) * (1 - CENTRE) / 2
    return np.concatenate([boxes[:, :2] + inset, boxes[:, 2:] - inset], axis=1)


@lru_cache
def _spectrum(kind: str, size: int) -> np.ndarray:
    """What takes `size` pixels to the values whose comparison gives the bits."""
    if kind != "phash":
        return np.eye(size)
    frequency, place = np.arange(8)[:, None], np.arange(size)[None]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * size))


@lru_cache(maxsize=4096)
def _cut(kind: str, size: int, low: float, high: float) -> np.ndarray:
    """As `_spectrum`, from the part `low` to `high` of GREY pixels that lie in it."""
    step = (high - low) * GREY / size
    centre = low * GREY + (np.arange(size)[:, None] + 0.5) * step
    place = np.arange(GREY)[None] + 0.5
    away = (place - centre) / max(step, 1.0)
    weight = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0.0)
    weight *= (place > low * GREY) & (place < high * GREY)
    return _spectrum(kind, size) @ (weight / weight.sum(axis=1, keepdims=True))


def _mirrored(values: np.ndarray, kind: str) -> np.ndarray:
    if kind != "phash":
        return values[:, :, ::-1]
    return values * np.where(np.arange(8) % 2, -1, 1)  # odd cosines change sign


def _bits(values: np.ndarray, kind: str) -> np.ndarray:
    # what a matrix product leaves in the last digits may depend on the machine: no bit may
    values = np.round(values, 6)
    if kind == "dhash":
        return _packed(values[:, :, 1:] > values[:, :, :-1])
    flat = values.reshape(len(values), 64)
    if kind == "ahash":
        return _packed(flat > flat.mean(axis=1, keepdims=True))
    middle = np.partition(flat, (31, 32), axis=1)[:, 31:33]
    return _packed(flat > middle.mean(axis=1, keepdims=True))


def _packed(bits: np.ndarray) -> np.ndarray:
    """uint64 [N] from bool [N, …] of 64 bits each, the first highest."""
    packed = np.packbits(bits.reshape(len(bits), 64), axis=1)
    return packed.view(">u8")[:, 0].astype(np.uint64)
