"""Labelled images of files of the user's own. Nothing that trains a student may import this."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from kd3_pipeline.console import Advance, printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.imagesource.archive import Archive
from kd3_pipeline.imagesource.decoding import decoded
from kd3_pipeline.imagesource.entries import LINK, SPECIAL, UNREADABLE, Entry
from kd3_pipeline.imagesource.folder import Folder
from kd3_pipeline.imagesource.matching import composed
from kd3_pipeline.imagesource.source import ALL_SPLITS, SPLITS, Source, open_source
from kd3_pipeline.imagesource.table import Table, columns_told
from kd3_pipeline.labelled.labels import Labels, listing, mapping_of, numbered, renamed
from kd3_pipeline.labelled.matching import matched
from kd3_pipeline.labelled.names import ClassNames, class_names_of
from kd3_pipeline.params import Evaluate, Teacher
from kd3_pipeline.pixelfile import PixelFile
from kd3_pipeline.pixelstore import Pixels

MOST_BYTES = 2**31  # of an image of the user's own
COPY = "a copy without links takes no room: `cp -rlL LINKS COPY`"
MANY = {LINK, SPECIAL, UNREADABLE}  # what may stand for a whole folder or archive of pictures
TOLD = 10  # broken images by name
Split = Literal["train", "test"]


@dataclass(frozen=True)
class LabelledImages:
    """Images with the labels that a person gave them.

    Attributes:
        pixels: uint8 [N, S, S, 3]; an array, or a file that is read by row.
        labels: int64 [N].
        class_names: that the labels count; empty where the source has none.
        notes: how the source was read, and what was left out, for a person.
        rows: of the images in the source, int64 [N]; empty where they are drawn.
        names: of the images in the source, as `rows`.
        left_out: images by reason, `broken`, `unlabelled` or `other_class`.
        total: images of known classes in the source, of which these were drawn; 0 where they are
            made, not drawn from any.
    """

    pixels: Pixels
    labels: np.ndarray
    class_names: list[str]
    notes: tuple[str, ...] = ()
    rows: np.ndarray = field(default_factory=lambda: np.arange(0))
    names: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    total: int = 0

    def drawn_told(self, source: str, key: str) -> list[str]:
        """That some of the source's images are left aside by the parameter `key`, if so."""
        used = len(self.labels) + self.left_out.get("broken", 0)
        if used >= self.total:
            return []
        return [f"{source}: {used:,} of its {self.total:,} images are used ({key})"]


@dataclass(frozen=True)
class Reading:
    """How a source of the user's own is read.

    Attributes:
        section: of params.yaml whose keys these are, for messages.
        columns: of Parquet files by their role.
        broken: the largest share of images that cannot be read.
        class_names: what the labels mean.
        alike_names: whether names may differ in case, spaces, underscores and hyphens.
    """

    section: str = "evaluate"
    columns: Mapping[str, str] = field(default_factory=dict)
    broken: float = 0.0
    class_names: ClassNames = field(default_factory=ClassNames)
    alike_names: bool = False

    @classmethod
    def of(cls, section: Evaluate | Teacher) -> "Reading":
        """As a section of params.yaml says.

        Raises:
            UserError: a file of class names is missing or holds none.
        """
        columns = {str(role): name for role, name in section.columns.items()}
        if isinstance(section, Teacher):
            return cls("teacher", columns, section.broken)
        names = class_names_of(section.class_names, "evaluate.class_names")
        return cls("evaluate", columns, section.broken, names, section.alike_names)


def meant(labels: Labels, reading: Reading) -> Labels:
    given = reading.class_names
    return renamed(labels, given, f"{reading.section}.class_names") if given else labels


class OwnImages:
    """Images of a folder, an archive or a table, in any layout that `open_source` knows."""

    def __init__(
        self,
        path: Path,
        split: Split,
        reading: Reading,
        class_names: Sequence[str],
        advance: Advance,
    ) -> None:
        self._path, self._reading = path, reading
        self._source = open_source(path, MOST_BYTES, advance=advance, columns=reading.columns)
        rows, notes = _rows_of_split(self._source, split)
        self._notes = [
            *self._source.lines(f"{reading.section}.columns"),
            *notes,
            *self._columns_told(),
        ]
        self._left: Counter[str] = Counter()
        if not rows:
            raise self._empty()
        # whatever is drawn: a class folder that cannot be entered is such a row
        for entry in self._source.read(sorted(self._source.lost().intersection(rows))):
            if entry.outcome in MANY:
                raise _no_image(entry)
        labels = self._labels(rows)
        if class_names:
            labels = matched(
                labels,
                class_names,
                str(path),
                reading.section,
                reading.alike_names,
                self._elsewhere(class_names),
            )
        self.names = labels.names
        self._notes += labels.notes
        known = labels.labels >= 0
        self._left["other_class"] = int((~known).sum()) - self._left["unlabelled"]
        self._rows = np.array(rows)[known]
        self._numbers = labels.labels[known]

    def read(self, frame: Frame, images: int, seed: int, advance: Advance) -> LabelledImages:
        """The images that are drawn, decoded in threads into a file.

        Raises:
            UserError: too many of them are broken.
        """
        chosen = sample(len(self._rows), images, seed)
        pixels, names, broken = PixelFile(frame.side), list[str](), list[str]()
        whole = np.ones(len(chosen), bool)
        entries = self._source.read(self._rows[chosen].tolist())
        for at, (entry, image) in enumerate(decoded(entries, frame)):
            advance(1)
            if isinstance(image, str):
                whole[at] = False
                broken.append(f"{printable(entry.place)}: not a whole image: {image}")
                self._check_broken(broken, len(chosen))
            else:
                pixels.append(image)
                names.append(entry.name)
        notes = list(self._notes)
        if broken:
            notes.append(
                f"{self._path}: {len(broken):,} of {len(chosen):,} images cannot be read, and are"
                f" left out: {_first(broken)}"
            )
            self._left["broken"] = len(broken)
        left = {reason: count for reason, count in self._left.items() if count}
        if not names:
            raise UserError(f"{self._path}: none of its images can be read: {_first(broken)}")
        labels, rows = self._numbers[chosen][whole], self._rows[chosen][whole]
        total = len(self._rows)
        return LabelledImages(pixels, labels, self.names, tuple(notes), rows, names, left, total)

    def _check_broken(self, broken: Sequence[str], total: int) -> None:
        share = self._reading.broken
        if len(broken) / total <= share:  # a product may be under the number that is meant
            return
        # all that lie before the limit, for whoever mends them
        if not share:
            raise UserError(broken[0], f"mend it, or set {self._reading.section}.broken higher")
        raise UserError(
            f"{self._path}: more than {100 * share:.6g}% of {total:,} images cannot be read:"
            f" {_first(broken)}",
            f"mend them, or set {self._reading.section}.broken higher",
        )

    def _labels(self, rows: Sequence[int]) -> Labels:
        """What the source says of these rows by numbers; those without a label are told."""
        source = self._source
        said = [value for part in source.parts for value in part.classes()]
        own = self._own_names()
        spoken = any(isinstance(part, Table) and part.class_column for part in source.parts)
        if not spoken and all(said[row] is None for row in rows):
            raise self._no_labels()
        # what lies outside of all class folders lacks its label as any other
        folders = source.folders if source.only_folders else []

        def place(at: int) -> str:
            return next(entry.place for entry in source.read([rows[at]]))

        labels = numbered([said[row] for row in rows], own, folders, place)
        bare = np.flatnonzero(labels.labels < 0)
        if len(bare) == len(rows):
            raise UserError(
                f"{self._path}: none of its {len(rows):,} images has a label (-1 or nothing is in"
                " their place)",
                "a test split is often published so: take the one for validation",
            )
        self._left["unlabelled"] = len(bare)
        if len(bare):
            shown = [place(at) for at in bare[:3].tolist()]
            what = "lie in no class folder" if source.only_folders else "have no label"
            labels.notes.append(
                f"{self._path}: {len(bare):,} images {what}: left out"
                f" ({printable(', '.join(shown))}{', …' if len(bare) > len(shown) else ''})"
            )
        return meant(labels, self._reading)

    def _own_names(self) -> list[str]:
        own = {tuple(part.names) for part in self._source.parts if part.names}
        if len(own) > 1:
            first, second = sorted(own)[:2]
            raise UserError(
                f"{self._path}: its files name other classes: {listing(first)}; {listing(second)}"
            )
        return list(own.pop()) if own else []

    def _columns_told(self) -> Iterator[str]:
        """What a choice between columns was made of."""
        for part in self._source.parts:
            if isinstance(part, Table) and part.others:
                yield (
                    f"{part.path}: labels are those of its column '{part.class_column}';"
                    f" {self._reading.section}.columns can name another:"
                    f" {listing(part.others)}"
                )

    def _no_labels(self) -> UserError:
        path = self._path
        for part in self._source.parts:
            if isinstance(part, Table):
                told, likely = columns_told(part.path, "label")
                likely = [name for name in likely if name != part.column]
                wanted = mapping_of({"label": likely[0]}) if likely else ""
                return UserError(
                    f"{part.path} has no column 'label': {told}",
                    f"set {self._reading.section}.columns to {wanted}"
                    + (f", or one of {listing(likely[1:])}" if likely[1:] else "")
                    if likely
                    else "",
                )
        where = "class folders with images" if path.is_dir() else "labels beside its images"
        count = f"its {len(self._source):,} images lie in none" if path.is_dir() else ""
        hint = "expected FOLDER/CLASS/*, or another layout of docs/files.md"
        return UserError(f"{path} has no {where}{': ' * bool(count)}{count}", hint)

    def _empty(self) -> UserError:
        path, lines = self._path, self._source.left.lines()
        what = "no rows" if path.is_file() else "no class folders with images"
        told = f" ({'; '.join(lines)})" if lines else ""
        packed = any(name in line for line in lines for name in (".zip", ".rar", ".7z"))
        return UserError(
            f"{path} has {what}{told}", "unpack what is packed in it" if packed else ""
        )

    def _elsewhere(self, class_names: Sequence[str]) -> str:
        """Where the teacher's classes may be instead, one folder deeper; "" if nowhere."""
        deeper: dict[str, set[str]] = {}
        for part in self._source.parts:
            if isinstance(part, Folder | Archive):
                for name in part.files_named():
                    first, *rest = name.split("/")
                    if len(rest) > 1:
                        deeper.setdefault(first, set()).add(rest[0])
        wanted = set(map(composed, class_names))
        found = [
            first
            for first, inside in sorted(deeper.items())
            if not wanted.isdisjoint(map(composed, inside))
        ]
        if not found:
            return ""
        if self._path.is_file():
            return (
                f"the classes are one folder deeper, in {listing(found)}: unpack it and name that"
            )
        if any(first.lower() in ALL_SPLITS for first in found) or len(found) == 1:
            meant = next((one for one in found if one.lower() in SPLITS["test"]), found[0])
            return f"the classes are in {self._path / meant}: name that folder"
        return (
            f"the classes are in each of {listing(found)}: name one of these folders, or give all"
            " as evaluate.styles"
        )


def _no_image(entry: Entry) -> UserError:
    text = f"{entry.place}: not a whole image: {entry.outcome}: {entry.detail}"
    return UserError(text, COPY if entry.outcome == LINK else "")


def _first(lines: Sequence[str]) -> str:
    rest = len(lines) - TOLD
    return "; ".join(lines[:TOLD]) + (f"; and {rest:,} more" if rest > 0 else "")


def sample(total: int, images: int, seed: int) -> np.ndarray:
    """Rows to take, in order: int64."""
    if not images or images >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, images, replace=False))


def _rows_of_split(source: Source, split: Split) -> tuple[list[int], list[str]]:
    """Rows of the split that is asked for, where there are splits; and what is to be told."""
    there = [name for name in source.splits() if name]
    meant = ""
    if there:
        meant = next((name for name in SPLITS[split] if name in there), "")
        if not meant:
            raise UserError(
                f"{source.path} has the splits {listing(there)}, and none is for '{split}'",
                "name the folder or the file that is meant",
            )
    rows, start = list[int](), 0
    for part in source.parts:
        if not there or part.split in (meant, ""):
            rows += range(start, start + len(part))
        start += len(part)
    told = f"{source.path}: the split '{meant}' of {listing(there)}"
    return rows, [told] if meant else []
