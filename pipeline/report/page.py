"""One self-contained HTML page from the files of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from pipeline.errors import UserError
from pipeline.report.calibration import reliability_diagram
from pipeline.report.figures import curve_charts, interval_bar
from pipeline.report.flow import read_flow
from pipeline.report.galleries import build_galleries, read_mistakes
from pipeline.report.inputs import (
    Curves,
    read_confusions,
    read_curves,
    read_thresholds,
    require,
)
from pipeline.report.map import read_map
from pipeline.report.origins import read_origins
from pipeline.report.scores import (
    Metrics,
    Network,
    by_kind,
    latency_rows,
    read_corruptions,
    read_metrics,
)
from pipeline.report.stored import read_images
from pipeline.report.tables import confusion_matrix, group_rows, kept_rows
from pipeline.report.text import environment, median, percent

MOST_THUMBNAILS = 75


@dataclass(frozen=True)
class ReportSources:
    """The files of the earlier stages.

    Attributes:
        crawl: directory of the image shards and `manifest.parquet`.
        dedup: Parquet file, one row a stored image.
        leaks: Parquet file of the test images found in the crawl; may be missing.
        embed: directory of `images.parquet`, `logits.npy` and `features.npy`.
        selection: Parquet file, one row an image that distillation used.
        thresholds: Parquet file, one row an epoch and class.
        curves: CSV file, one row an epoch.
        metrics: JSON file of the evaluation.
        predictions: CSV file, one row a test image.
        corruptions: CSV file, one row a corruption and severity; no rows if there were none.
        mistakes: Parquet file of test images that the student gets wrong; may be missing.
    """

    crawl: Path
    dedup: Path
    leaks: Path
    embed: Path
    selection: Path
    thresholds: Path
    curves: Path
    metrics: Path
    predictions: Path
    corruptions: Path
    mistakes: Path


def headline(metrics: Metrics) -> str:
    """The result in one sentence."""
    gap = f"{abs(metrics.gap_points):.1f}"
    against = "level with its teacher"
    if gap != "0.0":
        side = "below" if metrics.gap_points > 0 else "above"
        against = f"{gap} points {side} its teacher"
    sentence = (
        f"The student is right on {percent(metrics.student.accuracy)} of "
        f"{metrics.test_images:,} test images, {against}"
    )
    if not metrics.teacher.parameters:
        return sentence + "."
    ratio = metrics.student.parameters / metrics.teacher.parameters
    if ratio < 0.995:
        digits = 0 if ratio >= 0.01 else 1
        return f"{sentence}, with {percent(ratio, digits)} of the parameters."
    if ratio < 1.005:
        return f"{sentence}, with as many parameters."
    return f"{sentence}, with {ratio:.2g} times the parameters."


def _accuracy_bar(role: str, network: Network, index: int) -> Markup:
    low, high = network.accuracy_low, network.accuracy_high
    label = f"{role}: {percent(network.accuracy)}, 95% interval {percent(low)} to {percent(high)}"
    return interval_bar(network.accuracy, low, high, index, label)


def build_report(
    sources: ReportSources,
    *,
    thumbnails: int = 60,
    map_images: int = 2000,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> str:
    """Build the page.

    Args:
        sources: files of the earlier stages.
        thumbnails: images (or pairs of images) in each of the eight galleries, at most 75.
        map_images: images on the map at most; 0 leaves it out.
        seed: of the choice of images; the same files and seed give the same page.
        progress: called with 1 after each gallery and after the map.

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
    advance = progress or (lambda n: None)
    require(sources.crawl / "manifest.parquet", "crawl")
    metrics = read_metrics(sources.metrics)
    curves = read_curves(sources.curves)
    confusions = read_confusions(sources.predictions)
    corruptions = by_kind(read_corruptions(sources.corruptions))
    names = metrics.class_names
    images = read_images(sources.dedup, sources.selection)
    thresholds = read_thresholds(sources.thresholds, images.epochs)
    flow = read_flow(sources.crawl, sources.embed, images, names)
    galleries = []
    for gallery in build_galleries(
        sources.crawl,
        sources.leaks,
        images,
        flow.names,
        names,
        thumbnails=thumbnails,
        seed=seed,
    ):
        galleries.append(gallery)
        advance(1)
    mistakes = read_mistakes(sources.mistakes, thumbnails)
    advance(1)
    places = read_map(sources.embed, sources.selection, names, map_images, seed)
    advance(1)
    class_rows, class_floor = group_rows(metrics.per_class)
    style_rows, style_floor = group_rows(metrics.styles)
    corruption_rows, corruption_floor = group_rows(corruptions)
    shown = [*galleries, *([mistakes] if mistakes else [])]
    used = [path for path in vars(sources).values() if path.exists()]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            headline=headline(metrics),
            metrics=metrics,
            networks=[
                (role, network, _accuracy_bar(role, network, index))
                for index, (role, network) in enumerate(
                    [("Teacher", metrics.teacher), ("Student", metrics.student)]
                )
            ],
            origins=read_origins(sources.crawl / "manifest.parquet", images),
            flow=flow,
            epochs=images.epochs,
            galleries=galleries,
            most_classes=max(len(gallery.classes) for gallery in shown),
            most_outcomes=max(len(gallery.outcomes) for gallery in shown),
            kept_rows=kept_rows(images, names, thresholds),
            map=places,
            mistakes=mistakes,
            class_rows=class_rows,
            class_floor=class_floor,
            style_rows=style_rows,
            style_floor=style_floor,
            corruption_rows=corruption_rows,
            corruption_floor=corruption_floor,
            diagrams=[
                ("Without a temperature", metrics.student.ece, metrics.calibration),
                (
                    "With the temperature",
                    metrics.student.ece_tempered,
                    metrics.calibration_tempered,
                ),
            ],
            reliability=reliability_diagram,
            latency_rows=latency_rows(metrics),
            matrix=confusion_matrix(confusions, names),
            sources=used,
            **_curves(curves),
        )
    )


def build_live(curves_path: Path, every: int) -> str:
    """Build the page of a distillation that is under way: the curves alone.

    Args:
        curves_path: CSV file, one row an epoch; before the first epoch has ended it is missing.
        every: seconds after which a browser reads the page again.

    Raises:
        UserError: the file is malformed.
    """
    curves = read_curves(curves_path) if curves_path.exists() else Curves([], {}, ())
    page = environment().get_template("live.html.j2")
    return page.render(every=every, sources=[curves_path], **_curves(curves))


def _curves(curves: Curves) -> dict[str, object]:
    return {
        "curves": curves,
        "charts": curve_charts(curves),
        "speed": median(curves.columns.get("images_per_s", [])),
    }
