"""One self-contained HTML page from the trials of a search for parameters."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, number, ticks

MOST_MARKS = 6
LETTER = 6.5  # width of one in a drawing
ASIDE = (0, 6, -6, 12, -12)  # side by side in a column, so that dots do not hide each other

Row = Mapping[str, Any]


def build_tuning_page(
    rows: Sequence[Row],
    choices: Mapping[str, Sequence[Any] | None],
    commands: Sequence[str],
    held_out: int,
) -> str:
    """Build the page.

    Args:
        rows: trials, best first: trial, agreement, failed (why, or empty) and a value of every
            parameter.
        choices: the parameters that were searched; their values, or None for a range.
        commands: how to use the best values.
        held_out: images that agreement was measured on.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "shown": _shown}
    return environment.get_template("tuning/page.html.j2").render(
        rows=rows,
        best=rows[0],
        names=list(choices),
        charts=[(name, scatter(name, rows, listed)) for name, listed in choices.items()],
        commands=commands,
        held_out=held_out,
        failures=sum(bool(row["failed"]) for row in rows),
    )


def scatter(name: str, rows: Sequence[Row], choices: Sequence[Any] | None) -> Markup:
    """Agreement against a parameter: by its logarithm, or in a column for each of its values.

    Failed trials are hollow, on the lowest line; the best one is larger.
    """
    across = _places(name, rows, choices)
    good = [row["agreement"] for row in rows if not row["failed"]]
    marks = ticks(min(good), max(good)) if good else [0.0, 1.0]
    low, high = marks[0], marks[-1]

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
            '<text x="{3}" y="{2}" dy="0.35em" text-anchor="end">{4}%</text>'
        ).format(
            LEFT,
            WIDTH - RIGHT,
            f"{y(mark):.1f}",
            LEFT - 8,
            number(100 * mark, 100 * (marks[1] - low)),
        )
        for mark in marks
    )
    below = Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            f"{x:.1f}", HEIGHT - 6, text
        )
        for x, text in _marks(name, rows, choices)
    )
    dots = Markup("").join(
        Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            "failed" if row["failed"] else "dot s1" if row is rows[0] else "dot s0",
            f"{x:.1f}",
            f"{y(low if row['failed'] else row['agreement']):.1f}",
            6 if row is rows[0] and not row["failed"] else 3.5,
            f"trial {row['trial']}: {_percent(row['agreement'])}, {name} {_shown(row[name])}",
        )
        for row, x in reversed(list(zip(rows, across, strict=True)))  # the best is on top
    )
    told = f"agreement of {len(rows)} trials by {name}"
    if good:
        told += f"; the best, {_percent(good[0])}, has {_shown(rows[0][name])}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title>{}{}{}</svg>'
    ).format(WIDTH, HEIGHT, told, grid, below, dots)


def _places(name: str, rows: Sequence[Row], choices: Sequence[Any] | None) -> list[float]:
    """Where each row stands from left to right."""
    if choices is None:
        return [_by_logarithm(row[name], _span(name, rows)) for row in rows]
    seen: Counter[int] = Counter()
    places = []
    for row in rows:
        column = list(choices).index(row[name])
        places.append(_column(column, len(choices)) + ASIDE[seen[column] % len(ASIDE)])
        seen[column] += 1
    return places


def _marks(
    name: str, rows: Sequence[Row], choices: Sequence[Any] | None
) -> list[tuple[float, str]]:
    """Positions from left to right and what is written there."""
    if choices is None:
        low, high = _span(name, rows)
        return [(_by_logarithm(mark, (low, high)), number(mark)) for mark in _log_marks(low, high)]
    fits = max(2, int((WIDTH - LEFT - RIGHT) / len(choices) / LETTER))
    texts = [_shown(choice) for choice in choices]
    return [
        (_column(at, len(texts)), text if len(text) <= fits else text[: fits - 1] + "…")
        for at, text in enumerate(texts)
    ]


def _span(name: str, rows: Sequence[Row]) -> tuple[float, float]:
    values = [row[name] for row in rows]
    return min(values), max(values)


def _by_logarithm(value: float, span: tuple[float, float]) -> float:
    low, high = span
    share = math.log(value / low) / math.log(high / low) if high > low else 0.5
    return LEFT + 10 + share * (WIDTH - LEFT - RIGHT - 20)


def _column(at: int, count: int) -> float:
    return LEFT + (at + 0.5) / count * (WIDTH - LEFT - RIGHT)


def _log_marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the span, fewer if they are many, else its ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [float(f"{m}e{power}") for power in powers for m in (1, 2, 5)]
    inside = [mark for mark in marks if low <= mark <= high]
    if len(inside) > MOST_MARKS:
        tens = [mark for mark in inside if f"{mark:e}".startswith("1.0")]
        inside = tens[:: math.ceil(len(tens) / MOST_MARKS)]
    return inside if len(inside) > 1 else sorted({low, high})


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
