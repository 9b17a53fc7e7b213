"""Answers of the teacher: which an objective asks for, and how they are written."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.params import Distill

LOGITS_ALONE = ("kd", "dfnd")  # objectives for which the teacher's logits are enough
HALF = torch.finfo(torch.float16).max
LEVELS = 255  # steps of eight bits


def wants_features(section: Distill) -> bool:
    """Tells whether the objective asks the teacher for its features, and makes logits of them.

    Args:
        section: with what its objective fixes.
    """
    return section.objective not in LOGITS_ALONE and section.alignment


@dataclass(frozen=True)
class Form:
    """How an answer is written: one record of `size` bytes for each image and view.

    32 and 16 bits are the numbers themselves. Of 8 bits, a record has its least value and the
    width of a step, both float32, and then how many steps each value lies above the least:

        x ≈ low + step · code, step = (high − low) / 255

    Attributes:
        shape: of an answer: (C,), or (C, H, W) of a map.
        bits: 32, 16 or 8.
    """

    shape: tuple[int, ...]
    bits: int

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return math.prod(self.shape) * self.bits // 8 + (8 if self.bits == 8 else 0)

    def encoded(self, answers: Tensor) -> np.ndarray:
        """Records uint8 [B, size] of finite answers float32 [B, *shape] on the CPU."""
        flat = answers.flatten(1)
        if self.bits == 32:
            return flat.contiguous().view(torch.uint8).numpy()
        if self.bits == 16:
            return flat.half().contiguous().view(torch.uint8).numpy()
        low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
        step = (high - low) / LEVELS
        codes = ((flat - low) / step.clamp(min=torch.finfo(step.dtype).tiny)).round()
        head = torch.cat([low, step], dim=1).view(torch.uint8)
        return torch.cat([head, codes.clamp(0, LEVELS).to(torch.uint8)], dim=1).numpy()

    def decoded(self, records: Tensor) -> Tensor:
        """The answers float32 [B, *shape] of records uint8 [B, size], on their device."""
        shape = (len(records), *self.shape)
        if self.bits > 8:
            kind = torch.float32 if self.bits == 32 else torch.float16
            return records.contiguous().view(kind).float().view(shape)
        low, step = records[:, :8].contiguous().view(torch.float32).split(1, dim=1)
        return (records[:, 8:].float() * step + low).view(shape)

    def holds(self, answers: Tensor) -> Tensor:
        """Which of the answers can be written, bool [B]: 16 bits end at 65,504."""
        most = HALF if self.bits == 16 else math.inf
        return (answers.abs() <= most).flatten(1).all(dim=1)
