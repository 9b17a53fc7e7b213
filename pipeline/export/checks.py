"""Checks that a file about to be shipped is the student, and the images for them."""

from dataclasses import dataclass

import numpy as np

from pipeline.embeddings import Embeddings
from pipeline.errors import ExternalError, UserError

TOLERANCE = 1e-3  # largest difference of a logit between float formats


@dataclass(frozen=True)
class Pixels:
    """Images to compare on, and to calibrate with (others, if asked for): uint8 [N, S, S, 3].

    Attributes:
        web: how many of `compare`, the first ones, are from the web; the others are noise.
    """

    compare: np.ndarray
    calibrate: np.ndarray
    web: int


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


def compare(file: str, logits: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference between logits [N, C] and those of the student.

    Raises:
        ExternalError: it is above 1e-3, or an image has another class.
    """
    difference = float(np.abs(logits - expected).max())
    others = int((logits.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if others or not difference <= TOLERANCE:  # not a number is above it as well
        raise ExternalError(
            f"{file} is not the student: logits differ by up to {difference:.2g} (at most"
            f" {TOLERANCE:g}), the class on {others:,} of {len(expected):,} images",
            "nothing was written; take its format out of export.formats",
        )
    return difference


def agreement(logits: np.ndarray, expected: np.ndarray) -> float:
    """Share of images with the same class."""
    return float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
