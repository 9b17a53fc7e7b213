"""Checks that a file about to be shipped is the student, and the images for them."""

import math
from dataclasses import dataclass

import numpy as np

from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import ExternalError, UserError

# most that a logit may differ by, in spreads of an image's logits over the classes
FLOAT, HALF = 1e-3, 0.1
FORMATS = "export.formats"


@dataclass(frozen=True)
class Pixels:
    """Images to compare on, and to calibrate with (others, if asked for): uint8 [N, S, S, 3].

    Attributes:
        web: how many of `compare`, the first ones, are from the web; the others are noise.
    """

    compare: np.ndarray
    calibrate: np.ndarray
    web: int


@dataclass(frozen=True)
class Comparison:
    """How far a file is from the student.

    Attributes:
        difference: largest one of a logit.
        relative: largest one of a logit in spreads of its image (`compare`).
        others: images of another class; near ties are counted apart, as `ties`.
        tolerance: that `relative` is held against.
    """

    difference: float
    relative: float
    others: int
    ties: int
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.relative <= self.tolerance


def choose_pixels(
    embeddings: Embeddings, images: int, side: int, calibrate: bool = False
) -> Pixels:
    """`images` evenly spread web images, and as many others to `calibrate` with.

    Noise takes the place of web images that there are not enough of for comparing.

    Raises:
        UserError: there are none, or they are smaller than `side`.
    """
    if not len(embeddings):
        raise UserError(f"{embeddings.folder} holds no images", "run `dvc repro embed`")
    found = embeddings.centre(side)
    step = 2 if calibrate and len(found) > 1 else 1
    taken = min(step * images, len(found))
    rows = np.arange(taken) * len(found) // taken
    first, others = found[rows[::step]], found[rows[step - 1 :: step]]
    shape = (images - len(first), *found.shape[1:])
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Pixels(np.concatenate([first, noise]), others, len(first))


def compare(logits: np.ndarray, expected: np.ndarray, tolerance: float = FLOAT) -> Comparison:
    """How far logits [N, C] are from the student's, `expected` [N, C], in spreads of its logits.

    An image's spread is the deviation of the student's logits over the classes: what a logit has
    to differ by to matter, whatever their scale is. Where the logits are nearly equal, or all large
    and alike, only rounding can tell them apart; so it is at least 1/256 of the largest logit,
    of this image or, if that is more, of the median image. With FLOAT, that is 32 roundings.

    Args:
        tolerance: most spreads that a logit may differ by. A class that differs is a near tie, and
            no disagreement, if the student's own margin between the two is within twice of that.
    """
    if logits.shape != expected.shape or not np.isfinite(logits).all():
        return Comparison(math.inf, math.inf, len(expected), 0, tolerance)
    difference = np.abs(logits.astype(np.float64) - expected).max(axis=1)
    largest = np.abs(expected).max(axis=1).astype(np.float64)
    floor = np.maximum(largest, np.median(largest)) / 256
    spread = np.maximum(expected.std(axis=1, dtype=np.float64), floor)
    relative = difference / np.maximum(spread, np.finfo(np.float32).tiny)
    ours, theirs = expected.argmax(axis=1), logits.argmax(axis=1)
    rows = np.arange(len(expected))
    margin = expected[rows, ours].astype(np.float64) - expected[rows, theirs]
    tied = (ours != theirs) & (margin <= 2 * tolerance * spread)
    return Comparison(
        float(difference.max()),
        float(relative.max()),
        int(((ours != theirs) & ~tied).sum()),
        int(tied.sum()),
        tolerance,
    )


def require_student(file: str, found: Comparison, images: int) -> None:
    """Refuses a float file that is not the student.

    Raises:
        ExternalError: a logit differs by more than the tolerance.
    """
    if not found.agrees:
        raise ExternalError(
            f"{file} is not the student: logits differ by up to {found.difference:.2g},"
            f" {found.relative:.2g} of their spread over the classes (at most"
            f" {found.tolerance:g}), the class on {found.others:,} of {images:,} images",
            f"nothing was written; take its format out of {FORMATS}",
        )


def require_finite(logits: np.ndarray) -> None:
    """Refuses a student that answers with something else than numbers.

    Raises:
        UserError: says on how many images [N, C].
    """
    if broken := int((~np.isfinite(logits).all(axis=1)).sum()):
        raise UserError(
            f"the student's logits are not finite on {broken:,} of {len(logits):,} images",
            "run `dvc repro distill`, with a lower distill.lr",
        )


def agreement(logits: np.ndarray, expected: np.ndarray) -> float:
    """Share of images with the same class."""
    return float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
