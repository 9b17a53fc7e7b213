"""Exponential moving average (EMA) of what is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Averages a module's parameters and running statistics after every step.

    Args:
        decay: weight of the past; smaller in the first steps, min(`decay`, (1 + t) / (10 + t)).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = [tensor for tensor in _state(module) if tensor.is_floating_point()]
        self.tensors = [tensor.detach().clone() for tensor in self._live]

    def update(self, step: int) -> None:
        """Takes in the weights after step `step`, which counts from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self.tensors, self._live, None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average inside, and its own weights again afterwards."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def load(self, tensors: list[Tensor]) -> None:
        """Takes over the `tensors` of an earlier average."""
        for own, saved in zip(self.tensors, tensors, strict=True):
            own.copy_(saved)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average and the module's own weights."""
        for live, average in zip(self._live, self.tensors, strict=True):
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
