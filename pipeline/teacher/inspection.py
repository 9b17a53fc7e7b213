"""Inspection of a teacher that is loaded: what it is, and how well it does on labelled images."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from kd3_pipeline.console import Advance
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Cut, Network, device_of
from kd3_pipeline.pixels import normalise
from kd3_pipeline.pixelstore import Pixels

BATCH, FIRST_BATCH = 32, 4  # images a pass; the first ones show what a pass takes
SIGMAS = 3.0  # above chance, for an accuracy to be better than it
LETTERS = {
    "map": "(a) map and tail: KD³ in full",
    "vector": "(b) vector and tail: alignment is of vectors",
    "logits": "(c) logits alone: no features to align, kd and dfnd work",
}


def cut_text(network: Network) -> str:
    """Which of the three it is, and why none better."""
    reason = getattr(network, "cut_reason", "")
    kind: Cut = network.cut
    return LETTERS[kind] + (f"; {reason}" if reason and kind != "map" else "")


def feature_shape(network: Network, config: ModelConfig) -> tuple[int, ...]:
    """Of the features of one image, as (512, 7, 7)."""
    side = config.input_size
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device_of(network))
    with torch.no_grad():
        return tuple(network.features(normalise(image, config.mean, config.std)).shape[1:])


def tail_layers(network: Network) -> list[str]:
    """The layers behind the features in words, as `Linear 512 → 10`; none of logits alone."""
    if network.cut == "logits":
        return []
    layers = [one for one in network.classifier.modules() if not any(one.children())]
    return [
        f"Linear {one.in_features} → {one.out_features}"
        if isinstance(one, nn.Linear)
        else type(one).__name__
        for one in layers
    ]


@dataclass(frozen=True)
class Accuracy:
    """Share of images whose class the teacher says.

    Attributes:
        images: that were passed; fewer than there are where time ran out.
        low, high: of the 95% interval (Wilson).
        permuted: accuracy if its outputs were in the order that suits the labels best.
        right: bool [images], in an order that is the same for all passes over a set.
    """

    value: float
    images: int
    low: float
    high: float
    permuted: float
    classes: int
    right: np.ndarray = field(compare=False, repr=False)

    @property
    def by_chance(self) -> bool:
        """No better than guessing, as far as so many images tell."""
        chance = 1 / self.classes
        error = math.sqrt(chance * (1 - chance) / self.images)
        return self.value < chance + SIGMAS * error

    @property
    def other_order(self) -> bool:
        """The class names seem to be in another order than the outputs."""
        return self.permuted > 0.5 and self.permuted > 2 * self.value

    def beaten_by(self, other: "Accuracy") -> float:
        """By how many standard errors the other pass has more right, of the images of both."""
        both = min(len(self.right), len(other.right))
        one, two = self.right[:both], other.right[:both]
        gained, lost = int((two & ~one).sum()), int((one & ~two).sum())
        return (gained - lost) / math.sqrt(max(1, gained + lost))

    @property
    def text(self) -> str:
        return (
            f"{self.value:.1%} of {self.images:,} images"
            f" (95% interval {self.low:.1%} to {self.high:.1%})"
        )


def accuracy(
    network: Network,
    config: ModelConfig,
    pixels: Pixels,
    labels: np.ndarray,
    seconds: float,
    advance: Advance,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    reverse: bool = False,
) -> Accuracy:
    """Accuracy on labelled images, drawn from all over, as far as the time goes.

    Args:
        labels: int64 [N].
        seconds: of all passes, as far as the last one tells what the next will take; one is made
            at least.
        mean, std: instead of the config's.
        reverse: the colours are given in the other order.
    """
    began, confusion = time.monotonic(), np.zeros((network.num_classes,) * 2, np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    hits = []
    start, size = 0, FIRST_BATCH
    while start < len(order):
        rows = np.sort(order[start : start + size])
        passing = time.monotonic()
        batch = torch.from_numpy(np.array(pixels[rows])).to(device_of(network))
        batch = batch.flip(3) if reverse else batch
        with torch.no_grad():
            logits = network(normalise(batch, mean or config.mean, std or config.std))
        said = logits.argmax(1).cpu().numpy()
        np.add.at(confusion, (labels[rows], said), 1)
        hits.append(said == labels[rows])
        advance(len(rows))
        now, start = time.monotonic(), start + size
        size = min(BATCH, 2 * size)
        if now - began + size * (now - passing) / len(rows) > seconds:
            break
    count, right = int(confusion.sum()), int(np.trace(confusion))
    low, high = _wilson(right, count)
    best = int(confusion[linear_sum_assignment(confusion, maximize=True)].sum())
    share, classes = right / count, network.num_classes
    return Accuracy(share, count, low, high, best / count, classes, np.concatenate(hits))


def _wilson(right: int, count: int) -> tuple[float, float]:
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)
