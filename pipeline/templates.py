"""Jinja environment of all pages and cards, with the filters that write values as text."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

# Controls, lone surrogates, and characters that are unseen or turn the direction of the text.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def environment(package: str, **filters: Callable[..., Any]) -> Environment:
    """Templates that lie in a package, with filters of its own beside those below.

    Everything is escaped as HTML that is not marked as safe, but for Markdown (`.md.j2`), whose
    templates escape by a filter. What cannot be seen is never written. A value that is not given
    is an error.
    """
    made = Environment(
        loader=PackageLoader(package, package_path=""),
        autoescape=lambda name: not (name or "").endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    made.filters |= {
        "clip": clip,
        "count": count,
        "figure": figure,
        "counted": counted,
        "large": large,
        "moment": moment,
        "percent": percent,
        "points": points,
        "probability": probability,
        "signed": signed,
        "times": times,
    } | filters
    return made


def visible(value: object) -> object:
    """Text without what is unseen or turns its direction; anything else as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub("", value)
    return value


def clip(text: str, length: int) -> str:
    """Text of at most `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def count(value: float) -> str:
    """A number with commas between its thousands."""
    return f"{value:,}"


def counted(value: int, one: str, many: str = "") -> str:
    """A number with the noun that fits: 1 page, 2 pages."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def figure(value: float) -> str:
    """A number with three digits, or all before the point: 0.807, 27.6, 1,027."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def large(value: float) -> str:
    """A large number with three digits and a unit: 41.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def moment(text: str | None) -> str:
    """A time in ISO form as a person reads it; what is none stays as it is."""
    if text is None:
        return "–"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time:%Y-%m-%d %H:%M}" + (f" {time:%Z}" if time.tzinfo else "")


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}%"


def points(difference: float | None) -> str:
    """A difference in percentage points, with its sign."""
    if difference is None:
        return "–"
    text = f"{abs(difference):.1f}"
    return text if text == "0.0" else ("−" if difference < 0 else "+") + text


def probability(value: float) -> str:
    """A p value, with its sign: = 0.031, or < 0.0001."""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def signed(value: int) -> str:
    """A whole number with its sign; a dot for none."""
    return "·" if not value else ("−" if value < 0 else "+") + f"{abs(value):,}"


def times(ratio: float | None) -> str:
    """A ratio with its sign of multiplication: × 0.33."""
    return "–" if ratio is None else f"× {ratio:.3g}"
