"""Sections of the page: what each shows, as values of its template."""

import math
import statistics
from collections import Counter
from typing import Any

from markupsafe import Markup

from kd3_pipeline.crawlsummary import CrawlSummary
from kd3_pipeline.embedsummary import EmbedSummary
from kd3_pipeline.metrics import Group, Metrics, NetworkMetrics
from kd3_pipeline.report import costs
from kd3_pipeline.report.calibration import reliability_diagram
from kd3_pipeline.report.figures import curve_charts, interval_bar
from kd3_pipeline.report.identity import Identity, classes_told
from kd3_pipeline.report.inputs import Curves
from kd3_pipeline.report.stored import Images
from kd3_pipeline.report.tables import confusion_matrix, group_rows, kept_rows
from kd3_pipeline.report.tiles import Gallery
from kd3_pipeline.templates import percent

MOST_QUERIES, MOST_HOSTS = 1000, 50  # shown
NORMALISATION = {
    "fits": "The mean and deviation fit the teacher.",
    "wrong": "The mean and deviation do not seem to be those that the teacher was trained with: "
    "`pipeline teacher --check` says which may be.",
    "unknown": "Whether the mean and deviation are those that the teacher was trained with cannot "
    "be told from its batch norms or its answers.",
}
CUTS = {
    "map": "at its last feature map, before pooling",
    "vector": "at a vector",
    "logits": "nowhere: only its logits are seen",
}
Section = dict[str, Any]


def identity(identity: Identity, metrics: Metrics) -> Section:
    """What the page is a report of."""
    names, more = classes_told(metrics.class_names)
    return {"identity": identity, "classes_named": names, "classes_more": more}


def summary(metrics: Metrics, embed: EmbedSummary) -> Section:
    """The result in one sentence, both networks with a bar for their accuracy, and warnings."""
    networks = [("Teacher", metrics.teacher), ("Student", metrics.student)]
    return {
        "headline": headline(metrics),
        "metrics": metrics,
        "warnings": [*embed.warnings, *metrics.warnings],
        "normalisation": NORMALISATION[embed.normalisation],
        "cuts": CUTS,
        "networks": [
            (role, network, _accuracy_bar(role, network, index))
            for index, (role, network) in enumerate(networks)
        ],
    }


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
    told = costs.told(metrics)
    return f"{sentence}, {told}." if told else f"{sentence}."


def _accuracy_bar(role: str, network: NetworkMetrics, index: int) -> Markup:
    low, high = network.accuracy_low, network.accuracy_high
    label = f"{role}: {percent(network.accuracy)}, 95% interval {percent(low)} to {percent(high)}"
    return interval_bar(network.accuracy, low, high, index, label)


def harvest(summary: CrawlSummary | None) -> Section:
    """What was wanted of the crawl and got; queries and hosts as many as a person may read."""
    asked = (
        [(one.name, query) for one in summary.classes for query in one.queries] if summary else []
    )
    hosts = sorted(summary.later.hosts.items(), key=lambda one: -one[1].images) if summary else []
    return {
        "harvest": summary,
        "queries": asked[:MOST_QUERIES],
        "more_queries": max(0, len(asked) - MOST_QUERIES),
        "later": hosts[:MOST_HOSTS],
        "covered": summary.coverage.shown[:MOST_HOSTS] if summary and summary.coverage else [],
    }


def galleries(of_crawl: list[Gallery], mistakes: Gallery | None) -> Section:
    """The galleries, and how many filters the page needs for them."""
    shown = [*of_crawl, *([mistakes] if mistakes else [])]
    return {
        "galleries": of_crawl,
        "mistakes": mistakes,
        "most_classes": max(len(gallery.classes) for gallery in shown),
        "most_outcomes": max(len(gallery.outcomes) for gallery in shown),
    }


def curves(log: Curves, ended: bool = True) -> Section:
    """Charts of the training log, its median speed, and what more time would bring if it ended."""
    speeds = [speed for speed in log.columns.get("images_per_s", []) if not math.isnan(speed)]
    return {
        "curves": log,
        "charts": curve_charts(log),
        "ahead": log.forecast if ended else None,
        "speed": f"{statistics.median(speeds):,.0f}" if speeds else "",
    }


def selection(
    images: Images, class_names: tuple[str, ...], thresholds: dict[int, list[float]]
) -> Section:
    """Shares selected by class."""
    return {"epochs": images.epochs, "kept_rows": kept_rows(images, class_names, thresholds)}


def failures(
    metrics: Metrics, confusions: Counter[tuple[str, str]], corruptions: tuple[Group, ...]
) -> Section:
    """Accuracies by class, style and corruption, confusions, calibration."""
    class_rows, class_floor = group_rows(metrics.per_class)
    style_rows, style_floor = group_rows(metrics.styles)
    corruption_rows, corruption_floor = group_rows(corruptions)
    student = metrics.student
    return {
        "class_rows": class_rows,
        "class_floor": class_floor,
        "style_rows": style_rows,
        "style_floor": style_floor,
        "corruption_rows": corruption_rows,
        "corruption_floor": corruption_floor,
        "matrix": confusion_matrix(confusions, metrics.class_names),
        "diagrams": [
            ("Without a temperature", student.ece, metrics.calibration),
            ("With the temperature", student.ece_tempered, metrics.calibration_tempered),
        ],
        "reliability": reliability_diagram,
    }


def cost(metrics: Metrics) -> Section:
    """Ratios and latencies; the rest is in the networks of the summary."""
    teacher, student = metrics.teacher, metrics.student
    return {
        "cost_ratios": [
            costs.ratio(getattr(student, name), getattr(teacher, name))
            for name in ("parameters", "macs", "megabytes")
        ],
        "not_cheap": costs.not_cheap(metrics),
        "latency_rows": costs.latency_rows(metrics),
    }
