"""Crops of large pictures: where they are cut, and those of which the teacher is surest.

A photograph often shows its object small or aside, where one square of the whole gives it a few
pixels. How sure the teacher is needs no label, as in KD³'s selection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np
from PIL import Image
from scipy.special import logsumexp

from kd3_pipeline.frames import Fit

SCALES = (0.7, 0.5, 0.35)  # sides of crops, beside 1, the whole
GRID = (0.0, 0.5, 1.0)  # places along each side, from one end of the picture to the other
VIEWS = 1 + len(SCALES) * len(GRID) ** 2  # of a picture that is large enough for all
GAP = 3.0  # of Pillow's resize: it averages first, and ends hardly different from one step

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


@dataclass(frozen=True)
class Crop:
    """A part of a picture as a square, uint8 [S, S, 3]; its box and its side beside the whole's."""

    scale: float
    box: Box
    pixels: np.ndarray


@dataclass(frozen=True)
class Views:
    """Where the M views of a batch of B images come from; the first B are the whole images.

    Attributes:
        image: int64 [M], which of the B images it shows.
        scale: float64 [M], its side beside that of the whole: 1 or one of `SCALES`.
        box: float32 [M, 4], left, top, right and bottom in pixels of the picture; NaN of a whole.
    """

    image: np.ndarray
    scale: np.ndarray
    box: np.ndarray


def views_of(count: int, crops: Sequence[tuple[int, Crop]]) -> Views:
    """Views of `count` whole images, and of crops, each with the image that it shows."""
    image = [*range(count), *(place for place, _ in crops)]
    scale = [1.0] * count + [crop.scale for _, crop in crops]
    box = [(np.nan,) * 4] * count + [crop.box for _, crop in crops]
    return Views(np.array(image), np.array(scale), np.array(box, np.float32))


def crops_of(picture: Image.Image, side: int, fit: Fit) -> list[Crop]:
    """All crops of a picture that may be kept, antialiased, of `side` pixels.

    Empty for one that is too small: no crop is enlarged.
    """
    shape, resample = (side, side), Image.Resampling.BICUBIC
    return [
        Crop(scale, box, np.asarray(picture.resize(shape, resample, box, reducing_gap=GAP)))
        for scale, box in crop_boxes(picture.size, side, fit)
    ]


def crop_boxes(size: tuple[int, int], side: int, fit: Fit) -> list[tuple[float, Box]]:
    """Scale and box of each crop of a picture (width, height) that `side` pixels are made of.

    They lie on a grid over all of the picture, with what `fit` cuts off.
    """
    width, height = size
    frame = (width, height) if fit == "squash" else (min(size), min(size))
    boxes: list[tuple[float, Box]] = []
    for scale, down, right in product(SCALES, GRID, GRID):
        across, along = scale * frame[0], scale * frame[1]
        if min(across, along) >= side:
            left, top = right * (width - across), down * (height - along)
            # a sum may pass the picture by its last digit, which Pillow refuses
            box = (left, top, min(left + across, float(width)), min(top + along, float(height)))
            boxes.append((scale, box))
    return boxes


def surest(logits: np.ndarray, views: Views, count: int) -> np.ndarray:
    """The `count` crops of each image of which the teacher is surest, as rows: int64 [B, count].

    Only crops in which it sees the class that it sees in the whole: of all that it is sure of, most
    are other things, for which a part of a picture is easily taken. Of each scale the best place
    counts, and of the scales the surest come first: so an image's crops differ, and are not one
    object three times. Where there are fewer, the whole image stands.

    Args:
        logits: float32 [M, C] of the views.
    """
    sure = log_odds(logits)
    classes, wholes = logits.argmax(axis=1), int((views.scale == 1).sum())
    same = classes == classes[views.image]  # the whole images are the first rows
    order = np.lexsort((-sure, views.scale, views.image))
    order = order[(same & (views.scale < 1))[order]]
    found = np.repeat(np.arange(wholes)[:, None], count, axis=1)
    for image, rows in groupby(order.tolist(), key=lambda row: int(views.image[row])):
        scales = groupby(rows, key=lambda row: float(views.scale[row]))
        best = sorted((next(places) for _, places in scales), key=lambda row: -sure[row])[:count]
        found[image, : len(best)] = best
    return found


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Log odds of the likeliest of C classes, log p/(1 − p), float64 [M], of logits [M, C].

    They order views as p does, and still where p is 1 but for what float32 holds.
    """
    ordered = np.sort(logits.astype(np.float64), axis=1)
    return ordered[:, -1] - logsumexp(ordered[:, :-1], axis=1)
