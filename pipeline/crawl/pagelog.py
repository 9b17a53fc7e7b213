"""Result pages that were read, so that a search goes on where it stopped and asks nothing twice."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from pipeline.crawl.engines.engine import Result

Key = tuple[str, str]  # the engine's name and the page's address, without secrets


class PageLog:
    """The file `pages.jsonl` of a folder, one line a page. `pages` holds them by key."""

    def __init__(self, folder: Path) -> None:
        self.pages: dict[Key, list[Result]] = {}
        self._path = folder / "pages.jsonl"

    def __enter__(self) -> "PageLog":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else [b""]
        for line in lines[:-1]:
            try:
                record = json.loads(line)
                results = [Result(**one) for one in record["results"]]
                self.pages[str(record["engine"]), str(record["page"])] = results
            except (ValueError, TypeError, KeyError):
                continue  # not a record, or of another version: the page is asked for again
        # a file object, and not its number, which could be another file's once this is closed
        self._file = self._path.open("ab", buffering=0)
        # what follows the last line end was cut off when the process died
        self._file.truncate(sum(len(line) + 1 for line in lines[:-1]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, key: Key, results: Sequence[Result]) -> None:
        """Appends a page.

        Raises:
            OSError: it could not be written in full; the log must be opened anew.
        """
        found = [{name: value for name, value in asdict(one).items() if value} for one in results]
        record = {"engine": key[0], "page": key[1], "results": found}
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        if self._file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self.pages[key] = list(results)

    def clear(self) -> None:
        """Forgets every page."""
        self._file.truncate(0)
        self.pages = {}
