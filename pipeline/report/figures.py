"""Drawings as inline SVG and data URIs. Text goes through `Markup.format`, which escapes it."""

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from kd3_pipeline.report.inputs import Curves

WIDTH, HEIGHT = 300, 180
LEFT, RIGHT, TOP, BOTTOM = 42, 4, 10, 24
MOST_POINTS = 120  # of a sparkline
FAINTEST = 0.25  # shade of a cell that has anything, on a light page and on a dark one
ALIKE = 0.05  # of the loss: a term that is so near to it at all epochs is not drawn again

# Columns of the training log that are no loss terms.
KNOWN = (
    "loss",
    "lr",
    "alpha",
    "kept",
    "threshold_low",
    "threshold_mean",
    "agreement",
    "images_per_s",
    "tflops",
    "utilisation",
    "seconds",
)
HEADINGS = {
    "agreement": "Agreement",
    "lr": "Learning rate",
}
LINES = {"threshold_low": "lowest", "threshold_mean": "mean"}


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    values: list[float]


@dataclass(frozen=True)
class Chart:
    """A drawn chart: its heading, its lines with their last values as text, and the SVG."""

    heading: str
    lines: tuple[tuple[str, str], ...]
    svg: Markup


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that span `low` to `high`."""
    if not high > low:
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float, step: float = 0.0) -> str:
    """A value as text, with the digits that `step` (or three significant ones) calls for."""
    if math.isnan(value):
        return "–"
    if not step:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.0e}" if digits > 5 else f"{value:,.{digits}f}"


def _path(points: list[tuple[float, float]], index: int) -> Markup:
    parts, alone, pen = [], [], False
    for at, (x, y) in enumerate(points):
        if math.isnan(y):
            pen = False
            continue
        parts.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}")
        if not pen and (at + 1 == len(points) or math.isnan(points[at + 1][1])):
            alone.append((x, y))
        pen = True
    drawn = [(x, y) for x, y in points if not math.isnan(y)]
    dots = [*alone, *drawn[-1:]]
    return Markup('<path class="line s{}" d="{}"/>').format(index, " ".join(parts)) + Markup(
        ""
    ).join(
        Markup('<circle class="dot s{}" cx="{}" cy="{}" r="3"/>').format(
            index, f"{x:.1f}", f"{y:.1f}"
        )
        for x, y in dots
    )


def line_chart(
    heading: str,
    epochs: list[float],
    series: list[Series],
    bounds: tuple[float, float] | None = None,
    percent: bool = False,
    unit: str = "epochs",
) -> Chart:
    """Draw lines over epochs, or what `unit` says.

    Args:
        heading: what is drawn.
        epochs: horizontal positions, one for each value.
        series: the lines; NaN leaves a gap.
        bounds: span of the vertical axis, else that of the values.
        percent: label fractions as percentages.
    """
    finite = [v for line in series for v in line.values if not math.isnan(v)]
    marks = ticks(*(bounds or (min(finite), max(finite)) if finite else (0.0, 1.0)))
    step, low, high = marks[1] - marks[0], marks[0], marks[-1]
    across = [t for t in ticks(min(epochs), max(epochs), 5) if t == round(t)] if epochs else []
    across = [t for t in across if min(epochs) <= t <= max(epochs)]
    start, end = (min(epochs), max(epochs)) if epochs else (0.0, 1.0)

    def label(value: float, step: float = 0.0) -> str:
        if percent and not math.isnan(value):
            return f"{number(100 * value, 100 * step or 0.1)}%"
        return number(value, step)

    def x(value: float) -> float:
        share = (value - start) / (end - start) if end > start else 0.5
        return LEFT + 6 + share * (WIDTH - LEFT - RIGHT - 12)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
            '<text x="{3}" y="{2}" dy="0.35em" text-anchor="end">{4}</text>'
        ).format(LEFT, WIDTH - RIGHT, f"{y(mark):.1f}", LEFT - 8, label(mark, step))
        for mark in marks
    )
    below = Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            f"{x(mark):.1f}", HEIGHT - 6, number(mark, 1)
        )
        for mark in across
    )
    lines = Markup("").join(
        _path([(x(e), y(v)) for e, v in zip(epochs, line.values, strict=True)], index % 4)
        for index, line in enumerate(series)
    )
    told = "; ".join(
        f"{line.name} from {label(line.values[0])} to {label(line.values[-1])}"
        for line in series
        if line.values
    )
    svg = Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{} over {} {}: {}</title>'
        "{}{}{}</svg>"
    ).format(WIDTH, HEIGHT, heading, len(epochs), unit, told, grid, below, lines)
    last = tuple((line.name, label(line.values[-1]) if line.values else "–") for line in series)
    return Chart(heading, last, svg)


def curve_charts(curves: Curves) -> list[Chart]:
    """One chart for each column, but kept share and alpha together: both are fractions.

    A term that is nearly all of the loss is named beside it, and not drawn a second time.
    """
    columns = curves.columns

    def drawable(name: str) -> bool:
        return any(not math.isnan(v) for v in columns.get(name, ()))

    def chart(heading: str, names: list[str], bounds: tuple[float, float] | None = None) -> Chart:
        lines = [Series(LINES.get(name, name), columns[name]) for name in names]
        return line_chart(heading, curves.epochs, lines, bounds, names == ["agreement"])

    def fraction(name: str) -> bool:
        return all(math.isnan(v) or 0 <= v <= 1 for v in columns[name])

    terms = [name for name in columns if name not in KNOWN and drawable(name)]
    charts, same = [], [name for name in terms if _alike(columns[name], columns.get("loss", []))]
    if drawable("loss"):
        made_of = f", nearly all of it {' and '.join(same)}" if same else ""
        charts.append(chart(f"Loss{made_of}", ["loss"]))
    charts += [chart(f"Loss term: {name}", [name]) for name in terms if name not in same]
    shares = [name for name in ("kept", "alpha") if drawable(name) and fraction(name)]
    if shares:
        charts.append(chart("Selection", shares, (0, 1)))
    if "kept" not in shares and drawable("kept"):
        charts.append(chart("Images kept", ["kept"]))
    thresholds = [name for name in ("threshold_low", "threshold_mean") if drawable(name)]
    if thresholds:
        charts.append(chart("Thresholds of the classes", thresholds, (0, 1)))
    charts += [chart(HEADINGS[name], [name]) for name in ("agreement", "lr") if drawable(name)]
    return charts


def _alike(term: list[float], loss: list[float]) -> bool:
    """Whether a term is the loss, to the eye; nothing is said of epochs that have no value."""
    pairs = [
        (a, b) for a, b in zip(term, loss, strict=False) if not math.isnan(a) and not math.isnan(b)
    ]
    return bool(pairs) and all(abs(a - b) <= ALIKE * abs(b) for a, b in pairs)


def interval_bar(value: float, low: float, high: float, index: int, label: str) -> Markup:
    """A bar from 0 to `value` with a whisker from `low` to `high`; fractions of the width."""
    return Markup(
        '<svg class="bar" width="100%" height="26" role="img"><title>{label}</title>'
        '<rect class="track" width="100%" height="14" y="6" rx="2"/>'
        '<rect class="fill s{index}" width="{value}%" height="14" y="6" rx="2"/>'
        '<rect class="halo" x="{low}%" width="{span}%" height="14" y="6"/>'
        '<g class="whisker"><line x1="{low}%" x2="{high}%" y1="13" y2="13"/>'
        '<line x1="{low}%" x2="{low}%" y1="3" y2="23"/>'
        '<line x1="{high}%" x2="{high}%" y1="3" y2="23"/></g></svg>'
    ).format(
        low=f"{100 * low:.2f}",
        high=f"{100 * high:.2f}",
        span=f"{100 * max(0.0, high - low):.2f}",
        label=label,
        index=index,
        value=f"{100 * value:.2f}",
    )


def sparkline(label: str, *lines: list[float]) -> Markup:
    """Lines of fractions without axes, from the left end to the right, 0 at the bottom."""
    drawn = Markup("").join(
        Markup('<polyline class="s{}" points="{}"/>').format(index, _points(values))
        for index, values in enumerate(lines)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" role="img">'
        '<title>{}</title><line class="axis" x1="0" x2="100" y1="19" y2="19"/>{}</svg>'
    ).format(label, drawn)


def _points(values: list[float]) -> str:
    shown = values[:: max(1, math.ceil(len(values) / MOST_POINTS))]
    across = [100 * index / max(1, len(shown) - 1) for index in range(len(shown))]
    return " ".join(f"{x:.1f},{18 - 16 * v:.1f}" for x, v in zip(across, shown, strict=True))


def dumbbell(first: float, second: float, floor: float, label: str) -> Markup:
    """Two dots on an axis from `floor` to 1 and the line between them."""
    a, b = (f"{2 + 96 * (v - floor) / (1 - floor):.2f}%" for v in (first, second))
    return Markup(
        '<svg class="dumbbell" width="100%" height="16" role="img"><title>{label}</title>'
        '<line class="axis" x1="2%" x2="98%" y1="8" y2="8"/>'
        '<line class="between" x1="{a}" x2="{b}" y1="8" y2="8"/>'
        '<circle class="teacher" cx="{a}" cy="8" r="4.5"/>'
        '<circle class="student" cx="{b}" cy="8" r="4.5"/></svg>'
    ).format(label=label, a=a, b=b)


def heat_map(shares: np.ndarray, scale: int) -> tuple[str, int]:
    """A square matrix of fractions as a PNG data URI and its side in pixels.

    The shade is in the alpha channel alone, so that it reads on a light and on a dark page.
    """
    shade = FAINTEST + (1 - FAINTEST) * np.sqrt(np.clip(shares, 0, 1))
    alpha = np.rint(255 * np.where(shares > 0, shade, 0)).astype(np.uint8)
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3] = (38, 122, 190)
    pixels[..., 3] = alpha
    image = Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1), "RGBA")
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii"), image.width
