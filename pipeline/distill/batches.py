"""Batches of an epoch: shuffled or drawn, refilled, and equal for all processes."""

import math

import torch
from torch import Tensor

from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.views import draws
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import TrainingError
from kd3_pipeline.params import Distill


def shuffled_batches(
    web: WebImages, rows: Tensor, epoch_steps: int, section: Distill, epoch: int, world: World
) -> list[Tensor]:
    """Shuffled batches of `rows`; refilled, they are as many as if all images were kept.

    Where the images have `chances`, as many are drawn by them: steps and their cost are the same.

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
    chances = web.chances(rows)
    if chances is None:
        rounds = math.ceil(wanted / len(rows))
        turns = [torch.randperm(len(rows), generator=generator) for _ in range(rounds)]
        order = rows[torch.cat(turns)]
    else:
        order = rows[drawn(chances, wanted, generator)]
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


def drawn(chances: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Places drawn with replacement by their `chances` float64 [N]: int64 [count], in random order.

    Systematic resampling (Kitagawa, 1996): a comb of `count` teeth, equally far apart, on the
    chances laid end to end. So a place whose share of the draws is s comes ⌊s⌋ or ⌈s⌉ times, which
    varies less than draws of their own, and with equal chances every place comes once.
    """
    order = torch.randperm(len(chances), generator=generator)
    ends = chances[order].cumsum(dim=0)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    teeth = (torch.arange(count, dtype=torch.float64) + start) * (ends[-1] / count)
    # rounding may put the last tooth behind the end
    found = torch.searchsorted(ends, teeth, right=True).clamp(max=len(chances) - 1)
    return order[found[torch.randperm(count, generator=generator)]]
