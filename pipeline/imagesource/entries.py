"""Entries of a source: a picture with what is said about it, or why there is none."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from kd3_pipeline.console import printable
from kd3_pipeline.imagesource.kinds import ending

# outcomes of the manifest that only files have
UNSUPPORTED = "unsupported"  # a picture of a format that is not read here
UNREADABLE = "unreadable"  # the system will not let it be read, or an archive is broken
LINK = "link"  # leads out of the folder, to a folder or to nothing, or is one of an archive
SPECIAL = "special"  # a device, a pipe, a socket
MISSING = "missing"  # a table names it, and it is not there
TOO_LARGE = "too_large"  # over crawl.max_bytes

MOST_SIDECAR = 2**20  # bytes of a .json, .txt or .cls beside a picture
SIDECARS = (".json", ".txt", ".cls")
SYSTEM = {  # names that systems leave, in small letters; what begins with a dot is hidden anyway
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"),
    *("system volume information", "lost+found", "__pycache__"),
}
# what a table or a .json calls it -> what is kept; the first that is there counts
SAYS = {
    "of_class": ("class", "class_name", "label", "labels", "category", "cls", "fine_label"),
    "title": ("title", "caption", "text"),
    "url": ("url",),
    "licence": ("licence", "license"),
    "licence_url": ("licence_url", "license_url"),
    "creator": ("creator", "author"),
}
MOST_TOLD = 6  # names in a line


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source says about a picture. All of it is hostile text."""

    of_class: str | int | None = None  # a name, or a number among the names of its part
    title: str = ""
    url: str = ""  # where it came from
    licence: str = ""
    licence_url: str = ""
    creator: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture, or what stands in its place.

    Attributes:
        name: in the source; with `#` for a member of an archive or a row of a table.
        place: the same for a person, with the source.
        data: the encoded picture; empty where there is none.
        outcome: "" for a picture, else one word for why there is none; `detail` says more.
        size: bytes.
        names: what a number in `facts.of_class` counts; empty where nothing says so.
    """

    name: str
    place: str
    data: bytes = b""
    outcome: str = ""
    detail: str = ""
    size: int = 0
    facts: Facts = Facts()
    names: Sequence[str] = ()


class Part(Protocol):
    """A file or folder of pictures whose rows are counted from 0.

    Attributes:
        names: what numbers of its classes count; empty where nothing says so.
        split: the split that it belongs to, by the name of its file or folder; "" for none.
    """

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def split(self) -> str: ...

    def __len__(self) -> int: ...

    def lost(self) -> Set[int]:
        """Rows that are known to give no picture before they are read."""

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows, in order."""

    def classes(self) -> list[str | int | None]:
        """What is said about the class of every row."""


@dataclass
class Left:
    """What a source holds beside its pictures, counted."""

    hidden: Counter[str] = field(default_factory=Counter)  # by name
    other: Counter[str] = field(default_factory=Counter)  # by ending
    beside: Counter[str] = field(default_factory=Counter)  # by ending: said something of a picture
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The counts for a person."""
        lines = list(self.notes)
        if self.beside:
            lines.append(f"read for what they say about their pictures: {counted(self.beside)}")
        if self.other:
            lines.append(f"left out, no pictures by content or name: {counted(self.other)}")
        if self.hidden:
            lines.append(f"left out, hidden or the system's: {counted(self.hidden)}")
        return lines


def counted(counts: Counter[str]) -> str:
    """Names with their counts, the most frequent first, the rest together."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [f"{printable(name)[:60]} {count:,}" for name, count in ranked[:MOST_TOLD]]
    rest = sum(count for _, count in ranked[MOST_TOLD:])
    return ", ".join([*shown, f"others {rest:,}"] if rest else shown)


def kind_counted(name: str) -> str:
    """What a file that is no picture is counted as: its ending."""
    return ending(name) or "no ending"


def hidden_in(parts: Iterable[str]) -> str:
    """The first part of a path that is hidden or the system's, "" if none is."""
    for part in parts:
        if (part.startswith(".") and part not in (".", "..")) or part.lower() in SYSTEM:
            return part
    return ""


def facts_of(values: Mapping[str, Any]) -> Facts:
    """What a row of a table, or the object of a .json, says about a picture."""
    small = {str(name).strip().lower(): value for name, value in values.items()}
    found: dict[str, Any] = {}
    for fact, spellings in SAYS.items():
        for value in (small.get(name) for name in spellings):
            if isinstance(value, str) and value.strip():
                found[fact] = value.strip()
                break
            if fact == "of_class" and isinstance(value, int) and not isinstance(value, bool):
                found[fact] = value
                break
    return Facts(**found)


def sidecar_facts(files: Mapping[str, bytes]) -> Facts:
    """What the files beside a picture say about it, by ending; what cannot be read says nothing."""
    facts = Facts()
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(files.get(".json", b"{}"))
        facts = facts_of(values) if isinstance(values, dict) else facts
    with contextlib.suppress(ValueError):
        of_class = files.get(".cls", b"").decode().strip()
        if re.fullmatch(r"[0-9]{1,9}", of_class):
            facts = replace(facts, of_class=int(of_class))
        elif of_class:
            facts = replace(facts, of_class=of_class)
        title = files.get(".txt", b"").decode().strip()
        facts = replace(facts, title=facts.title or title)
    return facts
