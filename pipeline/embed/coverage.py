"""Coverage of classes by the crawl: what was asked for, beside what the teacher predicts."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd3_pipeline.embed.predictions import Predictions

STARVED, FLOODED = 1 / 4, 4  # times the mean of the classes
NOT_ASKED = "(no class)"  # images of an engine that searches for none


def coverage(predictions: Predictions) -> list[str]:
    """For each class `starved` (predicted for less than 1/4 of a class's mean number of images),
    `flooded` (for more than 4 times as many), or neither (empty)."""
    counts = np.bincount(predictions.predicted, minlength=predictions.classes)
    mean = counts.mean()
    return [
        "starved" if n < STARVED * mean else "flooded" if n > FLOODED * mean else "" for n in counts
    ]


def asked_rows(
    predictions: Predictions,
    labels: np.ndarray,
    asked: Mapping[int, str],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """The cells of the matrix class asked for × class predicted that are not empty.

    Args:
        labels: class that was asked for, int64 [N]; `asked` names them.

    Returns:
        asked, predicted, images, and share of the images of the class that was asked for.
    """
    pairs, images = np.unique(
        np.stack([labels, predictions.predicted], 1), axis=0, return_counts=True
    )
    totals = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    return [
        {
            "asked": asked.get(label, NOT_ASKED),
            "predicted": class_names[predicted],
            "images": count,
            "share": round(count / totals[label], 4),
        }
        for (label, predicted), count in zip(pairs.tolist(), images.tolist(), strict=True)
    ]


def class_rows(
    predictions: Predictions,
    labels: np.ndarray,
    asked: Mapping[int, str],
    class_names: Sequence[str],
    scores: Mapping[str, Sequence[Any]],
) -> list[dict[str, Any]]:
    """One row for each class of the teacher: class, images asked for by this name (however its
    accents are encoded), images predicted, and its `scores`."""
    names = {label: unicodedata.normalize("NFC", name) for label, name in asked.items()}
    wanted = Counter(names.get(label, NOT_ASKED) for label in labels.tolist())
    predicted = np.bincount(predictions.predicted, minlength=predictions.classes).tolist()
    return [
        {
            "class": name,
            "asked": wanted[unicodedata.normalize("NFC", name)],
            "predicted": predicted[label],
        }
        | {score: values[label] for score, values in scores.items()}
        for label, name in enumerate(class_names)
    ]


def cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[list[Any]]:
    """The rows for `write_csv`; nan, and what a row does not have, are None."""
    values = ([row.get(column) for column in columns] for row in rows)
    return [[None if value != value else value for value in row] for row in values]
