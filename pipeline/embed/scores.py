"""Scores of images, of classes and of the whole crawl, from embeddings."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd3_pipeline.classcheck import coverage_flags
from kd3_pipeline.console import Advance
from kd3_pipeline.embed.predictions import Predictions
from kd3_pipeline.embed.redundancy import redundant as marked
from kd3_pipeline.embed.shift import weight_cosines
from kd3_pipeline.embed.topic import core_distance
from kd3_pipeline.embed.topic import off_topic as scored
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Embed


@dataclass(frozen=True)
class Scores:
    """Results by name; of what was not asked for there is nothing.

    Attributes:
        images: an array [N] each.
        classes: a value for each class, nan or empty where there is none.
        figures: one number or a few for all.
    """

    images: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, list[Any]] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)


def score(
    features: np.ndarray,
    predictions: Predictions,
    network: Network,
    section: Embed,
    advance: Advance,
) -> Scores:
    """Scores images by features (float [N, D], may be a memory map) and what the teacher said.

    Time grows with N, memory does not, but for a few numbers an image.

    Args:
        network: the teacher.
        section: its `off_topic`, `redundant`, `coverage` and `shift` say which scores.
        advance: called with N images in all for each of off-topic, redundant and shift.
    """
    found = Scores()
    if section.coverage:
        flags = found.classes["coverage"] = coverage_flags(
            np.bincount(predictions.predicted, minlength=predictions.classes)
        )
        found.figures["coverage"] = {name: flags.count(name) for name in ("starved", "flooded")}
    if section.off_topic:
        distance = core_distance(features, predictions, advance)
        each = found.images["off_topic"] = scored(predictions, distance)
        mean = np.full(predictions.classes, np.nan)
        for label, rows in predictions.by_class():
            mean[label] = each[rows].mean(dtype=np.float64)
        found.classes["off_topic"] = _rounded(mean)
        found.figures["off_topic"] = {
            "mean_energy": round(float(predictions.energy.mean(dtype=np.float64)), 4),
            "mean_core_distance": round(float(distance.mean(dtype=np.float64)), 4),
        }
    if section.redundant:
        each, cut = marked(features, predictions, section.redundant, advance)
        found.images["redundant"] = each
        found.classes["redundant_cosine"] = _rounded(cut)
        lowest = None if np.isnan(cut).all() else round(float(np.nanmin(cut)), 4)
        found.figures["redundant"] = {"images": int(each.sum()), "lowest_cosine": lowest}
    if section.shift:
        cosines = weight_cosines(features, predictions, network, advance)
        found.figures["shift"] = {"weight_cosine": None}
        if cosines is not None:
            found.classes["weight_cosine"] = _rounded(cosines)
            found.figures["shift"]["weight_cosine"] = round(float(np.nanmean(cosines)), 4)
    return found


def _rounded(values: np.ndarray) -> list[float]:
    return values.astype(np.float64).round(4).tolist()
