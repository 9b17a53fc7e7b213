"""Labelled images, and the one place that reads them.

A demo teacher is trained on them and a student tested; `dedup` looks at their pixels alone,
`export` at what a student of 8 bits loses. Nothing that trains a student may import this:
distillation must not see a label.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.console import Advance, no_progress
from pipeline.errors import ExternalError, UserError
from pipeline.images import Frame, ImageError, decode
from pipeline.imagesource.entries import LINK, Entry
from pipeline.imagesource.matching import folded
from pipeline.imagesource.source import SPLITS, Source, open_source

DOWNLOADS = Path("data/torchvision")
MOST_BYTES = 2**31  # of an image of the user's own
COPY = "a copy without links takes no room: `cp -rlL LINKS COPY`"
Split = Literal["train", "test"]


@dataclass(frozen=True)
class LabelledImages:
    """Pixels uint8 [N, S, S, 3], labels int64 [N], and the names that the labels count."""

    pixels: np.ndarray
    labels: np.ndarray
    class_names: list[str]  # empty where the source has none
    notes: tuple[str, ...] = ()  # how the source was read, and what was left out, for a person


def load_labelled(
    source: str,
    split: Split,
    frame: Frame,
    images: int,
    seed: int,
    advance: Advance = no_progress,
) -> LabelledImages:
    """Labelled images from `source`, as a network of that `frame` sees them.

    Args:
        source: `demo`, `cifar10`, `cifar100`, a .parquet file, a tar, a folder of class folders,
            or of another layout that docs/files.md has.
        images: how many to take, drawn by `seed`; 0 takes all.
        advance: called for each image that is decoded or drawn.

    Raises:
        UserError: no such source, or an image or label in it is broken (it is named).
        ExternalError: a public data set that cannot be downloaded.
    """
    if source == "demo":
        from pipeline.demo.domains import original_images
        from pipeline.demo.shapes import CLASS_NAMES

        drawn = frame.resize or frame.side
        pixels, labels = original_images(split, images or 10_000, drawn, seed, advance)
        inside = slice((drawn - frame.side) // 2, (drawn + frame.side) // 2)
        return LabelledImages(pixels[:, inside, inside], labels, list(CLASS_NAMES))
    if source in ("cifar10", "cifar100"):
        return _torchvision(source, split, frame, images, seed)
    path = Path(source)
    if not path.exists() and path.suffix != ".parquet":
        raise UserError(f"no labelled images at {source}: expected a folder, .tar or .parquet")
    return _own(path, split, frame, images, seed, advance)


def match_labels(images: LabelledImages, class_names: Sequence[str], source: str) -> np.ndarray:
    """The labels as indices of the teacher's `class_names`, whose order may be another.

    Raises:
        UserError: the names are not the same (both lists are shown), or do not tell classes apart.
    """
    if not images.class_names:
        if images.labels.max(initial=-1) >= len(class_names):
            raise UserError(
                f"{source} has label {images.labels.max()}, but the teacher has"
                f" {len(class_names)} classes: {_list(class_names)}"
            )
        return images.labels
    place = places(images, class_names, source)
    if sorted(place.tolist()) != list(range(len(class_names))):
        raise UserError(
            f"the classes of {source} ({_list(images.class_names)}) are not the teacher's"
            f" ({_list(class_names)})",
            "set teacher.class_names in the order of the teacher's outputs",
        )
    return place[images.labels]


def places(images: LabelledImages, class_names: Sequence[str], source: str) -> np.ndarray:
    """The index in `class_names` of each class of the images, -1 for what is not among them: int64.

    Classes in one order are matched by number, others by name, or by names that differ in case,
    spaces, underscores and hyphens alone.

    Raises:
        UserError: a name that is needed is that of two classes.
    """
    theirs, wanted = images.class_names, list(class_names)
    if theirs == wanted:
        return np.arange(len(wanted))
    used = {theirs[label] for label in np.unique(images.labels).tolist()}
    twice = {name for name in used if max(wanted.count(name), theirs.count(name)) > 1}
    if twice := twice & set(wanted):
        raise UserError(
            f"'{min(twice)}' is the name of two classes, and the classes of {source}"
            f" ({_list(theirs)}) are not in the teacher's order ({_list(wanted)})",
            "give the two names that differ, or bring both lists into one order",
        )
    found, alike = (
        _indices(theirs, wanted),
        _indices([*map(folded, theirs)], [*map(folded, wanted)]),
    )
    return np.where(found < 0, alike, found)


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, with the number of its class behind each that two classes have.

    ImageNet has two cranes and two maillots.
    """
    counts = Counter(names)
    return [
        f"{name} (class {label})" if counts[name] > 1 else name for label, name in enumerate(names)
    ]


def _indices(theirs: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """The index in `wanted` of each name that is in both lists once, else -1."""
    own, ours = Counter(theirs), Counter(wanted)
    index = {name: label for label, name in enumerate(wanted) if ours[name] == 1}
    return np.array([index.get(name, -1) if own[name] == 1 else -1 for name in theirs], np.int64)


def _sample(total: int, images: int, seed: int) -> np.ndarray:
    """Rows to take, in order: int64."""
    if not images or images >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, images, replace=False))


def _pixels(data: bytes, frame: Frame, place: str) -> np.ndarray:
    try:
        return frame.of(decode(data))
    except ImageError as error:
        raise UserError(f"{place}: not a whole image: {error}") from None


def _own(
    path: Path, split: Split, frame: Frame, images: int, seed: int, advance: Advance
) -> LabelledImages:
    """Images of a folder, an archive or a table, in any layout that `open_source` knows."""
    source = open_source(path, MOST_BYTES, advance=advance)
    rows, notes = _rows_of_split(source, split)
    notes = [*source.lines(), *notes]
    said = [value for part in source.parts for value in part.classes()]
    if not rows:
        raise UserError(
            f"{path} has no rows" if path.is_file() else f"{path} has no class folders with images"
        )
    # whatever is drawn: a class folder that cannot be entered is such a row
    for entry in source.read(sorted(source.lost().intersection(rows))[:1]):
        raise _no_image(entry)
    names = _names(source, [said[row] for row in rows])
    if source.only_folders:
        outside = {row for row in rows if said[row] is None}
        if outside:
            notes.append(f"{path}: {len(outside):,} images lie in no class folder: left out")
            rows = [row for row in rows if row not in outside]
    chosen = [rows[index] for index in _sample(len(rows), images, seed)]
    number = {name: label for label, name in enumerate(names)}
    pixels, labels = [], []
    for entry in source.read(chosen):
        if entry.outcome:
            raise _no_image(entry)
        of_class = entry.facts.of_class
        if isinstance(of_class, str) and not entry.names and of_class in number:
            of_class = number[of_class]
        labels.append(_label(of_class, names, entry.place))
        pixels.append(_pixels(entry.data, frame, entry.place))
        advance(1)
    return LabelledImages(np.stack(pixels), np.array(labels, np.int64), names, tuple(notes))


def _no_image(entry: Entry) -> UserError:
    text = f"{entry.place}: not a whole image: {entry.outcome}: {entry.detail}"
    return UserError(text, COPY if entry.outcome == LINK else "")


def _rows_of_split(source: Source, split: Split) -> tuple[list[int], list[str]]:
    """Rows of the split that is asked for, where there are splits; and what is to be told."""
    there = [name for name in source.splits() if name]
    meant = ""
    if there:
        meant = next((name for name in SPLITS[split] if name in there), "")
        if not meant:
            raise UserError(
                f"{source.path} has the splits {_list(there)}, and none is for '{split}'",
                "name the folder or the file that is meant",
            )
    rows, start = list[int](), 0
    for part in source.parts:
        if not there or part.split in (meant, ""):
            rows += range(start, start + len(part))
        start += len(part)
    return rows, [f"{source.path}: the split '{meant}' of {_list(there)}"] if meant else []


def _names(source: Source, said: Sequence[object]) -> list[str]:
    """Names that the labels count: the source's own, its class folders or words, or none."""
    own = {tuple(part.names) for part in source.parts if part.names}
    if len(own) > 1:
        first, second = sorted(own)[:2]
        raise UserError(
            f"{source.path}: its files name other classes: {_list(first)}; {_list(second)}"
        )
    if own:
        return list(own.pop())
    words = {value for value in said if isinstance(value, str)}
    if all(value is None for value in said):
        what = "column 'label'" if source.path.is_file() else "class folders with images"
        raise UserError(f"{source.path} has no {what}")
    if not words:
        return []
    names = sorted(words | set(source.folders if source.only_folders else []))
    by_form: dict[str, str] = {}
    for name in names:
        other = by_form.setdefault(folded(name), name)
        if other != name:
            raise UserError(
                f"{source.path}: '{other}' and '{name}' are two spellings of one class",
                "bring their images together under one name",
            )
    return names


def _label(value: object, names: Sequence[str], place: str) -> int:
    if not isinstance(value, int) or value < 0 or (names and value >= len(names)):
        classes = f"{len(names)} classes" if names else "a class number"
        raise UserError(f"{place}: label {value!r} is not one of {classes}")
    return value


def _torchvision(source: str, split: Split, frame: Frame, images: int, seed: int) -> LabelledImages:
    from PIL import Image
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[source]
    try:
        data = kind(DOWNLOADS, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise ExternalError(
            f"{source} cannot be downloaded to {DOWNLOADS}: {error}",
            "put it there by hand, or name a .parquet file",
        ) from None
    chosen = _sample(len(data), images, seed)
    pixels = data.data[chosen]
    if frame != Frame(pixels.shape[1], frame.fit):
        pixels = np.stack([frame.of(Image.fromarray(image)) for image in pixels])
    return LabelledImages(pixels, np.array(data.targets, np.int64)[chosen], list(data.classes))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f", … {len(names)} in all" if len(names) > 12 else "")
