"""One self-contained HTML page from the files of a run."""

import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.errors import UserError
from pipeline.report.figures import curve_charts, interval_bar
from pipeline.report.flow import read_flow, read_images
from pipeline.report.galleries import build_galleries
from pipeline.report.inputs import (
    Metrics,
    read_confusions,
    read_curves,
    read_metrics,
    require,
)
from pipeline.report.tables import class_rows, confusion_matrix

MOST_THUMBNAILS = 150

# Controls, lone surrogates, and characters that are unseen or turn the direction of the text.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


@dataclass(frozen=True)
class ReportSources:
    """The files of the earlier stages.

    Attributes:
        crawl: directory of the image shards and `manifest.parquet`.
        dedup: Parquet file, one row a stored image.
        embed: directory of `images.parquet` and `logits.npy`.
        selection: Parquet file, one row an image that distillation used.
        curves: CSV file, one row an epoch.
        metrics: JSON file of the evaluation.
        predictions: CSV file, one row a test image.
    """

    crawl: Path
    dedup: Path
    embed: Path
    selection: Path
    curves: Path
    metrics: Path
    predictions: Path


def _seen(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub("", value)
    return value


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _percent(fraction: float | None, digits: int = 1) -> str:
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}%"


def _points(points: float | None) -> str:
    if points is None:
        return "–"
    text = f"{abs(points):.1f}"
    return text if text == "0.0" else ("−" if points < 0 else "+") + text


def _median(values: list[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{statistics.median(known):,.0f}" if known else ""


def headline(metrics: Metrics) -> str:
    """The result in one sentence."""
    gap = f"{abs(metrics.gap_points):.1f}"
    against = "level with its teacher"
    if gap != "0.0":
        side = "below" if metrics.gap_points > 0 else "above"
        against = f"{gap} points {side} its teacher"
    sentence = (
        f"The student is right on {_percent(metrics.student.accuracy)} of "
        f"{metrics.test_images:,} test images, {against}"
    )
    if not metrics.teacher.parameters:
        return sentence + "."
    ratio = metrics.student.parameters / metrics.teacher.parameters
    if ratio < 0.995:
        digits = 0 if ratio >= 0.01 else 1
        return f"{sentence}, with {_percent(ratio, digits)} of the parameters."
    if ratio < 1.005:
        return f"{sentence}, with as many parameters."
    return f"{sentence}, with {ratio:.2g} times the parameters."


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    environment.filters |= {
        "clip": _clip,
        "count": lambda value: f"{value:,}",
        "percent": _percent,
        "points": _points,
    }
    return environment


def build_report(
    sources: ReportSources,
    *,
    thumbnails: int = 60,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> str:
    """Build the page.

    Args:
        sources: files of the earlier stages.
        thumbnails: images (or pairs of images) in each of the four galleries, at most 150.
        seed: of the choice of images; the same files and seed give the same page.
        progress: called with 1 after each gallery.

    Returns:
        HTML that needs nothing beside itself, under 8 MB.

    Raises:
        UserError: a file is missing or malformed, or files are of different runs.
    """
    if not 0 <= thumbnails <= MOST_THUMBNAILS:
        raise UserError(
            f"report.thumbnails is {thumbnails}",
            f"take 0 to {MOST_THUMBNAILS}, which keeps the page under 8 MB",
        )
    require(sources.crawl / "manifest.parquet", "crawl")
    metrics = read_metrics(sources.metrics)
    curves = read_curves(sources.curves)
    confusions = read_confusions(sources.predictions)
    images = read_images(sources.dedup, sources.selection)
    flow = read_flow(sources.crawl, sources.embed, images, metrics.class_names)
    galleries = build_galleries(
        sources.crawl,
        images,
        flow.names,
        metrics.class_names,
        thumbnails=thumbnails,
        seed=seed,
        progress=progress,
    )
    rows, floor = class_rows(metrics.per_class)
    models = [
        (
            role,
            model,
            interval_bar(
                model.accuracy,
                model.low,
                model.high,
                index,
                f"{role}: {_percent(model.accuracy)}, "
                f"95% interval {_percent(model.low)} to {_percent(model.high)}",
            ),
        )
        for index, (role, model) in enumerate(
            [("Teacher", metrics.teacher), ("Student", metrics.student)]
        )
    ]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            headline=headline(metrics),
            metrics=metrics,
            models=models,
            flow=flow,
            epochs=images.epochs,
            galleries=galleries,
            curves=curves,
            speed=_median(curves.columns.get("images_per_s", [])),
            charts=curve_charts(curves),
            class_rows=rows,
            floor=floor,
            matrix=confusion_matrix(confusions, metrics.class_names),
            sources=[
                sources.crawl / "manifest.parquet",
                sources.crawl / "images-*.parquet",
                sources.dedup,
                sources.embed / "logits.npy",
                sources.selection,
                sources.curves,
                sources.metrics,
                sources.predictions,
            ],
        )
    )
