"""Arrays on disk of which pieces are filled in any order, and which go on after a kill."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from kd3_pipeline.errors import ExternalError
from kd3_pipeline.store import claim, take_room, write_text


class Pieces:
    """Files of numpy arrays of known shape in a folder, mapped into memory.

    Their room on the disk is taken when they are made: a map that finds none later would end the
    process without a word.

    Attributes:
        arrays: by name of their file, to be written to.
        saved: pieces that are done, of earlier calls too.
    """

    def __init__(self, folder: Path, layout: Mapping[str, tuple[type, tuple[int, ...]]]) -> None:
        """`layout` gives the dtype and the shape of each file.

        Raises:
            UserError: another process writes them.
            ExternalError: there is no room on the disk.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._mark = folder, folder / "pieces"
        self._lock = (folder / "pieces.lock").open("ab")
        claim(self._lock)
        mark = self._mark.read_text("utf-8").strip() if self._mark.is_file() else ""
        self.saved = int(mark) if mark.isdecimal() else 0
        if not all((folder / name).is_file() for name in layout):
            self.saved = 0
        size = sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in layout.values())
        try:
            self.arrays = {
                name: self._opened(folder / name, kind, shape)
                for name, (kind, shape) in layout.items()
            }
        except OSError as error:
            raise self._failed(error, f"make room for {size / 1e9:.1f} GB") from None

    def __enter__(self) -> "Pieces":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.arrays = {}
        self._lock.close()

    def save(self, done: int) -> None:
        """From here on an interrupted run goes on behind `done` pieces.

        Raises:
            ExternalError: the disk fails.
        """
        try:
            for array in self.arrays.values():
                array.flush()  # the mark must not be on disk before what it speaks of
            write_text(self._mark, f"{done}\n")
        except OSError as error:
            raise self._failed(error, "make room") from None
        self.saved = done

    def _opened(self, path: Path, kind: type, shape: tuple[int, ...]) -> np.memmap:
        if self.saved:
            return np.lib.format.open_memmap(path, "r+")
        array = np.lib.format.open_memmap(path, "w+", np.dtype(kind), shape)
        with path.open("r+b") as file:
            take_room(file, path.stat().st_size)
        return array

    def _failed(self, error: OSError, advice: str) -> ExternalError:
        return ExternalError(
            f"{self.folder} cannot be written: {error.strerror or error}",
            f"{advice}; the same command goes on where it stopped",
        )
