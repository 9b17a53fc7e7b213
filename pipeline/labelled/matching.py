"""Classes of a test set beside the teacher's.

Nothing is guessed: what could be meant is offered in an error, and what was decided is told.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.imagesource.entries import counted
from kd3_pipeline.imagesource.matching import composed, folded
from kd3_pipeline.labelled.labels import DIGITS, NONE, Labels, listing
from kd3_pipeline.labelled.names import unnamed


class NothingKnown(UserError):
    """No class of so many `images` is the teacher's."""

    def __init__(self, images: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.images = images


def matched(
    found: Labels, class_names: Sequence[str], source: str, key: str, alike: bool, within: str = ""
) -> Labels:
    """The labels as numbers of the teacher's `class_names`, whose order may be another.

    Classes in one order are matched by number, so two of one name stay two, others by name, however
    its accents are encoded. Images of classes that the teacher does not have get -1 and are told.

    Args:
        key: of the section that has `class_names` and `alike_names`, for messages.
        alike: whether names may differ in case, spaces, underscores and hyphens.
        within: where else the classes may be, for the error where none is known.

    Raises:
        UserError: no class is the teacher's, a name may be meant and is not written so, or one that
            is needed is that of two classes.
    """
    given, notes = list(class_names), list(found.notes)
    if not found.names:
        return Labels(_by_number(found, given, source, key, notes), given, notes)
    theirs, wanted = [*map(composed, found.names)], [*map(composed, given)]
    check_spellings(theirs, source, wanted)
    counts = Counter(found.labels[found.labels >= 0].tolist())
    place = places(theirs, set(counts), wanted, source)
    if alike:
        place = np.where(place < 0, _alike(theirs, wanted, place), place)
        told = [
            f"'{theirs[at]}' as '{wanted[of]}'"
            for at, of in enumerate(place.tolist())
            if of >= 0 and theirs[at] != wanted[of]
        ]
        if told:
            notes.append(f"{source}: taken by {key}.alike_names: {listing(told)}")
    elif (offered := _alike(theirs, wanted, place)).max(initial=NONE) >= 0:
        pairs = [(theirs[at], wanted[of]) for at, of in enumerate(offered.tolist()) if of >= 0]
        raise _offer(pairs, source, key)
    if not any(place[label] >= 0 for label in counts):
        raise _nothing_known(theirs, wanted, source, key, within, sum(counts.values()))
    unknown = Counter({theirs[at]: n for at, n in counts.items() if place[at] < 0})
    if unknown:
        notes.append(
            f"{source}: {unknown.total():,} images are of classes that the teacher does not know,"
            f" and left out: {counted(unknown)}"
        )
    return Labels(np.append(place, NONE)[found.labels], given, notes)


def _by_number(
    found: Labels, wanted: Sequence[str], source: str, key: str, notes: list[str]
) -> np.ndarray:
    there = found.labels[found.labels >= 0]
    if there.max(initial=NONE) >= len(wanted):
        from_one = there.min() == 1 and there.max() == len(wanted)
        raise UserError(
            f"{source} has label {there.max()}, but the teacher has {len(wanted)} classes, from 0:"
            f" {listing(wanted)}",
            "its labels may be counted from 1: write them from 0"
            if from_one
            else f"set {key}.class_names to the names of its labels, in order",
        )
    shown = [f"{label} is {wanted[label]}" for label in range(len(wanted))]
    notes.append(
        f"{source}: its labels are numbers without names, taken for the teacher's outputs in their"
        f" order: {listing(shown)}"
    )
    return found.labels


def places(theirs: Sequence[str], used: set[int], wanted: Sequence[str], source: str) -> np.ndarray:
    """The index in `wanted` of each class of a source, -1 for what is not among them: int64.

    Args:
        used: those of the source's classes that have images.

    Raises:
        UserError: a name that is needed is that of two classes.
    """
    if list(theirs) == list(wanted):
        return np.arange(len(wanted))
    names = {theirs[label] for label in used}
    own, ours = Counter(theirs), Counter(wanted)
    twice = {name for name in names if max(own[name], ours[name]) > 1} & set(wanted)
    if twice:
        raise UserError(
            f"'{min(twice)}' is the name of two classes, and the classes of {source}"
            f" ({listing(theirs)}) are not in the teacher's order ({listing(wanted)})",
            "give the two names that differ, or bring both lists into one order",
        )
    return _indices(theirs, wanted)


def _alike(theirs: Sequence[str], wanted: Sequence[str], place: np.ndarray) -> np.ndarray:
    """The index of the only name like each that is not matched, among those that nobody has."""
    free = [name if at not in place else "" for at, name in enumerate(wanted)]
    open_ = [name if place[at] < 0 else "" for at, name in enumerate(theirs)]
    return _indices([*map(folded, open_)], [*map(folded, free)])


def _indices(theirs: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """The index in `wanted` of each name that is in both lists once, else -1."""
    own, ours = Counter(theirs), Counter(wanted)
    index = {name: at for at, name in enumerate(wanted) if name and ours[name] == 1}
    return np.array(
        [index.get(name, NONE) if own[name] == 1 else NONE for name in theirs], np.int64
    )


def _offer(pairs: Sequence[tuple[str, str]], source: str, key: str) -> UserError:
    shown = [f"'{theirs}' may be '{ours}'" for theirs, ours in pairs]
    mapping = ", ".join(f"{_quoted(theirs)}: {_quoted(ours)}" for theirs, ours in pairs[:3])
    more = ", …" if len(pairs) > 3 else ""
    return UserError(
        f"{source}: a class name is not as the teacher has it: {listing(shown)}",
        f"if so, rename it, or set {key}.class_names: {{{mapping}{more}}}, or {key}.alike_names:"
        " true",
    )


def _nothing_known(
    theirs: Sequence[str], wanted: Sequence[str], source: str, key: str, within: str, images: int
) -> NothingKnown:
    hint = f"set {key}.class_names: {{{_quoted(theirs[0])}: {_quoted(wanted[0])}, …}}"
    if within:
        hint = within
    elif theirs and all(DIGITS.fullmatch(name) for name in theirs):
        hint = (
            f"if they number the teacher's outputs, set {key}.class_names to the names of 0, 1, …,"
            f" as [{', '.join(map(_quoted, wanted[:3]))}{', …' if len(wanted) > 3 else ''}]"
        )
    elif unnamed(wanted):
        hint = "set teacher.class_names in the order of the teacher's outputs"
    elif source == "demo":
        own = {"evaluate": "evaluate.test_set", "teacher": "teacher.data"}[key]
        hint = f"these are the demo's drawings: set {own} to images of the teacher's classes"
    return NothingKnown(
        images,
        f"none of the classes of {source} ({listing(theirs)}) is one of the teacher's"
        f" ({listing(wanted)})",
        hint,
    )


def check_spellings(names: Sequence[str], source: str, wanted: Sequence[str] = ()) -> None:
    """Raises a UserError where two classes differ in case and what stands for a space alone.

    Where the teacher has both, they are two.
    """
    by_form: dict[str, str] = {}
    for name in names:
        other = by_form.setdefault(folded(name), name)
        if other != name and not {other, name} <= set(wanted):
            raise UserError(
                f"{source}: '{other}' and '{name}' are two spellings of one class",
                "bring their images together under one name",
            )


def _quoted(name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][\w -]*\w|[A-Za-z]", name)
    return name if plain else f'"{printable(name)}"'
