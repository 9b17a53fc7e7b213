"""Disk and open files of a crawl: what goes wrong there is told as the world's, not a bug."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd3_pipeline.diskerrors import HINTS, ROOM
from kd3_pipeline.errors import ExternalError


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Makes an error of the disk one of the world, since the crawl can go on once it is mended."""
    try:
        yield
    except OSError as error:
        refuse_if_out_of_files(error)
        hint = HINTS.get(error.errno or 0, ROOM)
        then = "once there is room," if hint == ROOM else f"{hint}, and"
        raise ExternalError(
            f"cannot write {path}: {error.strerror or error}",
            f"what was fetched so far is kept; {then} the same command goes on",
        ) from None


def refuse_if_out_of_files(error: BaseException) -> None:
    """Raises ExternalError where the process may open no more files, whoever was refused one.

    A connection is a file as well, and so is what a name is looked up by: without this, hosts and
    network would be blamed.
    """
    seen = error if isinstance(error, OSError) else getattr(error, "os_error", None)
    number = getattr(seen, "errno", None)
    if number not in (errno.EMFILE, errno.ENFILE) and not (seen is not None and _out_of_files()):
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    raise ExternalError(
        f"too many open files: this process may have {limit} at once",
        "`ulimit -n 1024` in the same shell allows more, and the same command goes on",
    ) from None


def _out_of_files() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
