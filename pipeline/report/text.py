"""How the pages write values, and the environment of their templates."""

import math
import re
import statistics

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

# Controls, lone surrogates, and characters that are unseen or turn the direction of the text.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def seen(value: object) -> object:
    """Text without what is unseen or turns its direction; anything else as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub("", value)
    return value


def clip(text: str, length: int) -> str:
    """Text of at most `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}%"


def points(difference: float | None) -> str:
    """A difference in percentage points, with its sign."""
    if difference is None:
        return "–"
    text = f"{abs(difference):.1f}"
    return text if text == "0.0" else ("−" if difference < 0 else "+") + text


def large(value: float) -> str:
    """A large number with three digits and a unit: 41.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def probability(value: float) -> str:
    """A p value, with its sign: = 0.031, or < 0.0001."""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def median(values: list[float]) -> str:
    """The median of the values that are known, as text; empty where none is."""
    known = [value for value in values if not math.isnan(value)]
    return f"{statistics.median(known):,.0f}" if known else ""


def environment() -> Environment:
    """Templates of this package, with everything escaped that is not marked as safe."""
    made = Environment(
        loader=PackageLoader("pipeline.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=seen,
    )
    made.filters |= {
        "clip": clip,
        "count": lambda value: f"{value:,}",
        "large": large,
        "percent": percent,
        "points": points,
        "probability": probability,
    }
    return made
