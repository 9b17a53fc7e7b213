"""Stored pixels as an array: raw in one .npy file, or each image as a JPEG in one file of bytes.

Both are indexed alike, by a row, a slice, rows or a mask, and give uint8 [n, S, S, 3].
"""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kd3_pipeline.errors import UserError

HINT = "run `dvc repro embed`"
FEW = 4  # images that one thread decodes sooner than others are started


class Pixels(Protocol):
    """Images that are read when they are indexed, uint8 [N, S, S, 3]; an array is such, too."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """One image, uint8 [S, S, 3], as JPEG with colours at full resolution."""
    out = io.BytesIO()
    # colours at half the resolution, as is usual, save a sixth and err by 1.6 times as much
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def decode_jpeg(data: bytes, side: int) -> np.ndarray:
    """The pixels of `encode_jpeg`, uint8 [side, side, 3].

    Raises:
        ValueError: it is no JPEG of this size in RGB, or is not whole.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.size != (side, side) or image.mode != "RGB":
                raise ValueError(f"{image.mode} {image.width} x {image.height}, not RGB {side}")
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no whole JPEG: {error}") from None


@dataclass(frozen=True)
class JpegPixels:
    """N images that are decoded when they are asked for, by as many threads as there are cores.

    Attributes:
        path: file of their JPEGs, one behind the other.
        ends: int64 [N], where each ends in it; `data` is the file, mapped into memory, uint8.
        stored: side of the images, of which the centre of `side` is given.
    """

    path: Path
    ends: np.ndarray
    data: np.ndarray
    stored: int
    side: int

    @classmethod
    def open(cls, path: Path, ends: np.ndarray) -> "JpegPixels":
        """The images of a file.

        Raises:
            UserError: it is missing or broken, or not that of `ends`.
        """
        try:
            data = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:  # a map of nothing is refused
            raise UserError(f"{path} cannot be read: {error}", HINT) from None
        starts = np.concatenate([np.zeros(1, np.int64), ends])
        if not len(ends) or (np.diff(starts) <= 0).any() or ends[-1] != len(data):
            raise UserError(f"{path} of {len(data):,} bytes is not what its ends tell", HINT)
        try:
            with Image.open(io.BytesIO(data[: ends[0]].tobytes()), formats=("JPEG",)) as image:
                stored = image.width
        except (OSError, SyntaxError) as error:
            raise UserError(f"{path} cannot be read: {error}", HINT) from None
        return cls(path, ends, data, stored, stored)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), self.side, self.side, 3)

    def __getitem__(self, rows: int | slice | np.ndarray | list[int], /) -> np.ndarray:
        """Pixels uint8 [side, side, 3] of one row, [n, side, side, 3] of others.

        Raises:
            IndexError: no such row.
            UserError: an image is broken (its row is named).
        """
        places = np.arange(len(self))[rows]
        if places.ndim == 0:
            return self._decoded(int(places))
        pixels = np.empty((len(places), *self.shape[1:]), np.uint8)

        def fill(at: int) -> None:
            pixels[at] = self._decoded(int(places[at]))

        _by_threads(fill, len(places))
        return pixels

    def _decoded(self, row: int) -> np.ndarray:
        start = int(self.ends[row - 1]) if row else 0
        try:
            found = decode_jpeg(self.data[start : int(self.ends[row])].tobytes(), self.stored)
        except ValueError as error:
            raise UserError(f"{self.path}: row {row}: {error}", HINT) from None
        margin = (self.stored - self.side) // 2
        return found[margin : margin + self.side, margin : margin + self.side]


@dataclass(frozen=True)
class Taken:
    """Some rows of stored pixels, int64 [n], which are read when they are asked for."""

    pixels: Pixels
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.pixels.shape[1:])

    def __getitem__(self, rows: int | slice | np.ndarray, /) -> np.ndarray:
        return np.asarray(self.pixels[self.rows[rows]])


@dataclass(frozen=True)
class Replaced:
    """Stored pixels of which some places have others; all are read when they are asked for.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        others: uint8 [n, S, S, 3].
        at: row of `others` for each place, int64 [N], -1 where it keeps its own.
    """

    pixels: Pixels
    others: Pixels
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.at)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    def __getitem__(self, places: slice | np.ndarray, /) -> np.ndarray:
        """Pixels uint8 [n, S, S, 3] of places.

        Raises:
            IndexError: no such place.
        """
        if isinstance(places, slice):
            places = np.arange(*places.indices(len(self)))
        at = self.at[places]
        own = at < 0
        pixels = np.empty((len(places), *self.shape[1:]), np.uint8)
        pixels[own] = self.pixels[places[own]]
        pixels[~own] = self.others[at[~own]]
        return pixels


@dataclass(frozen=True)
class WithCrops:
    """N images and K − 1 crops of each, which are read when they are asked for.

    Crop k of image r is at place k·N + r; crop 0 is the image, so that its row is its place.

    Attributes:
        images: uint8 [N, S, S, 3].
        crops: uint8 [N·(K − 1), S, S, 3], those of an image one behind the other.
    """

    images: Pixels
    crops: Pixels

    def __len__(self) -> int:
        return len(self.images) + len(self.crops)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.images.shape[1:])

    def __getitem__(self, places: slice | np.ndarray, /) -> np.ndarray:
        """Pixels uint8 [n, S, S, 3] of places.

        Raises:
            IndexError: no such place.
        """
        if isinstance(places, slice):
            places = np.arange(*places.indices(len(self)))
        if len(places) and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"places {places.min()} to {places.max()} of {len(self)}")
        crop, row = np.divmod(places, len(self.images))
        whole = crop == 0
        pixels = np.empty((len(places), *self.images.shape[1:]), np.uint8)
        pixels[whole] = self.images[row[whole]]
        each = len(self.crops) // len(self.images)
        pixels[~whole] = self.crops[row[~whole] * each + crop[~whole] - 1]
        return pixels


def centred(pixels: Pixels, side: int) -> Pixels:
    """The centre of each image, [N, side, side, 3], as `frames.framed` cuts it; nothing is read.

    Raises:
        ValueError: the images are smaller.
    """
    stored = pixels.shape[1]
    if side > stored:
        raise ValueError(f"images of {stored} pixels have no centre of {side}")
    if isinstance(pixels, JpegPixels):
        return replace(pixels, side=side)
    margin = (stored - side) // 2
    assert isinstance(pixels, np.ndarray)
    return pixels[:, margin : margin + side, margin : margin + side]


def _by_threads(work: Callable[[int], None], count: int) -> None:
    """Calls `work` with 0 to `count` - 1; the decoder works outside of the interpreter's lock."""
    threads = min(os.cpu_count() or 1, count // FEW)
    if threads < 2:
        for at in range(count):
            work(at)
        return

    def share(first: int) -> None:
        for at in range(first, count, threads):
            work(at)

    with ThreadPoolExecutor(threads, "jpegs") as pool:
        list(pool.map(share, range(threads)))
