"""Arrays on disk that grow row by row, and go on after a kill where they were last saved."""

import io
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np

from kd3_pipeline.errors import ExternalError
from kd3_pipeline.store import claim, write_text


class ArrayWriter:
    """Files of numpy arrays of known length in a folder, written in order and never held in memory.

    Beside them there may be files of bytes of any length for each row, one behind the other, each
    with an array of where they end.

    Plain writes and no memory map: a full disk is then an error and not a dead process, and the
    pages that were written do not count as this process's memory.

    Attributes:
        saved: rows that earlier calls have saved; `append` goes on behind them.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        layout: Mapping[str, tuple[type, tuple[int, ...]]],
        blobs: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`layout` gives the dtype and the shape of one row of each file; `total` their rows.

        `blobs` gives for each file of bytes the name of the array of its ends, which is of one
        a row where `layout` does not give it a shape.

        Raises:
            UserError: another process writes them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
        claim(lock)
        self._first = next(iter(layout))
        layout = {**{ends: (np.int64, ()) for ends in blobs.values()}, **layout}
        self._blobs = dict(blobs)
        self.folder, self._dtypes = folder, {name: kind for name, (kind, _) in layout.items()}
        self._mark = folder / "saved"
        self._written = 0
        headers = {name: _header(kind, (total, *shape)) for name, (kind, shape) in layout.items()}
        row_bytes = {
            name: np.dtype(kind).itemsize * int(np.prod(shape))
            for name, (kind, shape) in layout.items()
        }
        mark = self._mark.read_text("utf-8").strip() if self._mark.is_file() else ""
        self.saved = int(mark) if mark.isdecimal() else 0
        sizes = {name: len(headers[name]) + self.saved * row_bytes[name] for name in layout}
        for name, ends in blobs.items():
            headers[name], row_bytes[name] = b"", 0
            sizes[name] = self._end(folder / ends, sizes[ends])
        paths = {name: folder / name for name in [*layout, *blobs]}
        if any(
            not path.is_file() or path.stat().st_size < sizes[name] for name, path in paths.items()
        ):
            self.saved, sizes = 0, {name: len(headers[name]) for name in sizes}
        self._ends = {name: sizes[name] for name in blobs}
        with ExitStack() as stack:
            stack.enter_context(lock)
            self._files = {
                name: stack.enter_context(path.open("r+b" if self.saved else "wb"))
                for name, path in paths.items()
            }
            for name, file in self._files.items():
                file.write(headers[name])
                file.truncate(sizes[name])
                file.seek(0, os.SEEK_END)
            self._open = stack.pop_all()

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # closing writes what is not saved, which nobody needs: a full disk was told of before
        with suppress(OSError):
            self._open.close()

    def append(self, parts: Mapping[str, np.ndarray | list[bytes]]) -> None:
        """Adds rows to every array, and as many bytes to every file of them.

        Raises:
            ExternalError: the disk is full or fails.
        """
        rows = dict(parts)
        for name, ends in self._blobs.items():
            lengths = np.array([len(blob) for blob in parts[name]], np.int64)
            rows[ends] = self._ends[name] + lengths.cumsum()
            rows[name] = np.frombuffer(b"".join(parts[name]), np.uint8)
            self._ends[name] += int(lengths.sum())
        try:
            for name, file in self._files.items():
                file.write(np.ascontiguousarray(rows[name], self._dtypes.get(name, np.uint8)).data)
        except OSError as error:
            raise self._failed(error) from None
        self._written += len(parts[self._first])

    def save(self) -> None:
        """From here on an interrupted run goes on behind the rows that there are now.

        Raises:
            ExternalError: the disk is full or fails.
        """
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())  # the mark must not be on disk before what it speaks of
            write_text(self._mark, f"{self.saved + self._written}\n")
        except OSError as error:
            raise self._failed(error) from None

    def _end(self, ends: Path, size: int) -> int:
        """Where the last saved bytes end, by the last of `size` bytes; 0 if it cannot be read."""
        if not self.saved:
            return 0
        try:
            with ends.open("rb") as file:
                file.seek(size - 8)
                return int.from_bytes(file.read(8), "little")
        except OSError:  # the array is not there, so all begins anew
            return 0

    def _failed(self, error: OSError) -> ExternalError:
        return ExternalError(
            f"{self.folder} cannot be written: {error.strerror or error}",
            "make room; the same command goes on where it stopped",
        )


def _header(kind: type, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    values = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, values)
    return out.getvalue()
