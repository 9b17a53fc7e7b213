"""Result pages that were read, so that a search goes on where it stopped and asks nothing twice."""

import errno
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kd3_pipeline.crawl.engines.engine import Result, ResultPage

Key = tuple[str, str]  # the engine's name and the page's address, without secrets


@dataclass(frozen=True)
class LoggedPage:
    """A page, and why its query ends with it, "" if it need not."""

    page: ResultPage
    ended: str = ""


class PageLog:
    """The file `pages.jsonl` of a folder, one line a page. `pages` holds them by key.

    Attributes:
        outdated: pages of versions that did not keep where the next one begins; not in `pages`.
    """

    def __init__(self, folder: Path) -> None:
        self.pages: dict[Key, LoggedPage] = {}
        self.outdated: set[Key] = set()
        self._path = folder / "pages.jsonl"

    def __enter__(self) -> "PageLog":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else [b""]
        for line in lines[:-1]:
            try:
                self._read(json.loads(line))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # not a record, or of another version: the page is asked for again
        # a file object, and not its number, which could be another file's once this is closed
        self._file = self._path.open("ab", buffering=0)
        # what follows the last line end was cut off when the process died
        self._file.truncate(sum(len(line) + 1 for line in lines[:-1]))
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, key: Key, page: ResultPage, ended: str = "") -> None:
        """Appends a page.

        Raises:
            OSError: it could not be written in full; the log must be opened anew.
        """
        found = [
            {name: value for name, value in asdict(one).items() if value} for one in page.results
        ]
        self._write(key, {"results": found, "next": page.next, "ended": ended})
        self.pages[key] = LoggedPage(page, ended)

    def forget(self, keys: Iterable[Key]) -> None:
        """Takes pages out that have turned out to be false; raises as `add`."""
        for key in keys:
            if self.pages.pop(key, None) is not None:
                self._write(key, {"forgotten": True})

    def clear(self) -> None:
        """Forgets every page."""
        self._file.truncate(0)
        self.pages, self.outdated = {}, set()

    def _read(self, record: dict[str, Any]) -> None:
        key = (str(record["engine"]), str(record["page"]))
        if record.get("forgotten"):
            self.pages.pop(key, None)
            return
        results = [Result(**one) for one in record["results"]]
        if "next" not in record:
            self.outdated.add(key)
            return
        following, ended = record["next"], record["ended"]
        if not (following is None or isinstance(following, int)) or not isinstance(ended, str):
            raise TypeError("not a page of this version")
        self.outdated.discard(key)
        self.pages[key] = LoggedPage(ResultPage(results, following), ended)

    def _write(self, key: Key, values: dict[str, Any]) -> None:
        record = {"engine": key[0], "page": key[1]} | values
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        if self._file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
