"""Accuracies under corruption: the rows of corruptions.csv, and their means by kind."""

import math
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from kd3_pipeline.metrics import Fraction, Group, Values
from kd3_pipeline.report.inputs import malformed, read_csv


class Corruption(Values):
    """Accuracies under one corruption at one severity."""

    corruption: str
    severity: Annotated[int, Field(ge=1, le=5)]
    teacher: Fraction
    student: Fraction


def read_corruptions(path: Path) -> tuple[Corruption, ...]:
    """Rows of `corruptions.csv`, one a kind and severity; none where nothing was corrupted.

    Raises:
        UserError: missing, malformed, or with a value that cannot be.
    """
    names = tuple(Corruption.model_fields)
    header, rows = read_csv(path, "evaluate", names)
    found = []
    for number, row in enumerate(rows, start=2):
        cells = dict(zip(header, row, strict=True))
        try:
            found.append(Corruption.model_validate_strings(cells))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            said = f"row {number}: {first['loc'][0]}: {first['msg']}"
            raise malformed(path, said, "evaluate") from None
    return tuple(found)


def by_kind(corruptions: tuple[Corruption, ...]) -> tuple[Group, ...]:
    """Mean accuracies of each kind over its severities; `images` counts the severities."""
    kinds: dict[str, list[Corruption]] = {}
    for one in corruptions:
        kinds.setdefault(one.corruption, []).append(one)
    return tuple(
        Group(
            name=name.replace("_", " "),
            images=len(rows),
            teacher=math.fsum(row.teacher for row in rows) / len(rows),
            student=math.fsum(row.student for row in rows) / len(rows),
        )
        for name, rows in kinds.items()
    )
