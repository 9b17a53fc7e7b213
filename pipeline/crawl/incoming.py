"""Image on its way to the journal: in memory or in a temporary file, then in its place."""

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from kd3_pipeline.crawl.disk import writing

IN_MEMORY = 256 * 1024  # bytes of an image; more of it goes to disk as it comes


class Incoming:
    """An image on its way to the journal.

    It is in memory while it is small, then in a temporary file. To be used by one thread at a time.
    What is small is hashed in the end, by the thread that keeps it: hashing each part as it comes
    would hold up all other downloads.
    """

    def __init__(
        self, path: str, place: Callable[[str], str], held: Callable[[str, int], bool]
    ) -> None:
        """`place` of the image with a SHA-256; whether it is `held`, with so many bytes."""
        self._path = path
        self.size = 0  # bytes
        self._place, self._held = place, held
        self._hash = hashlib.sha256()
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    @property
    def path(self) -> Path:
        """The temporary file, where there is one."""
        return Path(self._path)

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    def write(self, part: bytes) -> None:
        """Appends bytes; raises ExternalError when the disk is full, or will not have them."""
        self.size += len(part)
        self._memory += part
        if self.size > IN_MEMORY:
            self._hash.update(self._memory)
            with writing(self._path):
                if self._file is None:
                    self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115
                if self._file.write(self._memory) < len(self._memory):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._memory.clear()

    def read(self) -> bytes:
        """All bytes so far."""
        return bytes(self._memory) if self._file is None else self.path.read_bytes()

    def keep(self) -> str:
        """Makes it an image of the journal, and returns its SHA-256; raises as `write` does."""
        if self._file is None:
            self._hash.update(self._memory)
        name = self._hash.hexdigest()
        path = self._place(name)
        with writing(path):
            if not self._held(name, self.size):
                try:
                    self._move_to(path)
                except FileNotFoundError:  # the first image of this folder
                    Path(path).parent.mkdir(exist_ok=True)
                    self._move_to(path)
        return name

    def _move_to(self, path: str) -> None:
        if self._file is None:
            # beside its place: ext4 was seen to take 20 times as long for a new file in a folder
            # of many folders
            self._path = f"{os.path.dirname(path)}/{os.path.basename(self._path)}"
            try:
                with open(self._path, "wb", buffering=0) as file:
                    if file.write(self._memory) < len(self._memory):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(FileNotFoundError):
                    os.unlink(self._path)
                raise
        os.replace(self._path, path)
