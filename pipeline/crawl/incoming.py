"""Image on its way to the journal: in memory or in a temporary file, then in its place."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pipeline.crawl.disk import writing
from pipeline.manifest import Fetched

IN_MEMORY = 256 * 1024  # bytes of an image; more of it goes to disk as it comes


class Incoming:
    """An image on its way to the journal.

    It is in memory while it is small, then in a temporary file. To be used by one thread at a time.
    What is small is hashed in the end, by the thread that keeps it: hashing each part as it comes
    would hold up all other downloads.
    """

    def __init__(
        self, path: Path, place: Callable[[str], Path], holds: Callable[[Fetched], bool]
    ) -> None:
        """`place` and `holds` are the journal's `path` and `holds`."""
        self.path = path  # of the temporary file
        self.size = 0  # bytes
        self._place, self._holds = place, holds
        self._hash = hashlib.sha256()
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)

    def write(self, part: bytes) -> None:
        """Appends bytes; raises ExternalError when the disk is full, or will not have them."""
        self.size += len(part)
        self._memory += part
        if self.size > IN_MEMORY:
            self._hash.update(self._memory)
            with writing(self.path):
                if self._file is None:
                    self._file = self.path.open("wb", buffering=0)
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
            if not self._holds(Fetched("", "ok", id=name, size=self.size)):
                try:
                    self._move_to(path)
                except FileNotFoundError:  # the first image of this folder
                    path.parent.mkdir(exist_ok=True)
                    self._move_to(path)
        return name

    def _move_to(self, path: Path) -> None:
        if self._file is None:
            # beside its place: ext4 was seen to take 20 times as long for a new file in a folder
            # of many folders
            self.path = path.with_name(self.path.name)
            try:
                self.path.write_bytes(self._memory)
            except OSError:
                self.path.unlink(missing_ok=True)
                raise
        os.replace(self.path, path)
