"""Journal of downloads by URL: a crawl that was interrupted, or repeated, asks only for the rest.

An image is a file named by its SHA-256; a record is one line. The file comes first, so a record
always has its image, whatever moment the process dies. Each shard that a crawl has written holds
its images in place of the files.
"""

import errno
import fcntl
import itertools
import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from kd3_pipeline.crawl.backlog import NEVER_KEPT, was_asked
from kd3_pipeline.crawl.disk import writing
from kd3_pipeline.crawl.incoming import Incoming
from kd3_pipeline.crawl.sealed import Sealed
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import NOT_NOW, Candidate, Fetched
from kd3_pipeline.store import StoredImage, clear_leftovers, image_columns, write_json

SYNC_EVERY = 256  # records that a power cut may lose; they are fetched again
FIELDS = [field.name for field in fields(Fetched)]
VALUES = attrgetter(*FIELDS)


class Journal:
    """A folder of downloads. `records` holds the last record of every URL.

    `put_off` holds what the last run left to the next, in a file of its own: it is no record, and
    is asked for again. But classes that were filled without it need none of it: `full` has their
    names, and how many images each had, after the last run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, Fetched] = {}
        self.put_off: dict[str, Fetched] = {}
        self.full: dict[str, dict[str, int]] = {}
        self._now_full: dict[str, dict[str, int]] = {}  # a round is no run: this is for the next
        self._path = folder / "journal.jsonl"
        # as text: a path is made for each image, and three take longer than to write its record
        self._objects = os.path.join(folder, "objects")
        self._later = folder / "later.jsonl"
        self._numbers = itertools.count()
        self._unsynced = 0
        self._doomed = folder / "dropping.json"
        self._sealed = Sealed(folder / "sealed")

    def __enter__(self) -> "Journal":
        with writing(self.folder):
            (self.folder / "objects").mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._lock()
            for temporary in self.folder.glob("objects/**/*.tmp"):
                temporary.unlink()
            self._later.with_suffix(".tmp").unlink(missing_ok=True)
            # what follows the last line end was cut off when the process died
            os.ftruncate(self._file, self._read(self._path))
            if self._later.exists():
                self._read(self._later)
            self._now_full = {url: dict(names) for url, names in self.full.items()}
        self._end_dropping()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            with writing(self._path):
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def _lock(self) -> None:
        """Keeps others out: two at once would each write a crawl without the other's images."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UserError(
                f"another crawl, forget or recheck is at work in {self.folder}",
                "wait until it has ended",
            ) from None
        except OSError:  # a file system without locks
            pass

    def incoming(self) -> Incoming:
        """An image that is still to come, for a `with` block."""
        path = f"{self._objects}/{os.getpid()}.{next(self._numbers)}.tmp"
        return Incoming(path, self._place, self._held)

    def keep(self, data: bytes) -> str:
        """Stores an image's bytes and returns their SHA-256 in hex.

        Raises:
            ExternalError: the disk is full, or will not have it.
        """
        with self.incoming() as incoming:
            incoming.write(data)
            return incoming.keep()

    def add(self, record: Fetched) -> None:
        """Appends a record.

        Raises:
            ExternalError: it could not be written in full; the journal must be opened anew.
        """
        line = _line(record)
        with writing(self._path):
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._unsynced += 1
            if self._unsynced == SYNC_EVERY:
                os.fsync(self._file)
                self._unsynced = 0
        self.records[record.url] = record

    def leave(self, left: Iterable[tuple[Candidate, Fetched, bool]], wanted: int) -> None:
        """Remembers what a run that is through leaves to the next, beside what earlier ones did.

        Args:
            left: candidates, their records, and whether their class has its `wanted` images.

        Raises:
            ExternalError: it could not be written.
        """
        before = dict(self.put_off), {url: dict(names) for url, names in self._now_full.items()}
        for candidate, record, is_full in left:
            # what was asked for once is known to be, though this run did not come to it
            if was_asked(record) or not was_asked(self.put_off.get(record.url)):
                self.put_off[record.url] = record
            names = self._now_full.setdefault(record.url, {})
            names.pop(candidate.class_name, None)
            if is_full:
                names[candidate.class_name] = wanted
        for url in self.put_off.keys() & self.records.keys():
            del self.put_off[url]
        if (self.put_off, self._now_full) == before and (self._later.exists() or not self.put_off):
            return
        lines = (_line(one, full=self._now_full.get(url, {})) for url, one in self.put_off.items())
        with writing(self._later):
            temporary = self._later.with_suffix(".tmp")
            temporary.write_bytes(b"".join(lines))
            os.replace(temporary, self._later)

    def path(self, name: str) -> Path:
        """Place of the image with this SHA-256 until it is sealed."""
        return Path(self._place(name))

    def _place(self, name: str) -> str:
        return f"{self._objects}/{name[:2]}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of the image with this SHA-256."""
        try:
            with open(self._place(name), "rb", buffering=0) as file:
                return file.readall()
        except FileNotFoundError:
            return self._sealed.read(name)

    def holds(self, record: Fetched) -> bool:
        """True if the image of a record is there, with all of its bytes as far as is known."""
        return self._held(record.id or "", record.size)

    def _held(self, name: str, size: int) -> bool:
        """`size`: bytes that the image has; 0 if that is not known."""
        try:
            there = os.stat(self._place(name)).st_size
        except OSError:
            return name in self._sealed
        return there == (size or there)

    def sync(self) -> None:
        """Makes sure that no power cut loses a record.

        Raises:
            ExternalError: the disk will not have it.
        """
        with writing(self._path):
            os.fsync(self._file)
            self._unsynced = 0

    def dooms(self, ids: Collection[str]) -> None:
        """Makes sure that the bytes of images go, once no record has them, if not by `drop`."""
        with writing(self._doomed):
            write_json(self._doomed, sorted(ids))

    def drop(self, ids: Collection[str], shards: Path | None = None) -> None:
        """Removes the bytes of images.

        Args:
            ids: of images that no record has any more.
            shards: of the crawl without these images: they become the sealed ones.
        """
        for name in ids:
            self.path(name).unlink(missing_ok=True)
        if shards is not None:
            self.seal(shards, ids)
        self._sealed.drop(ids)  # what is left there is of another crawl than the one at hand
        clear_leftovers(self._sealed.folder)
        self._doomed.unlink(missing_ok=True)

    def _end_dropping(self) -> None:
        """Does what a process that was killed in `drop` has left to do."""
        if self._doomed.exists():
            kept = {record.id for record in self.records.values()}
            self.drop(set(json.loads(self._doomed.read_text("utf-8"))) - kept)

    def images(self) -> list[str]:
        """SHA-256 of all images that are here, with a record or without, as they are read best."""
        loose = sorted(path.name for path in self._loose())
        return list(dict.fromkeys([*loose, *self._sealed]))

    def _loose(self) -> list[Path]:
        return [path for path in (self.folder / "objects").glob("??/*") if not path.suffix]

    def link_same(self, path: Path, rows: Sequence[StoredImage], schema: pa.Schema) -> bool:
        """Makes `path` a link to a shard that is here, if one has these rows and no others.

        Args:
            rows: images, whose bytes are not looked at: their ids stand for them.
        """
        same = self._sealed.same(image_columns(rows, schema), schema)
        if same is None:
            return False
        try:
            os.link(same, path)
        except OSError:  # no second links, or no more of them
            return False
        return True

    def take(self, shard: Path) -> None:
        """Leaves images to a shard that has just been written, so that they are there once.

        The link comes first, so that each image is somewhere, whatever moment the process dies.
        """
        for name in self._sealed.add(shard):
            self.path(name).unlink(missing_ok=True)

    def seal(self, shards: Path, without: Collection[str] = ()) -> None:
        """Leaves the images of a crawl to the shards that it wrote, so that none is there twice.

        Where the file system has no second links to a file, the files stay.

        Args:
            without: sealed images that are to be dropped.
        """
        old, self._sealed = self._sealed, Sealed(shards)
        for name in old:
            if name not in self._sealed and name not in without:
                self.keep(old.read(name))
        if old.link(shards):
            for path in self._loose():
                if path.name in self._sealed:
                    path.unlink(missing_ok=True)
        self._sealed = old

    def _read(self, path: Path) -> int:
        """Reads all records, and returns the bytes up to the last line end."""
        end = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                try:
                    values = json.loads(line)
                    full = values.pop("full", {})
                    record = Fetched(**values)
                except (ValueError, AttributeError, TypeError, RecursionError):
                    continue  # not a record, or of another version: the URL is asked for again
                if record.outcome not in NEVER_KEPT:
                    self.records[record.url] = record
                elif path == self._later and record.url not in self.records:
                    self.put_off[record.url] = record
                    if isinstance(full, dict) and full:
                        self.full[record.url] = full
                elif path == self._path:  # an older version took a refusal of the moment for good
                    self.records.pop(record.url, None)
                    detail = f"{record.outcome}: {record.detail}"
                    self.put_off[record.url] = replace(record, outcome=NOT_NOW, detail=detail)
        return end


def _line(record: Fetched, **more: object) -> bytes:
    values = dict(zip(FIELDS, VALUES(record), strict=True)) | more
    return json.dumps(values, ensure_ascii=True).encode() + b"\n"
