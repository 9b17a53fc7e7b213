"""Content of files and folders outside the project, as hashes that are remembered.

A file is read once: while its size, times and inode stay, so does its hash.
"""

import contextlib
import errno
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kd3_pipeline.console import Advance, no_progress

SETTLED = 2_000_000_000  # ns; a younger file may change again within one tick of its clock
NOT_A_FILE = "it is no regular file"
SKIPPED = "__pycache__"  # written by reading: `torch.hub` runs a folder's code


@dataclass(frozen=True)
class Content:
    """Content of a file, or of all files of a folder with their names."""

    files: int
    bytes: int
    sha256: str


class Hashes:
    """SHA-256 of files, remembered in an SQLite file between runs; use as a context."""

    def __init__(self, file: Path) -> None:
        self._database = open_cache(file, "path BLOB PRIMARY KEY, state TEXT, sha256 TEXT")

    def __enter__(self) -> "Hashes":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.commit()  # an interrupted run keeps what it has hashed
        self._database.close()

    def of(self, path: Path) -> tuple[int, str]:
        """Size (bytes) and SHA-256 of a regular file.

        Raises:
            OSError: it cannot be read.
        """
        key = os.fsencode(path.absolute())
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, a device read for ever
            raise OSError(errno.EINVAL, NOT_A_FILE, str(path))
        state = f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}"
        found = self._database.execute(
            "SELECT sha256 FROM hashes WHERE path = ? AND state = ?", (key, state)
        ).fetchone()
        if found:
            return about.st_size, found[0]
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > SETTLED:
            self._database.execute(
                "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", (key, state, sha256)
            )
        return about.st_size, sha256


def open_cache(file: Path, columns: str) -> sqlite3.Connection:
    """An SQLite file of `hashes`, begun anew where it is no database: all can be worked out again.

    Raises:
        sqlite3.OperationalError: it cannot be opened, or another program holds it.
    """

    def opened() -> sqlite3.Connection:
        database = sqlite3.connect(file, timeout=60)
        database.execute(f"CREATE TABLE IF NOT EXISTS hashes ({columns})")
        return database

    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        return opened()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        file.unlink()
        return opened()


def content(path: Path, hashes: Hashes, advance: Advance = no_progress) -> Content | None:
    """Content of `path` as it is now, None if nothing is there.

    A file that cannot be read counts as such: whoever needs it says what is wrong.

    Args:
        path: a file or a folder; links are followed, those that lead in a circle once.
        advance: called for each file.
    """
    if not path.exists():
        return None
    if not path.is_dir():
        size, sha256 = _read(path, hashes)
        advance(1)
        return Content(1, size, sha256)
    digest, files, total = hashlib.sha256(), 0, 0
    for name, file in sorted(_files_in(path, b"", frozenset())):
        size, sha256 = _read(file, hashes)
        digest.update(name + b"\0" + sha256.encode() + b"\0")  # no name holds a NUL
        files, total = files + 1, total + size
        advance(1)
    return Content(files, total, digest.hexdigest())


def _read(path: Path, hashes: Hashes) -> tuple[int, str]:
    try:
        return hashes.of(path)
    except OSError as error:
        return 0, f"unreadable: {error.strerror}"


def _files_in(
    folder: Path, prefix: bytes, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[bytes, Path]]:
    """Regular files below a folder with their names from it on; `above` are the folders open."""
    about = folder.stat()
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    entries: list[os.DirEntry[str]] = []
    with contextlib.suppress(PermissionError), os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        name = prefix + os.fsencode(entry.name)
        try:
            kind = entry.stat().st_mode
        except OSError:  # a link to nothing
            continue
        if stat.S_ISREG(kind):
            yield name, Path(entry.path)
        elif stat.S_ISDIR(kind) and entry.name != SKIPPED:
            yield from _files_in(Path(entry.path), name + b"/", above | {here})
