"""Figures of crops: which images are large enough, and what the teacher sees in them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from scipy.special import softmax

from kd3_pipeline.embed.batches import KeptImage
from kd3_pipeline.embed.crops import SCALES
from kd3_pipeline.embeddings import BLOCK, Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.store import read_table, shard_path


def least_side(stored: int) -> int:
    """Pixels of the shorter side of an image from which a crop of it is `stored` pixels or more."""
    return math.ceil(stored / max(SCALES) - 1e-9)


def cropped(kept: Sequence[KeptImage], crawl: Path, stored: int) -> int:
    """How many images are large enough for a crop of `stored` pixels, by the shards' own columns.

    Raises:
        UserError: none is; or a shard cannot be read.
    """
    least, found = least_side(stored), 0
    for shard, group in groupby(kept, key=lambda image: image.shard):
        table = read_table(shard_path(crawl, shard), ["width", "height"])
        shorter = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
        rows = [image.row for image in group if image.row < len(shorter)]
        found += int((shorter[rows] >= least).sum())
    if not found:
        raise UserError(
            f"embed.crops: none of {len(kept):,} images has a shorter side of {least} pixels, from"
            f" which a crop is not smaller than the {stored} that are stored",
            "set embed.crops to 1, or crawl larger images (crawl.side, crawl.min_side)",
        )
    return found


@dataclass(frozen=True)
class CropFigures:
    """What the teacher sees in crops, beside the whole images that they are of.

    Attributes:
        kept: views of an image.
        images: those that have a crop in which the teacher sees what it sees in the whole.
        crops: how many they have in all.
        whole_confidence, crop_confidence: mean probability of the teacher's answer, over these
            images and over their crops.
        bytes: of the crops' files.
    """

    kept: int
    images: int
    crops: int
    whole_confidence: float
    crop_confidence: float
    bytes: int


def crop_figures(embeddings: Embeddings, files: Sequence[str]) -> CropFigures:
    """Figures of what `embed` has stored with K > 1 views; memory does not grow with N.

    Args:
        files: names of the crops' files in their folder.
    """
    images = crops = 0
    whole_sum = crop_sum = 0.0
    for start in range(0, len(embeddings), BLOCK):
        rows = slice(start, start + BLOCK)
        there = ~np.isnan(embeddings.crop_boxes[rows, :, 0])
        has = there.any(axis=1)
        whole_sum += _confidence(embeddings.logits[rows][has])
        crop_sum += _confidence(embeddings.crop_logits[rows][there])
        images, crops = images + int(has.sum()), crops + int(there.sum())
    size = sum((embeddings.folder / name).stat().st_size for name in files)
    return CropFigures(
        embeddings.crops,
        images,
        crops,
        round(whole_sum / max(1, images), 4),
        round(crop_sum / max(1, crops), 4),
        size,
    )


def _confidence(logits: np.ndarray) -> float:
    """Sum over logits [n, C] of the probability of the likeliest class."""
    return float(softmax(logits.astype(np.float64), axis=1).max(axis=1, initial=0).sum())
