"""Errors of the disk as those of the world, by whichever library they are told."""

import errno
import os
import re
import sqlite3
from pathlib import Path

from kd3_pipeline.errors import ExternalError

ROOM = "free some room there, and the same command goes on; what it did not write is as it was"
WRITABLE = "it has to be writable for whoever runs this"
IN_THE_WAY = "a file or a link is where a folder has to be, or the other way round: move it away"
HINTS = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "`ulimit -f unlimited` in the same shell, or another disk, allows larger files",
    errno.EROFS: WRITABLE,
    errno.EACCES: WRITABLE,
    errno.EPERM: WRITABLE,
    errno.EIO: "the disk, or the network that it is reached by, failed",
    errno.ESTALE: "the disk, or the network that it is reached by, failed",
    errno.ENOTDIR: IN_THE_WAY,
    errno.EISDIR: IN_THE_WAY,
    errno.EEXIST: IN_THE_WAY,
    errno.ELOOP: "links lead to one another: move one of them away",
    errno.ENAMETOOLONG: "a shorter name, or a project in a folder less deep, has room",
    errno.EMFILE: "`ulimit -n 4096` in the same shell allows more open files",
    errno.ENFILE: "close other programs: the machine has no more open files",
}
TOLD = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
)  # in words, where the number is lost
SQLITE = {  # its words: what the system calls it
    "disk is full": errno.ENOSPC,
    "readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
    "disk i/o error": errno.EIO,
}
# of torch.save, which says no more
SHORT_WRITES = ("PytorchStreamWriter failed writing", ". unexpected pos ", "iostream error")


def disk_trouble(error: BaseException) -> ExternalError | None:
    """What to tell where an error, or what it came from, is one of the disk; None for any other."""
    seen: BaseException | None = error
    found, file = 0, ""
    while seen is not None and not found:
        found, file = _number(seen), _file(seen)
        seen = seen.__cause__ or seen.__context__
    if not found:
        return None
    verb = "cannot write" if found in TOLD else "cannot open or write"
    return ExternalError(f"{verb} {file or Path.cwd()}: {os.strerror(found)}", HINTS[found])


def _number(error: BaseException) -> int:
    """The system's number of an error of the disk; 0 for any other."""
    if isinstance(error, OSError) and error.errno in HINTS:
        return error.errno
    text = str(error)
    if isinstance(error, sqlite3.OperationalError):
        return next((n for words, n in SQLITE.items() if words in text.lower()), 0)
    if isinstance(error, RuntimeError) and any(words in text for words in SHORT_WRITES):
        return errno.ENOSPC
    return next((n for n in TOLD if os.strerror(n) in text), 0)


def _file(error: BaseException) -> str:
    """The file that an error names; empty: none."""
    if isinstance(error, OSError) and error.filename is not None:
        return os.fsdecode(error.filename)
    quoted = re.search(r"'(/[^']+)'", str(error))
    return quoted[1] if quoted else ""
