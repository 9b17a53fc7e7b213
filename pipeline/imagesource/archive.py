"""Archives of pictures: plain tars, and WebDataset's with what is said beside each picture.

Nothing is unpacked to the disk. Names are read and never opened.
"""

import tarfile
import zlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.formats import HEAD
from kd3_pipeline.imagesource.entries import (
    LINK,
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
from kd3_pipeline.imagesource.kinds import is_picture

BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, LZMAError, ValueError)
MOST_NAMES = 2**20  # bytes of a header that gives the next member its name and the like
NAMES_FOLLOW = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}
LOOKED_AT = 1000  # members between two signs of life


class BoundedInfo(tarfile.TarInfo):
    """A header of an archive; one that would fill the memory with names is an error."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in NAMES_FOLLOW and self.size > MOST_NAMES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Member:
    """A member that is a picture, or would be one."""

    info: tarfile.TarInfo
    outcome: str = ""
    detail: str = ""


class Archive:
    """The pictures of one archive in its order.

    Attributes:
        broken: why it cannot be read to its end, "" if it can.
        webdataset: True if a picture has a file of its key beside it.
    """

    names: Sequence[str] = ()

    def __init__(
        self,
        path: Path,
        prefix: str,
        max_bytes: int,
        left: Left,
        advance: Advance = no_progress,
    ) -> None:
        self.path, self.prefix, self.split, self.broken = path, prefix, "", ""
        self._most, self._left = max_bytes, left
        self._members: list[Member] = []
        self._sidecars: dict[str, dict[str, bytes]] = {}
        try:
            with tarfile.open(path, tarinfo=BoundedInfo) as archive:
                for number, info in enumerate(archive, 1):
                    self._note(archive, info)
                    if not number % LOOKED_AT:
                        advance(0, f"{path.name}: {number:,} members")
        except BROKEN as error:
            self.broken = " ".join(str(error).split()) or type(error).__name__
        self._settle()

    def _note(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        if info.isdir():
            return
        if hidden := hidden_in(info.name.split("/")):
            self._left.hidden[hidden] += 1
        elif info.isfile():
            self._note_file(archive, info)
        elif is_picture(info.name, b""):
            link = info.issym() or info.islnk()
            detail = "a link in an archive" if link else "a device or pipe in an archive"
            self._members.append(Member(info, LINK if link else SPECIAL, detail))
        else:
            self._left.other[kind_counted(info.name)] += 1

    def _note_file(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        file = archive.extractfile(info)
        head = file.read(HEAD) if file else b""
        key, end = _key(info.name)
        if is_picture(info.name, head):
            large = f"more than {self._most} bytes" if info.size > self._most else ""
            self._members.append(Member(info, TOO_LARGE if large else "", large))
        elif end in SIDECARS and info.size <= MOST_SIDECAR:
            rest = file.read(min(MOST_SIDECAR, info.size)) if file else b""
            self._sidecars.setdefault(key, {})[end] = head + rest
        else:
            self._left.other[kind_counted(info.name)] += 1

    def _settle(self) -> None:
        """Turns what lies beside pictures into facts, and counts it."""
        keys = {_key(member.info.name)[0] for member in self._members}
        self._facts = {
            key: sidecar_facts(files) for key, files in self._sidecars.items() if key in keys
        }
        for key, files in self._sidecars.items():
            (self._left.beside if key in keys else self._left.other).update(files.keys())
        self.webdataset = bool(self._facts)
        self._sidecars.clear()

    def __len__(self) -> int:
        return len(self._members) + bool(self.broken)

    def files_named(self) -> list[str]:
        """Names of all pictures."""
        return [member.info.name.removeprefix("./") for member in self._members]

    def lost(self) -> Set[int]:
        """Rows that are known to give no picture; the last one is the archive that breaks off."""
        rows = {row for row, member in enumerate(self._members) if member.outcome}
        return rows | ({len(self._members)} if self.broken else set())

    def keys(self) -> set[str]:
        """The names of pictures up to their first dot, without folders: WebDataset's keys."""
        return {_key(member.info.name)[0].rpartition("/")[2] for member in self._members}

    def add_facts(self, facts: dict[str, Facts]) -> None:
        """What a table says about the keys of this archive."""
        self._facts = facts | self._facts

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows, in order."""
        end = len(self._members)
        if there := [row for row in rows if row < end]:
            with tarfile.open(self.path, tarinfo=BoundedInfo) as archive:
                for row in there:
                    yield self._entry(archive, self._members[row])
        if end in rows[len(there) :]:
            name = self.prefix.removesuffix("#") or self.path.name
            detail = f"breaks off: {self.broken}"
            yield Entry(name, str(self.path), outcome=UNREADABLE, detail=detail)

    def _entry(self, archive: tarfile.TarFile, member: Member) -> Entry:
        info, data = member.info, b""
        outcome, detail = member.outcome, member.detail
        if not outcome:
            try:
                file = archive.extractfile(info)
                data = file.read(min(self._most, info.size)) if file else b""
            except BROKEN as error:
                outcome, detail = UNREADABLE, str(error)
        return Entry(
            self.prefix + info.name,
            f"{self.path}: {info.name}",
            data,
            outcome,
            detail,
            info.size,
            self._said(info.name),
        )

    def _said(self, name: str) -> Facts:
        key = _key(name)[0]
        facts = self._facts.get(key) or self._facts.get(key.rpartition("/")[2])
        if facts is not None:
            return facts
        folders = [part for part in name.split("/")[:-1] if part not in ("", ".")]
        return Facts(of_class=folders[0]) if folders else Facts()

    def classes(self) -> list[str | int | None]:
        """What is said about the class of every row."""
        found = [self._said(member.info.name).of_class for member in self._members]
        return [*found, None] if self.broken else found


def _key(name: str) -> tuple[str, str]:
    """WebDataset's key of a name, up to the first dot of its last part, and the ending behind."""
    folder, slash, last = name.rpartition("/")
    stem, _, rest = last.partition(".")
    return folder + slash + stem, f".{rest.lower()}"
