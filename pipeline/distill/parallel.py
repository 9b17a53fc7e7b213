"""Processes of torchrun that share one distillation and give the result of one process.

Every process prepares the whole batch, which costs little, and passes its share of it through the
networks. Batch norm and the contrast term see all shares.
"""

import os
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, distributed, nn

from kd3_pipeline.errors import UserError


@dataclass(frozen=True)
class World:
    """This process among all of them, as torch.distributed counts: its rank, and how many."""

    rank: int = 0
    size: int = 1

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch whose length is a multiple of `size`."""
        return batch if self.size == 1 else batch.chunk(self.size)[self.rank]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes in order, with gradient; all hold equally many."""
        if self.size == 1:
            return rows
        everything = rows.new_zeros(self.size, *rows.shape)
        placed = everything.index_copy(
            0, torch.tensor([self.rank], device=rows.device), rows.unsqueeze(0)
        )
        return _Sum.apply(placed).flatten(0, 1)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, with gradient."""
        return values if self.size == 1 else _Sum.apply(values)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes, with gradient."""
        return self.sum(value) / self.size

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.size > 1:
            distributed.barrier()


ALONE = World()


def join(device: torch.device, batch_size: int) -> World:
    """Joins the processes that torchrun started; alone without it.

    Raises:
        UserError: the batch cannot be shared equally.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if batch_size % size:
        raise UserError(
            f"distill.batch_size {batch_size} cannot be shared equally by {size} processes",
            f"use a multiple of {size}",
        )
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(distributed.get_rank(), size)


def leave(world: World) -> None:
    """Ends what `join` began."""
    if world.size > 1:
        distributed.destroy_process_group()


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the shares of all processes, on any backend, the CPU's too."""

    world: World = ALONE

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = wide.numel() // wide.shape[1] * self.world.size
        mean = self.world.mean(wide.mean(dim=(0, 2, 3)))
        centred = wide - mean.view(1, -1, 1, 1)
        variance = self.world.mean(centred.square().mean(dim=(0, 2, 3)))
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def share_batch_norm(module: nn.Module, world: World) -> None:
    """Makes every batch norm in `module` see all processes, in place."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d and world.size > 1:
            # same parameters, buffers and state-dict keys: only forward differs
            norm.__class__ = SharedBatchNorm
            cast(SharedBatchNorm, norm).world = world


def unshare_batch_norm(module: nn.Module) -> None:
    """Undoes `share_batch_norm`."""
    for norm in module.modules():
        if type(norm) is SharedBatchNorm:
            norm.__class__ = nn.BatchNorm2d  # type: ignore[assignment]  # as it was made
            del norm.world


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total
