"""Pixels of many images in a file without a name: written once, read by row as an array is.

A test set of 50,000 images of 224 pixels is 7.5 GB: what is not looked at takes no memory.
"""

import tempfile
import threading
from typing import Any

import numpy as np

from kd3_pipeline.errors import ExternalError


class PixelFile:
    """uint8 [N, S, S, 3] in a temporary file (`TMPDIR`), which goes with the object.

    Its first index is anything that numpy takes (a row, rows, a mask, a slice), and gives an array
    in memory, to which further indices apply.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, side: int) -> None:
        self._image = (side, side, 3)
        self._bytes, self._count = side * side * 3, 0
        self._file = tempfile.TemporaryFile(prefix="pixels-")  # noqa: SIM115, it goes with self
        self._lock = threading.Lock()  # reading moves the file's one place

    def append(self, image: np.ndarray) -> None:
        """Adds an image, uint8 [S, S, 3].

        Raises:
            ExternalError: the disk is full.
        """
        if image.shape != self._image or image.dtype != self.dtype:
            raise ValueError(f"{image.dtype} {image.shape} is not uint8 {self._image}")
        try:
            with self._lock:
                self._file.seek(self._count * self._bytes)
                self._file.write(image.tobytes())
        except OSError as error:
            raise ExternalError(
                f"{self._count * self._bytes / 1e9:.1f} GB of pixels are in {tempfile.gettempdir()}"
                f" and no more can be written: {error.strerror or error}",
                "set TMPDIR to a folder with more room, or read fewer images",
            ) from None
        self._count += 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the whole, as an array has it."""
        return (self._count, *self._image)

    @property
    def nbytes(self) -> int:
        """Of the whole, on the disk."""
        return self._count * self._bytes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        rows = np.arange(self._count)[first]
        found = self._read(np.atleast_1d(rows))
        return (found if rows.ndim else found[0])[(slice(None),) * rows.ndim + tuple(rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self._image), np.uint8)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1  # rows in a row are read at once
        for start, end in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            if start < end:
                with self._lock:
                    self._file.seek(int(rows[start]) * self._bytes)
                    self._file.readinto(found[start:end].data.cast("B"))
        return found
