"""The web images that a student learns from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.distill.loader import Resident, Streamed, Where, open_pixels
from pipeline.errors import UserError
from pipeline.store import read_table


@dataclass(frozen=True)
class WebImages:
    """Pixels uint8 [N, S, S, 3], the teacher's logits [N, C] for them, and which to train on.

    Attributes:
        train: rows to train on, int64 on the CPU.
        held_out: rows that are never trained on, int64 on the CPU; they measure agreement.
    """

    ids: list[str]
    pixels: Resident | Streamed
    teacher_logits: Tensor
    train: Tensor
    held_out: Tensor

    def holding_out(self, share: float) -> "WebImages":
        """The same images with at least `share` of them held out; none of these is released."""
        train, held = _split(self.ids, share)
        out = set(self.held_out.tolist())
        if not out.issubset(held.tolist()):
            raise ValueError(f"{share} holds out fewer images than now")
        return replace(self, train=train, held_out=held)


def load_web_images(
    folder: Path, held_out: float, device: torch.device, where: Where = "auto"
) -> WebImages:
    """Reads the output of `embed`.

    An image is held out by its content alone, so it stays so when others are crawled again.

    Raises:
        UserError: a file is missing, or they do not belong together.
    """
    ids = read_table(folder / "images.parquet", ["id"])["id"].to_pylist()
    pixels = open_pixels(folder / "pixels.npy", device, where)
    logits = _tensor(folder / "logits.npy").to(device)
    if not len(pixels) == len(logits) == len(ids):
        raise UserError(f"the files in {folder} differ in length", "run `dvc repro embed`")
    train, held = _split(ids, held_out)
    return WebImages(ids, pixels, logits, train, held)


def _split(ids: list[str], held_out: float) -> tuple[Tensor, Tensor]:
    out = np.array([int(name[:8], 16) / 2**32 < held_out for name in ids], dtype=bool)
    return torch.from_numpy(np.flatnonzero(~out)), torch.from_numpy(np.flatnonzero(out))


def _tensor(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}", "run `dvc repro embed`") from None
