"""Coverage of classes by the crawl: what was asked for, beside what the teacher predicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd3_pipeline.classcheck import Crossed, chance_told, coverage_told, labels_among, order_told
from kd3_pipeline.embed.predictions import Predictions

NOT_ASKED = "(no class)"  # images of an engine that searches for none


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
    """One row for each class of the teacher: class, images asked for by this name (as
    `labels_among` has it), images predicted, and its `scores`."""
    wanted, predicted = (one.tolist() for one in _counts(predictions, labels, asked, class_names))
    return [
        {
            "class": name,
            "asked": wanted[label],
            "predicted": predicted[label],
        }
        | {score: values[label] for score, values in scores.items()}
        for label, name in enumerate(class_names)
    ]


def warnings(
    predictions: Predictions,
    labels: np.ndarray,
    asked: Mapping[int, str],
    class_names: Sequence[str],
) -> list[str]:
    """Lines on what the matrix says is wrong: order of the classes, chance, starved, flooded."""
    found = Crossed.of(class_names, _known(labels, asked, class_names), predictions.predicted)
    order = order_told(
        found, "images found for", "look at teacher.class_names, which are those of its outputs"
    )
    lines = [order or chance_told(found)]
    wanted, predicted = _counts(predictions, labels, asked, class_names)
    return [line for line in (*lines, *coverage_told(predicted, wanted, class_names)) if line]


def _known(labels: np.ndarray, asked: Mapping[int, str], class_names: Sequence[str]) -> np.ndarray:
    """The teacher's class that each image was found for, int64 [N]; -1 where it has none."""
    of = labels_among(asked, class_names)
    found, inverse = np.unique(labels, return_inverse=True)
    return np.array([of.get(label, -1) for label in found.tolist()], np.int64)[inverse]


def _counts(
    predictions: Predictions,
    labels: np.ndarray,
    asked: Mapping[int, str],
    class_names: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Images found for each class of the teacher, and seen as it: int64 [C] each."""
    known = _known(labels, asked, class_names)
    classes = len(class_names)
    return (
        np.bincount(known[known >= 0], minlength=classes),
        np.bincount(predictions.predicted, minlength=classes),
    )


def cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[list[Any]]:
    """The rows for `write_csv`; nan, and what a row does not have, are None."""
    values = ([row.get(column) for column in columns] for row in rows)
    return [[None if value != value else value for value in row] for row in values]
