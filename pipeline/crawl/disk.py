"""Disk of a crawl: what goes wrong there is told as trouble of the world, not of the program."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ExternalError


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Makes an error of the disk one of the world, since the crawl can go on once it is mended."""
    try:
        yield
    except OSError as error:
        raise ExternalError(
            f"cannot write {path}: {error.strerror or error}",
            "what was fetched so far is kept; once there is room, the same command goes on",
        ) from None
