"""Labels as sources have them: numbers or words, what stands for none, and other names for them."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.imagesource.matching import composed
from kd3_pipeline.labelled.names import ClassNames

NONE = -1  # what many data sets write where there is no label, and so do we
DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Labels:
    """Labels int64 [N], -1 where an image has none, and the names that they count, if any."""

    labels: np.ndarray
    names: list[str]
    notes: list[str] = field(default_factory=list)


def numbered(
    values: Sequence[object],
    own: Sequence[str],
    folders: Sequence[str],
    place: Callable[[int], str],
) -> Labels:
    """What a source says about the class of each of its images, as numbers.

    Names that differ in how their accents are encoded alone are one.

    Args:
        own: the source's names for numbers; empty where it has none.
        folders: of classes, of which some may have no image.
        place: where a value is, for messages.

    Raises:
        UserError: a value is no label (its place is told), or words and numbers are mixed.
    """
    cleaned, remarks = [], Counter[str]()
    for row, value in enumerate(values):
        try:
            cleaned.append(_cleaned(value, remarks))
        except ValueError as error:
            raise UserError(f"{place(row)}: label {error}") from None
    words = {value for value in cleaned if isinstance(value, str)}
    numbers = [value for value in cleaned if isinstance(value, int)]
    names = [*map(composed, own)]
    if not own and words and numbers:
        raise UserError(
            f"{place(cleaned.index(min(words)))}: label {min(words)!r} is a word, and others are"
            " numbers"
        )
    if not own and (words or not numbers):
        names = sorted(words | set(map(composed, folders)))
    by_name = {name: number for number, name in enumerate(names)}
    labels = np.empty(len(cleaned), np.int64)
    for row, value in enumerate(cleaned):
        number = by_name.get(value) if isinstance(value, str) else value
        if value is None:
            number = NONE
        elif number is None or (names and number >= len(names)):
            raise UserError(f"{place(row)}: label {value!r} is not one of {len(names)} classes")
        labels[row] = number
    return Labels(labels, names, [f"{count:,} labels {what}" for what, count in remarks.items()])


def _cleaned(value: object, remarks: Counter[str]) -> int | str | None:
    """A label as a number or a word, None for none; `remarks` counts what was made of it."""
    if isinstance(value, bool):
        remarks["are true or false: taken as 1 and 0"] += 1
        return int(value)
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        if value != value // 1:
            raise ValueError(f"{value} is no whole number")
        remarks["are numbers with a point, all of them whole: taken as whole numbers"] += 1
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8")  # what is none is a ValueError
    if isinstance(value, str):
        return composed(value) if value.strip() else None
    if isinstance(value, int):
        if value < NONE:
            raise ValueError(f"{value} is not one of its classes")
        return None if value == NONE else value
    if value is None:
        return None
    shown = printable(repr(value))[:60]
    kind = "a list" if isinstance(value, list) else "neither a number nor a word"
    raise ValueError(f"{shown} is {kind}: one number or name an image is expected")


def renamed(found: Labels, given: ClassNames, key: str) -> Labels:
    """The labels by the names that a parameter gives them.

    Raises:
        UserError: they do not fit the labels.
    """
    names, listed = [*map(composed, found.names)], [*map(composed, given.listed)]
    others = {composed(name): composed(meant) for name, meant in given.renamed.items()}
    highest = int(found.labels.max(initial=NONE))
    if not names:
        listed = listed or [others.get(str(number), "") for number in range(highest + 1)]
        for number in np.unique(found.labels[found.labels >= 0]).tolist():
            if number >= len(listed) or not listed[number]:
                raise UserError(f"{key} has no name for the label {number}")
        meant = list(listed)
    elif listed and all(DIGITS.fullmatch(name) for name in names):
        beyond = [name for name in names if int(name) >= len(listed)]
        if beyond:
            raise UserError(f"{key} has {len(listed)} names, and none for the class '{beyond[0]}'")
        meant = [listed[int(name)] for name in names]
    else:
        meant = [others.get(name, name) for name in names]
        if listed and not set(meant) & set(listed):
            raise UserError(
                f"{key} lists names by number, and the classes have names: {listing(names)}",
                "make it a mapping from each of these to its name",
            )
    if given.listed or len(set(names)) < len(names):
        # a list that has a name twice means two classes, which their order tells apart
        return Labels(found.labels, meant, found.notes)
    # several classes that a mapping gives one name come together
    own = list(dict.fromkeys(meant))
    place = np.array([*(own.index(name) for name in meant), NONE], np.int64)
    return Labels(place[found.labels], own, found.notes)


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, with the number of its class behind each that two classes have.

    ImageNet has two cranes and two maillots.
    """
    counts = Counter(names)
    return [
        f"{name} (class {label})" if counts[name] > 1 else name for label, name in enumerate(names)
    ]


def listing(names: Sequence[str]) -> str:
    """Some names for a message, and how many there are in all."""
    shown = ", ".join(printable(name)[:60] for name in names[:12])
    return shown + (f", … {len(names)} in all" if len(names) > 12 else "")


def mapping_of(values: Mapping[str, Any]) -> str:
    """A mapping as it is written in params.yaml."""
    return f"{{{', '.join(f'{name}: {value}' for name, value in values.items())}}}"
