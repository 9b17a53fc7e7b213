"""Processes of torchrun that share one distillation and give the result of one process.

Every process prepares the whole batch, which costs little, and passes its share of it through the
networks. Batch norm and the contrast term see all shares. Machines need no shared disk: what was
saved is read by the first process alone, and handed to the others.
"""

import io
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from kd3_pipeline.errors import ExternalError, PipelineError, UserError, first_line

Value = TypeVar("Value")
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class World:
    """This process among all of them, as torch.distributed counts: its rank, and how many.

    Attributes:
        first_here: it does what is done once on a machine.
        begun: it has begun the group itself, and no launcher.
    """

    rank: int = 0
    size: int = 1
    first_here: bool = field(default=True, compare=False)
    begun: bool = field(default=False, compare=False)

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

    def all_of(self, value: Value) -> list[Value]:
        """The values of all processes in order; they are pickled."""
        found = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(found, value)
        return found

    def of_first(self, read: Callable[[], Any], device: torch.device) -> Any:
        """What `read` gives in the first process, for all of them.

        Args:
            read: gives tensors and plain values, as a checkpoint has them.
            device: where tensors come to lie.

        Raises:
            PipelineError: in all processes what it raises in the first.
        """
        value = None
        with self.ending_all():
            if self.rank == 0:
                value = read()
        if self.size == 1:
            return value
        packed = io.BytesIO()
        torch.save(value, packed)
        content = [packed.getvalue()]
        distributed.broadcast_object_list(content)
        if self.rank == 0:
            return value
        return torch.load(io.BytesIO(content[0]), map_location=device, weights_only=True)

    @contextmanager
    def ending_all(self) -> Iterator[None]:
        """An error inside in one process ends all, which would else wait for it.

        Inside no process may wait for another.

        Raises:
            PipelineError: in a process without an error of its own, that of another.
        """
        if self.size == 1:
            yield
            return
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        ended = self.all_of(None if failed is None else _told(failed, self.rank))
        if failed is not None:
            raise failed
        for of_another in filter(None, ended):
            raise of_another


ALONE = World()


def join(device: str) -> World:
    """Joins the processes of torchrun, or those of a launcher that has begun a group.

    Alone without either.

    Args:
        device: `distill.device`.
    """
    first_here = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size(), first_here)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # what is no tensor goes by gloo everywhere, so that a machine without a GPU can be told of
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    return World(distributed.get_rank(), size, first_here, begun=True)


def leave(world: World) -> None:
    """Ends what `join` began."""
    if world.begun:
        distributed.destroy_process_group()


def check_batch(batch_size: int, world: World) -> None:
    """Raises a UserError where the batch cannot be shared equally."""
    if batch_size % world.size:
        raise UserError(
            f"distill.batch_size {batch_size} cannot be shared equally by {world.size} processes",
            f"use a multiple of {world.size}",
        )


def agree(world: World, about: Mapping[str, Any]) -> None:
    """Returns in all processes, or in none.

    Args:
        about: all that the result follows from, by name: plain values, and SHA-256 in hex. What
            one of two processes does not know is not compared.

    Raises:
        UserError: it is not the same in all processes; the error names what differs.
    """
    (home, ours), *others = world.all_of((socket.gethostname(), dict(about)))
    for rank, (host, theirs) in enumerate(others, 1):
        both = sorted(ours.keys() & theirs.keys())
        different = [
            _apart(name, theirs[name], ours[name]) for name in both if theirs[name] != ours[name]
        ]
        if different:
            raise UserError(
                f"distill: process {rank} (on {host}) is not of the run of process 0 (on {home}):"
                f" {', '.join(different)}",
                "give all machines the same project, with data/embed and models/teacher",
            )


def _apart(name: str, theirs: Any, ours: Any) -> str:
    values = [str(theirs), str(ours)]
    if any(DIGEST.fullmatch(value) for value in values):
        return f"{name} has another content"
    return f"{name} is {values[0]} in place of {values[1]}"


def _told(error: Exception, rank: int) -> PipelineError:
    """What the other processes are told of an error of this one."""
    place = f"process {rank} (on {socket.gethostname()})"
    if isinstance(error, PipelineError):
        kind = ExternalError if isinstance(error, ExternalError) else UserError
        return kind(f"{place}: {error}")
    return ExternalError(f"{place}: {type(error).__name__}: {first_line(error)}")


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
