"""The web images that a student learns from, resident on the device."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.store import read_table


@dataclass(frozen=True)
class WebImages:
    """Pixels uint8 [N, S, S, 3], the teacher's logits [N, C] for them, and which to train on.

    Attributes:
        train: rows to train on, int64.
        held_out: rows that are never trained on, int64; they measure agreement.
    """

    ids: list[str]
    pixels: Tensor
    teacher_logits: Tensor
    train: Tensor
    held_out: Tensor


def load_web_images(folder: Path, held_out: float, device: torch.device) -> WebImages:
    """Reads the output of `embed`.

    An image is held out by its content alone, so it stays so when others are crawled again.

    Raises:
        UserError: a file is missing, or they do not belong together.
    """
    ids = read_table(folder / "images.parquet", ["id"])["id"].to_pylist()
    arrays = [_array(folder / name) for name in ("pixels.npy", "logits.npy")]
    if any(len(array) != len(ids) for array in arrays):
        raise UserError(f"the files in {folder} differ in length", "run `dvc repro embed`")
    out = np.array([int(name[:8], 16) / 2**32 < held_out for name in ids])
    pixels, logits = (torch.from_numpy(np.array(array)).to(device) for array in arrays)
    train, held = (torch.from_numpy(np.flatnonzero(mask)).to(device) for mask in (~out, out))
    return WebImages(ids, pixels, logits, train, held)


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "run `dvc repro embed`") from None
