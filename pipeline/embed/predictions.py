"""Predictions of the teacher for the images of a crawl, and a summary of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

BLOCK = 10_000  # rows in memory at a time


@dataclass(frozen=True)
class Predictions:
    """Predictions of the teacher for N images.

    Attributes:
        predicted: class of the highest logit, int64 [N].
        confidence: its probability, float32 [N].
        energy: −log Σ exp z over the logits z (Liu et al., "Energy-based Out-of-distribution
            Detection", 2020), float32 [N]: the higher, the less it sees of any class.
        classes: how many there are.
    """

    predicted: np.ndarray
    confidence: np.ndarray
    energy: np.ndarray
    classes: int

    def by_class(self) -> Iterator[tuple[int, np.ndarray]]:
        """The classes that are predicted at all, and the rows of each in order."""
        for label in np.unique(self.predicted).tolist():
            yield label, np.flatnonzero(self.predicted == label)


def read_logits(logits: np.ndarray) -> Predictions:
    """Predictions that logits [N, C] make; they may be a memory map, and are read once."""
    total, classes = logits.shape
    predictions = Predictions(
        np.empty(total, np.int64), np.empty(total, np.float32), np.empty(total, np.float32), classes
    )
    for rows in blocks(np.arange(total)):
        few = logits[rows[0] : rows[-1] + 1].astype(np.float64)
        energy = -logsumexp(few, axis=1)
        predictions.predicted[rows] = few.argmax(axis=1)
        predictions.confidence[rows] = np.exp(few.max(axis=1) + energy)
        predictions.energy[rows] = energy
    return predictions


def summarise(predictions: Predictions) -> dict[str, Any]:
    """Counts and confidence of the teacher's predictions."""
    return {
        "images": len(predictions.predicted),
        "mean_confidence": round(float(predictions.confidence.mean(dtype=np.float64)), 4),
        "confident": int((predictions.confidence > 0.95).sum()),
    }


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in order, some thousands at a time."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]
