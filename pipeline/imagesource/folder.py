"""Folders of pictures: every file is looked at, and none beyond the folder is opened."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.formats import HEAD
from kd3_pipeline.imagesource.entries import (
    LINK,
    MISSING,
    MOST_SIDECAR,
    SIDECARS,
    SPECIAL,
    TOO_LARGE,
    UNREADABLE,
    Entry,
    Facts,
    Left,
    hidden_in,
    kind_counted,
    sidecar_facts,
)
from kd3_pipeline.imagesource.kinds import ending, is_parquet, is_picture, is_tar

LOOKED_AT = 1000  # files between two signs of life
LISTINGS = {"metadata.csv", "metadata.jsonl", "metadata.parquet"}  # Hugging Face's imagefolder
# a link in place of the file, or a pipe, is an error and no wait
FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class File:
    """A file below a folder: its name from there on, or why it is not read."""

    name: str
    path: str
    size: int = 0
    outcome: str = ""
    detail: str = ""


@dataclass
class Found:
    """What is below a folder, by kind, in order of the names."""

    pictures: list[File] = field(default_factory=list)
    archives: list[File] = field(default_factory=list)
    tables: list[File] = field(default_factory=list)
    listings: list[File] = field(default_factory=list)
    sidecars: dict[str, dict[str, File]] = field(default_factory=dict)  # by name without ending
    folders: list[str] = field(default_factory=list)  # of the first level


def read_file(path: str, most: int) -> bytes:
    """The first `most` bytes of a regular file.

    Raises:
        OSError: it cannot be read, or is no regular file any more.
    """
    with os.fdopen(os.open(path, FLAGS), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError("no regular file")
        # a read asks for all the memory that it may need
        return file.read(min(most, about.st_size + 1))


def look_through(root: Path, left: Left, advance: Advance = no_progress) -> Found:
    """Everything below `root`; `left` counts what is neither a picture nor says something of one.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found = Found()
    os.scandir(root).close()
    files = sorted(
        _walk(root, _boundary(root), "", left, found), key=lambda one: one.name.split("/")
    )
    for number, file in enumerate(files, 1):
        _sort_in(file, found, left)
        if not number % LOOKED_AT:
            advance(0, f"{number:,} of {len(files):,} files looked at")
    _settle_sidecars(found, left)
    return found


def _boundary(root: Path) -> str:
    """The folder that links may not leave: `root`, or the store of a Hugging Face snapshot."""
    real = Path(os.path.realpath(root))
    store = real.parent.parent
    inside = real.parent.name == "snapshots" and (store / "blobs").is_dir()
    return str(store if inside else real)


def _walk(folder: Path, boundary: str, prefix: str, left: Left, found: Found) -> Iterator[File]:
    try:
        with os.scandir(folder) as entries:
            inside = list(entries)
    except OSError as error:
        yield File(prefix.rstrip("/"), str(folder), 0, UNREADABLE, error.strerror or str(error))
        return
    for entry in inside:
        if hidden := hidden_in([entry.name]):
            left.hidden[hidden] += 1
        elif entry.is_dir(follow_symlinks=False):
            if not prefix:
                found.folders.append(entry.name)
            yield from _walk(Path(entry.path), boundary, f"{prefix}{entry.name}/", left, found)
        elif (file := _file(entry, prefix + entry.name, boundary)) is not None:
            yield file
        else:
            left.other["links to folders in the folder"] += 1


def _file(entry: os.DirEntry[str], name: str, boundary: str) -> File | None:
    """A file, or why it is not read; None for a link to a folder that is read in its own place."""
    path = entry.path
    try:
        if entry.is_symlink():
            path = os.path.realpath(entry.path, strict=True)
            if os.path.commonpath([boundary, path]) != boundary:
                return File(name, path, 0, LINK, "a link out of the folder is not followed")
        about = os.stat(path, follow_symlinks=False)
    except OSError as error:
        if entry.is_symlink():
            return File(name, path, 0, LINK, f"a link to nothing: {error.strerror}")
        return File(name, path, 0, UNREADABLE, error.strerror or str(error))
    if stat.S_ISDIR(about.st_mode):
        return None
    if not stat.S_ISREG(about.st_mode):
        return File(name, path, 0, SPECIAL, "a device, pipe or socket")
    return File(name, path, about.st_size)


def _sort_in(file: File, found: Found, left: Left) -> None:
    if file.outcome:
        found.pictures.append(file)  # what it is will never be known
        return
    try:
        head = read_file(file.path, HEAD)
    except OSError as error:
        detail = error.strerror or str(error)
        found.pictures.append(replace(file, outcome=UNREADABLE, detail=detail))
        return
    last = file.name.rpartition("/")[2].lower()
    if is_tar(file.name, head):
        found.archives.append(file)
    elif last in LISTINGS:
        found.listings.append(file)
    elif is_parquet(file.name, head):
        found.tables.append(file)
    elif is_picture(file.name, head):
        found.pictures.append(file)
    elif ending(file.name) in SIDECARS:
        found.sidecars.setdefault(stem_of(file.name), {})[ending(file.name)] = file
    else:
        left.other[kind_counted(file.name)] += 1


def _settle_sidecars(found: Found, left: Left) -> None:
    """Keeps those that lie beside a picture as img2dataset and WebDataset have it."""
    stems = {stem_of(file.name) for file in found.pictures}
    for stem, files in list(found.sidecars.items()):
        # a text alone may be anything, as the boxes of a detector
        if stem in stems and (".json" in files or ".cls" in files):
            left.beside.update(files.keys())
        else:
            left.other.update(files.keys())
            del found.sidecars[stem]


def stem_of(name: str) -> str:
    """A name without its ending."""
    end = ending(name)
    return name[: -len(end)] if end else name


class Folder:
    """The pictures of a folder, or of one split in it.

    Attributes:
        split: its name, "" where there is none.
        listed: what a table says about a picture, by its name; a folder's name says nothing then.
        keyed: the same by the name without its ending, as img2dataset has it.
        names: what numbers in `listed` count.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[File],
        sidecars: Mapping[str, Mapping[str, File]],
        max_bytes: int,
        split: str = "",
    ) -> None:
        self.root, self.split, self.names = root, split, list[str]()
        self.listed: dict[str, Facts] = {}
        self.keyed: dict[str, Facts] = {}
        self._sidecars, self._most = sidecars, max_bytes
        self.files = [
            replace(file, outcome=TOO_LARGE, detail=f"more than {max_bytes} bytes")
            if file.size > max_bytes and not file.outcome
            else file
            for file in files
        ]

    @property
    def said_beside(self) -> bool:
        """True if a table or a file beside a picture says something of it."""
        return bool(self.listed or self.keyed or self._sidecars)

    def __len__(self) -> int:
        return len(self.files)

    def files_named(self) -> list[str]:
        """Names of all files, from the folder of the split on."""
        return [file.name.split("/", 1)[1] if self.split else file.name for file in self.files]

    def lost(self) -> Set[int]:
        """Rows that are known to give no picture."""
        return {row for row, file in enumerate(self.files) if file.outcome}

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows, in order."""
        for row in rows:
            file, data = self.files[row], b""
            outcome, detail = file.outcome, file.detail
            if not outcome:
                try:
                    data = read_file(file.path, self._most + 1)
                except OSError as error:
                    outcome, detail = UNREADABLE, error.strerror or str(error)
                if len(data) > self._most:  # it has grown since
                    outcome, detail, data = TOO_LARGE, f"more than {self._most} bytes", b""
            place = str(self.root / file.name)
            facts = self._said(file.name)
            yield Entry(file.name, place, data, outcome, detail, file.size, facts, self.names)

    def classes(self) -> list[str | int | None]:
        """What is said about the class of every row."""
        return [self._said(file.name).of_class for file in self.files]

    def _said(self, name: str) -> Facts:
        if name in self.listed:
            return self.listed[name]
        stem = stem_of(name)
        said = self.keyed.get(stem)
        beside = self._sidecars.get(stem)
        if beside:
            texts = {end: _text(file) for end, file in beside.items()}
            facts = sidecar_facts(texts)
            if (
                said is not None
                or facts.of_class is not None
                or b'"key"' in texts.get(".json", b"")
            ):
                return _both(said or Facts(), facts)
            return replace(facts, of_class=self._folder_class(name))
        return said if said is not None else Facts(of_class=self._folder_class(name))

    def _folder_class(self, name: str) -> str | None:
        folders = name.split("/")[:-1][bool(self.split) :]
        return folders[0] if folders else None


def _text(file: File) -> bytes:
    try:
        return read_file(file.path, MOST_SIDECAR) if file.size <= MOST_SIDECAR else b""
    except OSError:
        return b""


def _both(first: Facts, second: Facts) -> Facts:
    """The facts of two sources, the first one's before the other's."""
    found = {name: getattr(first, name) for name in Facts.__slots__}
    for name, value in found.items():
        if value in ("", None):
            found[name] = getattr(second, name)
    return Facts(**found)


@dataclass
class Absent:
    """Pictures that a table names and that are not there, or a file that is no table after all."""

    entries: list[Entry]
    split: str = ""
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def lost(self) -> Set[int]:
        """All rows."""
        return set(range(len(self.entries)))

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows."""
        return (self.entries[row] for row in rows)

    def classes(self) -> list[str | int | None]:
        """What is said about the class of every row."""
        return [entry.facts.of_class for entry in self.entries]


def absent(name: str, place: str, detail: str, facts: Facts) -> Entry:
    """An entry for a picture that is not there."""
    return Entry(name, place, outcome=MISSING, detail=detail, facts=facts)
