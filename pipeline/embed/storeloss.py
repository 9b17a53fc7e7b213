"""Loss of a pixel store: what the teacher says of stored images, beside the images as they were."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kd3_pipeline.console import Advance
from kd3_pipeline.embed.batches import KeptImage, Reading, batches
from kd3_pipeline.embed.passing import TeacherPass
from kd3_pipeline.embeddings import STORES
from kd3_pipeline.errors import UserError

BATCH = 8
MOST, LEAST, EVERY = 512, 64, 20  # images looked at: a twentieth


@dataclass(frozen=True)
class StoreLoss:
    """Of `images` that were looked at again without their JPEGs.

    Attributes:
        same_class: share for which the teacher says the same.
        logit_change: mean absolute difference of a logit, as a share of the logits' deviation.
        bytes_an_image: of the store, over all images.
    """

    images: int
    same_class: float
    logit_change: float
    bytes_an_image: int


def looked_at(total: int) -> np.ndarray:
    """Rows of `total` images that are looked at again, evenly spread: int64."""
    count = min(total, MOST, max(LEAST, total // EVERY))
    return np.linspace(0, total - 1, count).astype(np.int64)


def store_bytes(folder: Path) -> int:
    """Bytes of the files of the JPEGs."""
    return sum((folder / name).stat().st_size for name in STORES["jpeg"])


def store_loss(
    kept: Sequence[KeptImage],
    crawl: Path,
    load: Reading,
    teacher: TeacherPass,
    logits: np.ndarray,
    size: int,
    advance: Advance,
) -> StoreLoss:
    """Passes images as they were before they were stored, beside the `logits` of the stored ones.

    Args:
        kept: all images, in the order of `logits` float32 [N, C].
        load: how they were read for the store, of `size` bytes.
        advance: called for each of `looked_at`.

    Raises:
        UserError: an image can no longer be read.
    """
    rows = looked_at(len(kept))
    plain, found = replace(load, quality=0, crops=1), list[np.ndarray]()
    for batch in batches([kept[row] for row in rows.tolist()], crawl, BATCH):
        decoded = plain(batch)
        if decoded.problems:
            raise UserError("\n".join(decoded.problems), "run `dvc repro dedup`")
        found.append(teacher(decoded.shown)[1].cpu().numpy())
        advance(len(batch.rows))
    before, after = np.concatenate(found), np.asarray(logits[rows])
    spread = float(before.std())
    return StoreLoss(
        len(rows),
        round(float((before.argmax(axis=1) == after.argmax(axis=1)).mean()), 4),
        round(float(np.abs(before - after).mean()) / spread, 4) if spread else 0.0,
        round(size / len(kept)),
    )
