"""Fingerprints: all that dedup compares of an image, from one decode of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from kd3_pipeline.dedup import hashing
from kd3_pipeline.dedup.borders import inside_border, may_have_border
from kd3_pipeline.dedup.hashing import (
    GREY,
    KEYS,
    SHAPES,
    centre_of,
    cut_hashes,
    lanczos,
    library_hash,
)
from kd3_pipeline.images import Box, decode, decode_reduced
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.strips import levels_of

SMALL = 128  # pixels of the shorter side that a scaled decode leaves, at least
COLOUR = 32  # side of the colour picture
COLUMNS = {
    "id": pa.string(),
    "shard": pa.int32(),
    "row": pa.int32(),
    "label": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "size": pa.int64(),
    "error": pa.string(),
}
ARRAYS = {  # of Fingerprints: the type, and the shape of one image's
    "hashes": (np.uint64, (len(KEYS),)),
    "trim": (np.float32, (4,)),
    "cut": (np.float32, (4,)),
    "range": (np.uint8, ()),
    "comparable": (np.bool_, ()),
    "grey": (np.uint8, (GREY, GREY)),
    "colour": (np.uint8, (COLOUR, COLOUR, 3)),
    "sharpness": (np.float32, ()),
}

SHARP_ROWS, SHARP_WIDTH = 10, 256  # of the pixels in which edges are measured: more say the same
LEAST_EDGE = 10  # grey levels, the mean of the rows' strongest edges

LEAST_DEVIATION = 5.0  # grey levels: below it, unlike pictures have like hashes
LEAST_AREA = 0.25  # of the picture, inside its border: less is cut out and compared alone
LEAST_SIDE = 16  # pixels of what is compared
ROOM = 0.05  # of what is cut out, left around it
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box that leaves nothing out


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of N images, in the order of shards and rows; images with an error have
    zeros."""

    images: pa.Table  # COLUMNS; size in bytes, error empty where the image can be read
    hashes: np.ndarray  # uint64 [N, 6], in the order of hashing.KEYS
    trim: np.ndarray  # float32 [N, 4]: left, top, right, bottom inside the border, as shares
    # float32 [N, 4]: the part that all of this is of, as shares: a small thing on an empty page is
    # cut out
    cut: np.ndarray
    # uint8 [N]: levels from the darkest to the brightest pixel, in the channel that has most;
    # 255 where it was not measured, because a small picture already shows something
    range: np.ndarray
    comparable: np.ndarray  # bool [N]: neither so small nor so faint that a hash cannot tell
    grey: np.ndarray  # uint8 [N, 64, 64], squashed, upright, transparency on white
    colour: np.ndarray  # uint8 [N, 32, 32, 3], the same in RGB
    # float32 [N]: share of the height of edges that is between two neighbouring pixels of a picture
    # of 128 to 255 pixels on its shorter side, if it has so many; 0 where there are no edges
    sharpness: np.ndarray

    def blank(self, most: int) -> np.ndarray:
        """Images of one colour in every pixel, to so many levels: they show nothing. bool [N]."""
        return np.asarray(self.range <= most)


def fingerprint_images(
    data: Sequence[bytes], kind: str, exact: bool
) -> tuple[Fingerprints, list[str]]:
    """Fingerprints of encoded images without their table, and what is wrong with each, or nothing.

    All images are in memory as small pictures: meant for some hundreds at a time.
    """
    total = len(data)
    fingerprints = Fingerprints(pa.table({}), **zeros(total))
    errors = [""] * total
    pixels = np.zeros((total, *SHAPES.get(kind, (1, 1))), np.uint8)
    rows = np.zeros((total, SHARP_ROWS, SHARP_WIDTH), np.uint8)
    greys: dict[int, tuple[Image.Image, Box]] = {}
    for row, one in enumerate(data):
        try:
            greys[row] = _take_in(fingerprints, row, one, kind, pixels)
        except ImageError as problem:
            errors[row] = str(problem) or problem.outcome
            continue
        _take_rows(greys[row][0], rows[row])

    fingerprints.sharpness[:] = sharpness(rows)
    fingerprints.trim[:] = fingerprints.cut[:] = WHOLE
    fingerprints.range[:] = 255
    for row in np.flatnonzero(may_have_border(fingerprints.grey)).tolist():
        if row in greys:
            fingerprints.trim[row] = inside_border(*greys[row])
    sides = np.maximum(fingerprints.trim[:, 2:] - fingerprints.trim[:, :2], 0)
    faint = (sides.prod(axis=1) < LEAST_AREA) | (_deviation(fingerprints) < LEAST_DEVIATION)
    for row in np.flatnonzero(faint).tolist():
        if row in greys:
            try:
                _cut_out(fingerprints, row, decode(data[row]), kind, pixels)
            except ImageError as problem:  # whole at a quarter of the size, but not in full
                errors[row] = str(problem) or problem.outcome
    if faint.any():
        fingerprints.comparable[:] &= _deviation(fingerprints) >= LEAST_DEVIATION

    if kind in SHAPES:
        whole, mirrored, quarter, half = hashing.hashes(pixels, kind).T
        uncut = (fingerprints.trim == WHOLE).all(axis=1)
        trimmed = np.where(uncut, whole, cut_hashes(fingerprints.grey, fingerprints.trim, kind))
        centre = cut_hashes(fingerprints.grey, centre_of(fingerprints.trim), kind)
        fingerprints.hashes[:] = np.stack([whole, trimmed, centre, mirrored, quarter, half], axis=1)
    if exact or kind not in SHAPES:
        for row in greys:
            try:
                whole_picture = part(decode(data[row]), fingerprints.cut[row])
                _hash_in_full(whole_picture, kind, fingerprints.trim[row], fingerprints.hashes[row])
            except ImageError as problem:
                errors[row] = str(problem) or problem.outcome
    for name in ARRAYS:
        getattr(fingerprints, name)[[bool(error) for error in errors]] = 0
    return fingerprints, errors


def _take_in(
    fingerprints: Fingerprints, row: int, data: bytes, kind: str, pixels: np.ndarray
) -> tuple[Image.Image, Box]:
    """Looks at an encoded image, and returns its grey; no large picture of it stays."""
    small, box, full = decode_reduced(data, SMALL)
    found = _look_at(fingerprints, row, small, box)
    if kind in SHAPES:
        source = (found[0], kind, box) if full is None else (full.convert("L"), kind)
        pixels[row] = lanczos(*source)
    return found


def _look_at(
    fingerprints: Fingerprints, row: int, picture: Image.Image, box: Box
) -> tuple[Image.Image, Box]:
    """Fills in what is looked at of a part of a picture, and returns its grey."""
    grey = picture.getchannel(0) if picture.mode == "YCbCr" else picture.convert("L")
    fingerprints.grey[row] = squashed(grey, GREY, box)
    fingerprints.colour[row] = squashed(picture, COLOUR, box).convert("RGB")
    fingerprints.comparable[row] = min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE
    return grey, box


def _deviation(fingerprints: Fingerprints) -> np.ndarray:
    """Standard deviation of the grey pictures, float32 [N]."""
    grey = fingerprints.grey
    off = grey - grey.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return np.sqrt(np.einsum("nij,nij->n", off, off) / GREY**2)  # numpy's std takes 5 times it


def _cut_out(
    fingerprints: Fingerprints, row: int, picture: Image.Image, kind: str, pixels: np.ndarray
) -> None:
    """Looks again, in full, at a picture that is mostly one ground: at what there is on it."""
    fingerprints.range[row] = np.ptp(picture.getextrema(), axis=1).max()
    shown = _shown(picture)
    box = np.array(_with_room(shown), np.float32)
    fingerprints.cut[row] = box
    # the room is a border of what is shown
    fingerprints.trim[row] = (shown - np.tile(box[:2], 2)) / np.tile(box[2:] - box[:2], 2)
    there = part(picture, fingerprints.cut[row])
    grey, inner = _look_at(fingerprints, row, there, (0, 0, *there.size))
    if kind in SHAPES:
        pixels[row] = lanczos(grey, kind, inner)


def _shown(picture: Image.Image) -> Box:
    """Part of a picture inside its borders in any channel, as shares; all where nothing is."""
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    bands = [methodcaller("getchannel", band) for band in range(3)]
    boxes = np.array([inside_border(levels_of(picture, band), whole) for band in bands])
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    if not len(boxes):
        return WHOLE
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    return left, top, right, bottom


def _with_room(box: Box) -> Box:
    room = [ROOM * (box[axis + 2] - box[axis]) for axis in (0, 1)]
    left, top = (max(0.0, box[axis] - room[axis]) for axis in (0, 1))
    right, bottom = (min(1.0, box[axis + 2] + room[axis]) for axis in (0, 1))
    return left, top, right, bottom


def part(image: Image.Image, box: np.ndarray) -> Image.Image:
    """A box of a picture (float [4], as shares), at least a pixel."""
    if tuple(box) == WHOLE:
        return image
    left, top, right, bottom = np.round(box * np.tile(image.size, 2)).astype(int).tolist()
    left, top = min(left, image.width - 1), min(top, image.height - 1)
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _take_rows(grey: Image.Image, rows: np.ndarray) -> None:
    """Fills uint8 [SHARP_ROWS, SHARP_WIDTH] from a picture, beyond it with the last pixel."""
    levels = np.asarray(grey)
    height, width = levels.shape
    left = max(0, width - SHARP_WIDTH) // 2
    some = levels[height // (2 * SHARP_ROWS) :: max(1, height // SHARP_ROWS)]
    some = some[:SHARP_ROWS, left : left + SHARP_WIDTH]
    rows[: len(some), : some.shape[1]] = some
    rows[: len(some), some.shape[1] :] = some[:, -1:]


def sharpness(rows: np.ndarray) -> np.ndarray:
    """Height of the strongest edges from one pixel to the next, by that over four pixels.

    About 1 for a step from one pixel to the next, 0.25 for a slope; 0 where nothing is higher
    than compression makes it. Each row counts by its strongest edge: much of a sharp picture may
    be out of focus.

    Args:
        rows: uint8 [N, SHARP_ROWS, SHARP_WIDTH].

    Returns:
        float32 [N].
    """
    levels = rows.astype(np.int16)
    over_one = np.abs(levels[:, :, 1:] - levels[:, :, :-1]).max(axis=2).sum(axis=1)
    over_four = np.abs(levels[:, :, 4:] - levels[:, :, :-4]).max(axis=2).sum(axis=1)
    seen = over_four > LEAST_EDGE * rows.shape[1]
    return np.where(seen, over_one / np.maximum(over_four, 1), 0).astype(np.float32)


def squashed(image: Image.Image, side: int, box: Box) -> Image.Image:
    """A square of another size, antialiased: means of whole pixels first, then a cubic filter."""
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=1)


def _hash_in_full(image: Image.Image, kind: str, trim: np.ndarray, keys: np.ndarray) -> None:
    keys[0] = library_hash(image, kind)
    keys[3] = library_hash(ImageOps.mirror(image), kind)
    keys[4] = library_hash(image.transpose(Image.Transpose.ROTATE_90), kind)
    keys[5] = library_hash(image.transpose(Image.Transpose.ROTATE_180), kind)
    if kind not in SHAPES:
        keys[1] = keys[0] if tuple(trim) == WHOLE else library_hash(part(image, trim), kind)
        keys[2] = library_hash(part(image, centre_of(trim[None])[0]), kind)


def zeros(total: int) -> dict[str, np.ndarray]:
    """The arrays of `total` images, unfilled."""
    return {name: np.zeros((total, *shape), kind) for name, (kind, shape) in ARRAYS.items()}
