"""Sources of pictures: what a path holds, noticed by content, and its entries in order."""

import posixpath
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd3_pipeline.console import Advance, no_progress, printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.formats import HEAD
from kd3_pipeline.imagesource.archive import Archive
from kd3_pipeline.imagesource.entries import UNREADABLE, Entry, Facts, Left, Part, facts_of
from kd3_pipeline.imagesource.folder import (
    Absent,
    File,
    Folder,
    Found,
    absent,
    look_through,
    read_file,
    stem_of,
)
from kd3_pipeline.imagesource.kinds import is_parquet, is_tar
from kd3_pipeline.imagesource.table import (
    DONE,
    LISTED,
    NO_COLUMNS,
    Table,
    columns_told,
    listing,
    one_line,
    picture_columns,
)
from kd3_pipeline.store import open_parquet

SPLITS = {  # as Hugging Face calls them; the first that is there is meant
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev"),
}
ALL_SPLITS = frozenset(SPLITS["train"] + SPLITS["test"])
SPLIT = re.compile(rf"(?:^|[-_./])({'|'.join(sorted(ALL_SPLITS))})(?=[-_./]|$)")
IMG2DATASET = {"key", "status"}  # columns of its own tables


@dataclass
class Source:
    """Everything that a path holds.

    Attributes:
        layouts: what it was read as, with counts.
        folders: class folders, of which some may have no picture.
    """

    path: Path
    parts: list[Part] = field(default_factory=list)
    left: Left = field(default_factory=Left)
    layouts: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    @property
    def only_folders(self) -> bool:
        """True if nothing but the names of folders says a class."""
        return all(isinstance(part, Folder) and not part.said_beside for part in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def lines(self, key: str = "") -> list[str]:
        """What it was read as and what was left out, for a person; one line each.

        Args:
            key: of the parameter that can name another column of pictures, if there is one.
        """
        known = ", ".join(f"{count:,} {printable(what)}" for what, count in self.layouts.items())
        lines = [f"read as {known}", *self._columns_told(key), *self.left.lines()]
        return [f"{self.path}: {line}" for line in lines]

    def _columns_told(self, key: str) -> Iterator[str]:
        """Of tables with several columns of pictures, each choice once."""
        chosen = dict.fromkeys(
            (part.column, *part.other_pictures)
            for part in self.parts
            if isinstance(part, Table) and part.other_pictures
        )
        for column, *others in chosen:
            told = f"pictures are those of its column '{printable(column)}'"
            which = f"{key} can name another" if key else "there are some in others"
            yield f"{told}; {which}: {', '.join(map(printable, others))}"

    def splits(self) -> list[str]:
        """Names of its splits, each once; "" for what belongs to none."""
        return list(dict.fromkeys(part.split for part in self.parts))

    def lost(self) -> set[int]:
        """Rows that are known to give no picture before they are read."""
        found, start = set[int](), 0
        for part in self.parts:
            found |= {start + row for row in part.lost()}
            start += len(part)
        return found

    def drawn(self, sample: int, seed: int) -> list[int]:
        """Rows to read, in order: all, or a `sample` of those that may give a picture (0: all).

        Rows that are known to give none are always among them, so that each is accounted for.
        """
        lost, total = self.lost(), len(self)
        there = [row for row in range(total) if row not in lost] if lost else range(total)
        if not sample or sample >= len(there):
            return list(range(total))
        places = random.Random(seed).sample(range(len(there)), sample)
        return sorted([*(there[place] for place in places), *lost])

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows, which are in order."""
        rest, start = iter(rows), 0
        row = next(rest, None)
        for part in self.parts:
            own = []
            while row is not None and row < start + len(part):
                own.append(row - start)
                row = next(rest, None)
            yield from part.read(own)
            start += len(part)


def open_source(
    path: Path,
    max_bytes: int,
    key: str = "",
    advance: Advance = no_progress,
    columns: Mapping[str, str] = NO_COLUMNS,
) -> Source:
    """What `path` holds: a folder, an archive or a Parquet file, in any layout that is known.

    Args:
        max_bytes: larger pictures get an entry without data.
        key: of the parameter that names the path, for messages.
        advance: called with a note while many files are looked at.
        columns: of Parquet files by their role, where they are not as they are usually called.

    Raises:
        UserError: no such source, of another kind, or it cannot be read.
    """
    named = f"{key}: {path}" if key else str(path)
    source = Source(path)
    try:
        if path.is_dir():
            _add_folder(source, max_bytes, advance, columns)
            return source
        head = read_file(str(path.resolve()), HEAD) if path.exists() else b""
    except OSError as error:
        raise UserError(f"{named} cannot be read: {error.strerror or error}") from None
    if is_tar(path.name, head):
        if not path.exists():
            raise UserError(f"{named} not found")
        archive = Archive(path, "", max_bytes, source.left, advance)
        if archive.broken:
            raise UserError(f"{named} cannot be read: {archive.broken}")
        source.parts.append(archive)
        source.layouts[_archive_kind(archive)] += len(archive)
    elif is_parquet(path.name, head):
        try:
            table = Table(path, f"{path.name}#", max_bytes, columns)
        except UserError as error:
            raise UserError(f"{key}: {error}" if key else str(error)) from None
        if not table.column:
            told, likely = columns_told(path, "image")
            raise UserError(
                f"{named}: expected a column 'image' of bytes, or a struct of them: {told}",
                f"pictures may be in {', '.join(likely)}, which holds none that is known here"
                if likely
                else "none of them holds bytes, and a path in a table is not opened",
            )
        source.parts.append(table)
        source.layouts["rows of a Parquet table"] += len(table)
    else:
        hint = f"unpack it and name the folder: `unzip {path.name} -d FOLDER`"
        packed = head[:4] == b"PK\3\4" or path.suffix.lower() == ".zip"
        raise UserError(f"{named} is no folder, .tar or .parquet file", hint if packed else "")
    return source


def _archive_kind(archive: Archive) -> str:
    return "members of WebDataset tars" if archive.webdataset else "members of tars"


@dataclass
class Loose:
    """Loose pictures and archives of a folder, for tables that say something about them."""

    folders: Sequence[Folder]
    archives: dict[str, Archive] = field(default_factory=dict)  # by name
    missing: list[Entry] = field(default_factory=list)  # named by a table and not there

    def __post_init__(self) -> None:
        files = [(one.name, part) for part in self.folders for one in part.files]
        self.by_name = dict(files)
        self.by_stem = {stem_of(name): part for name, part in files}


def _add_folder(
    source: Source, max_bytes: int, advance: Advance, columns: Mapping[str, str]
) -> None:
    found = look_through(source.path, source.left, advance)
    loose = Loose(_folders(source, found, max_bytes))
    for file in found.archives:
        archive = Archive(Path(file.path), f"{file.name}#", max_bytes, source.left, advance)
        archive.split = _split(file.name)
        loose.archives[file.name] = archive
        source.layouts[_archive_kind(archive)] += len(archive)
    tables: list[Part] = []
    for file in found.listings:
        _listed(source, file, loose)
    for file in found.tables:
        tables += _table(source, file, loose, max_bytes, columns)
    source.parts += [*loose.folders, *loose.archives.values(), *tables]
    if loose.missing:
        source.parts.append(Absent(loose.missing))
        source.left.notes.append(
            f"{len(loose.missing):,} pictures are named by a table and not there"
        )


def _folders(source: Source, found: Found, max_bytes: int) -> list[Folder]:
    """The loose pictures: one part, or one for each split."""
    tops = {file.name.split("/")[0] for file in found.pictures if "/" in file.name}
    loose = any("/" not in file.name for file in found.pictures)
    deep = any(file.name.count("/") > 1 for file in found.pictures)
    by_split: dict[str, list[File]] = {}
    splits = {top.lower() for top in tops} <= ALL_SPLITS and deep
    if tops and splits and not loose:
        for file in found.pictures:
            by_split.setdefault(file.name.split("/")[0].lower(), []).append(file)
    elif found.pictures:
        by_split[""] = found.pictures
    source.folders = [] if splits else sorted(found.folders)
    for split, files in by_split.items():
        name = f"files of the split '{split}'" if split else "files of a folder"
        source.layouts[name] += len(files)
    return [
        Folder(source.path, files, found.sidecars, max_bytes, split)
        for split, files in by_split.items()
    ]


def _split(name: str) -> str:
    found = SPLIT.findall(name.lower())
    return found[-1] if found else ""


def _listed(source: Source, file: File, loose: Loose) -> None:
    """Takes note of what Hugging Face's metadata says, and of what it names that is not there."""
    rows, names = listing(Path(file.path))
    folder = posixpath.dirname(file.name)
    there, missing = loose.by_name, 0
    twice, said = 0, 0
    for number, row in enumerate(rows):
        small = {str(name).strip().lower(): value for name, value in row.items()}
        name = small.get(LISTED)
        if not isinstance(name, str):
            continue
        full, facts = posixpath.normpath(posixpath.join(folder, name)), facts_of(row)
        if isinstance(facts.of_class, int) and 0 <= facts.of_class < len(names):
            facts = facts_of({**row, "class": names[facts.of_class]})
        if full not in there:
            detail = f"{file.name} names it, and it is not there"
            place = f"{source.path / file.name}: row {number}"
            loose.missing.append(absent(full, place, detail, facts))
            missing += 1
        elif full in there[full].listed:
            twice += 1
        else:
            there[full].listed[full] = facts
            said += 1
    source.layouts[f"rows of Hugging Face's {file.name.rpartition('/')[2]}"] += len(rows)
    if rest := len(rows) - said - missing - twice:
        source.left.notes.append(f"{file.name}: {rest:,} rows have no '{LISTED}'")
    if twice:
        source.left.notes.append(f"{file.name}: {twice:,} rows name a file again; the first counts")


def _table(
    source: Source, file: File, loose: Loose, max_bytes: int, columns: Mapping[str, str]
) -> list[Part]:
    """A Parquet file in a folder: pictures, img2dataset's list of them, or neither."""
    path = Path(file.path)
    try:
        with open_parquet(path, streamed=True) as opened, one_line(path):
            there = {name.strip().lower() for name in opened.schema_arrow.names}
            holds = columns.get("image") or picture_columns(opened)
        if holds:
            table = Table(path, f"{file.name}#", max_bytes, columns)
            table.split = _split(file.name)
            source.layouts["rows of Parquet tables"] += len(table)
            return [table]
        if there >= IMG2DATASET:
            rows, _ = listing(path)
            source.layouts["rows of img2dataset's tables"] += len(rows)
            _downloaded(source, file, rows, loose)
            return []
    except UserError as error:
        place = f"{source.path / file.name}"
        return [Absent([Entry(file.name, place, outcome=UNREADABLE, detail=str(error))])]
    urls = ": a list of addresses is for the engine urls" if "url" in there else ""
    source.left.notes.append(f"{printable(file.name)} has no column of pictures{urls}")
    source.left.other[".parquet"] += 1
    return []


def _downloaded(
    source: Source, file: File, rows: Sequence[Mapping[str, Any]], loose: Loose
) -> None:
    """Takes note of what img2dataset says about its shard, and of what it does not have."""
    shard = file.name[: -len(".parquet")] if file.name.endswith(".parquet") else file.name
    archive = loose.archives.get(f"{shard}.tar")
    members: set[str] = set() if archive is None else archive.keys()
    in_archive: dict[str, Facts] = {}
    for number, row in enumerate(rows):
        facts, key = facts_of(row), str(row.get("key") or number)
        name = f"{shard}/{key}"
        if name in loose.by_stem:
            loose.by_stem[name].keyed[name] = facts
        elif key in members:
            in_archive[key] = facts
        else:
            status, error = str(row.get("status") or ""), str(row.get("error_message") or "")
            said = [part for part in (status, error) if part and part != DONE]
            detail = ": ".join(["img2dataset", *said]) if said else "listed and not there"
            place = f"{source.path / file.name}: row {number}"
            loose.missing.append(absent(name, place, detail, facts))
    if archive is not None:
        archive.add_facts(in_archive)
