"""Batches of an epoch: shuffled, refilled, and equal for all processes."""

import math

import torch
from torch import Tensor

from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.views import draws
from kd3_pipeline.errors import TrainingError
from kd3_pipeline.params import Distill


def shuffled_batches(
    rows: Tensor, epoch_steps: int, section: Distill, epoch: int, world: World
) -> list[Tensor]:
    """Shuffled batches of `rows`; refilled, they are as many as if all images were kept.

    Of the last batch, which may be short, every process gets equally many images. One image alone
    is left out, because a batch norm needs two.

    Args:
        rows: int64, the images of the epoch, on the CPU.
        epoch_steps: batches if all images were kept.

    Raises:
        TrainingError: fewer images than processes.
    """
    generator = draws(section.seed, epoch)
    wanted = epoch_steps * section.batch_size if section.refill else len(rows)
    rounds = math.ceil(wanted / len(rows))
    order = torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)])
    batches = [
        batch[: len(batch) - len(batch) % world.size]
        for batch in order[:wanted].split(section.batch_size)
    ]
    batches = [batch for batch in batches if len(batch) > 1]
    if not batches:
        raise TrainingError(
            f"distill: {len(rows)} images selected in epoch {epoch} for {world.size} processes",
            "start fewer, or set distill.refill",
        )
    return batches
