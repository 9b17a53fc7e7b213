"""Exponential moving average (EMA) of what is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

EXPONENT = 16.97  # γ of an average whose profile is a twentieth of the run wide (σ_rel = 0.05)


def decay_of(decay: float | Literal["auto"], step: int) -> float:
    """Weight of the past after step `step`, which counts from 0.

    A number β is smaller in the first steps, min(β, (1 + t) / (10 + t)). `auto` is
    β_t = (1 − 1/t)^(γ + 1) with t = `step` + 1, whose average weighs the weights of step i by i^γ:
    its memory is the same share of the steps behind, however many there are (Karras et al.,
    "Analyzing and Improving the Training Dynamics of Diffusion Models", CVPR 2024).
    """
    if decay == "auto":
        return (1 - 1 / (step + 1)) ** (EXPONENT + 1)
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """Averages a module's parameters and running statistics after every step.

    Args:
        decay: as `decay_of` takes it.
    """

    def __init__(self, module: nn.Module, decay: float | Literal["auto"]) -> None:
        self._decay = decay
        self._live = [tensor for tensor in _state(module) if tensor.is_floating_point()]
        self.tensors = [tensor.detach().clone() for tensor in self._live]

    def update(self, step: int) -> None:
        """Takes in the weights after step `step`, which counts from 0."""
        get_ema_multi_avg_fn(decay_of(self._decay, step))(self.tensors, self._live, None)

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
