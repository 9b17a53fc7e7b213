"""The web images that a student learns from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.distill.loader import Resident, Streamed, Where, open_pixels
from pipeline.errors import UserError
from pipeline.pixels import to_device
from pipeline.store import read_table


@dataclass(frozen=True)
class WebImages:
    """Pixels uint8 [N, S, S, 3], the teacher's logits [N, C] for them, and which to train on.

    Attributes:
        train: rows to train on, int64 on the CPU.
        held_out: rows that are never trained on, int64 on the CPU; they measure agreement.
        prior: how much the loss of each image counts, float32 [N] on the device, on average 1;
            those that count 0 are not trained on. None where all count alike.
    """

    ids: list[str]
    pixels: Resident | Streamed
    teacher_logits: Tensor
    train: Tensor
    held_out: Tensor
    prior: Tensor | None = None

    def weights(self, rows: Tensor) -> Tensor | None:
        """`prior` of rows (int64 on the CPU), gathered on the device, which is not waited for."""
        if self.prior is None:
            return None
        return self.prior.index_select(0, to_device(rows, self.prior.device))

    def holding_out(self, share: float) -> "WebImages":
        """The same images with at least `share` of them held out; none of these is released."""
        train, held = _split(self.ids, share, self.prior)
        out = set(self.held_out.tolist())
        if not out.issubset(held.tolist()):
            raise ValueError(f"{share} holds out fewer images than now")
        return replace(self, train=train, held_out=held)


def load_web_images(
    folder: Path,
    held_out: float,
    device: torch.device,
    where: Where = "auto",
    off_topic_weight: float = 0.0,
    skip_redundant: bool = False,
) -> WebImages:
    """Reads the output of `embed`.

    An image is held out by its content alone, so it stays so when others are crawled again.

    Args:
        off_topic_weight: w in an image's prior weight 1 − w × `off_topic`.
        skip_redundant: the prior weight of images marked `redundant` is 0.

    Raises:
        UserError: a file is missing, or they do not belong together; or `embed` has left no
            score that is asked for.
    """
    images = read_table(folder / "images.parquet")
    ids = images["id"].to_pylist()
    pixels = open_pixels(folder / "pixels.npy", device, where)
    logits = _tensor(folder / "logits.npy").to(device)
    if not len(pixels) == len(logits) == len(ids):
        raise UserError(f"the files in {folder} differ in length", "run `dvc repro embed`")

    def score(column: str, parameter: str) -> Tensor:
        if column not in images.column_names:
            raise UserError(
                f"{folder / 'images.parquet'} has no column '{column}'",
                f"set {parameter} and run `dvc repro embed`",
            )
        return torch.from_numpy(images[column].to_numpy().astype(np.float32))

    prior = None
    if off_topic_weight or skip_redundant:
        prior = torch.ones(len(ids))
        if off_topic_weight:
            prior -= off_topic_weight * score("off_topic", "embed.off_topic")
        if skip_redundant:
            prior *= 1 - score("redundant", "embed.redundant")
    train, held = _split(ids, held_out, prior)
    if prior is not None:
        # relative to their mean, so that a learning rate means what it does without them
        prior = (prior / prior[train].mean()).to(device)
    return WebImages(ids, pixels, logits, train, held, prior)


def _split(ids: list[str], held_out: float, prior: Tensor | None) -> tuple[Tensor, Tensor]:
    out = torch.tensor([int(name[:8], 16) / 2**32 < held_out for name in ids], dtype=torch.bool)
    counts = torch.ones_like(out) if prior is None else (prior > 0).cpu()
    return (counts & ~out).nonzero().flatten(), out.nonzero().flatten()


def _tensor(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}", "run `dvc repro embed`") from None
