"""What was fetched, kept by URL: a crawl that was interrupted, or repeated, asks only for the rest.

An image is a file named by its SHA-256; a record is one line. The file comes first, so a record
always has its image, whatever moment the process dies.
"""

import errno
import hashlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from pipeline.crawl.candidates import Fetched


class Journal:
    """A folder of downloads. `records` holds the last record of every URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, Fetched] = {}
        self._path = folder / "journal.jsonl"

    def __enter__(self) -> "Journal":
        self.folder.mkdir(parents=True, exist_ok=True)
        for temporary in self.folder.glob("objects/*/*.tmp"):
            temporary.unlink()
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else [b""]
        for line in lines[:-1]:
            try:
                record = Fetched(**json.loads(line))
            except (ValueError, TypeError):
                continue  # not a record, or of another version: the URL is asked for again
            self.records[record.url] = record
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # what follows the last line end was cut off when the process died
        os.ftruncate(self._file, sum(len(line) + 1 for line in lines[:-1]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def keep(self, data: bytes) -> str:
        """Stores an image's bytes and returns their SHA-256 in hex."""
        name = hashlib.sha256(data).hexdigest()
        path = self.path(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{threading.get_ident()}.tmp")
            temporary.write_bytes(data)
            os.replace(temporary, path)
        return name

    def add(self, record: Fetched) -> None:
        """Appends a record.

        Raises:
            OSError: it could not be written in full; the journal must be opened anew.
        """
        line = json.dumps(asdict(record), ensure_ascii=True).encode() + b"\n"
        if os.write(self._file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self.records[record.url] = record

    def path(self, name: str) -> Path:
        """Where the image with this SHA-256 is."""
        return self.folder / "objects" / name[:2] / name
