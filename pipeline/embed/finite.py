"""Finite checks of what the teacher says of each image, and the dtype that its features fit in."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.embed.batches import Batch
from kd3_pipeline.embeddings import FEATURES
from kd3_pipeline.errors import UserError

FITS, TOO_WIDE, FEATURES_WRONG, LOGITS_WRONG = range(4)
NAMES = {FEATURES_WRONG: "features", LOGITS_WRONG: "logits"}
LARGEST, SMALLEST = 65504.0, 2.0**-14  # of float16; what is smaller loses digits
NAMED = 10  # images that an error tells one by one
ENOUGH = 100  # of them, after which a teacher is asked no more

Float = type[np.float16] | type[np.float32]


class TooWide(Exception):
    """Features that float16 does not hold, after `done` images of this call."""

    def __init__(self, done: int) -> None:
        super().__init__(done)
        self.done = done


def judge(pooled: Tensor, logits: Tensor) -> Tensor:
    """What is wrong with each of B images, if anything: uint8 [B], on the device.

    `TOO_WIDE` are features of which float16 would make an infinity, or lose the digits of all.

    Args:
        pooled: float32 [B, D]; `logits`: float32 [B, C].
    """
    peak = pooled.abs().amax(dim=1)
    narrow = (peak <= LARGEST) & ((peak == 0) | (peak >= SMALLEST))
    found = torch.where(narrow, FITS, TOO_WIDE)
    found = torch.where(logits.isfinite().all(dim=1), found, LOGITS_WRONG)
    # NaN is carried by a maximum, and so is an infinity
    return torch.where(peak.isfinite(), found, FEATURES_WRONG).to(torch.uint8)


def started_with(folder: Path) -> Float:
    """The dtype of the features that an interrupted pass has begun with in `folder`."""
    try:
        with (folder / FEATURES).open("rb") as file:  # which is shorter than it says
            np.lib.format.read_magic(file)
            _, _, kind = np.lib.format.read_array_header_1_0(file)
    except (OSError, ValueError):
        return np.float16
    return np.float32 if kind == np.float32 else np.float16


@dataclass
class Strays:
    """The images for which the teacher's answer is not finite, as they are found."""

    seen: int = 0  # images of all kinds
    found: list[str] = field(default_factory=list)

    def add(self, batch: Batch, verdicts: np.ndarray) -> None:
        """Takes note of what `judge` said of a batch."""
        self.seen += len(verdicts)
        for place in np.flatnonzero(verdicts >= FEATURES_WRONG).tolist():
            kind = NAMES[int(verdicts[place])]
            row, name = batch.rows[place], batch.ids[place]
            self.found.append(f"{batch.path}: row {row} ({name}): {kind}")

    def error(self, ended: bool) -> UserError:
        """Says which they are, and what to do.

        Args:
            ended: whether the teacher was asked for all images.
        """
        count, seen = len(self.found), f"{self.seen:,} images"
        lines = [
            f"the teacher's answer is not finite for {count:,} of"
            f" {seen if ended else f'the first {seen}, and it was asked no more'}:",
            *self.found[:NAMED],
        ]
        if count > NAMED:
            lines.append(f"and {count - NAMED:,} more")
        advice = (
            "its weights, or teacher.mean and teacher.std, are not those that it was trained with:"
            " correct them and run `dvc repro teacher`"
        )
        return UserError("\n".join([*lines, advice]))
