"""Moments of what goes into a network's batch norms, beside those of its training.

A batch norm remembers the mean and variance of what went through it in training. Deeper ones
forgive: each norms what the one before it got wrong. So a wrong mean or std of the input shows
best at the first, and only the layers before it have to be passed to see it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.network import device_of

FULL = 5.0  # batches by momentum, after which 0.7% are left of the moments that it was made with


class _Reached(Exception):
    """Ends a forward pass at the first batch norm."""


def norms_of(network: nn.Module) -> list[nn.Module]:
    """Modules that remember moments: batch norms of any kind, frozen ones too."""
    return [
        module
        for module in network.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and isinstance(getattr(module, "running_var", None), Tensor)
    ]


def first_norm(network: nn.Module, images: Tensor) -> nn.Module | None:
    """The batch norm that a forward pass of `images` [B, 3, S, S] meets first; None without one."""
    found: list[nn.Module] = []

    def stop(module: nn.Module, inputs: tuple) -> None:
        found.append(module)
        raise _Reached

    with hooked(norms_of(network), stop):
        _pass(network, images)
    return found[0] if found else None


def norms_met(network: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """The batch norms that a forward pass of `images` [B, 3, S, S] meets, by name, in its order."""
    names = {module: name for name, module in network.named_modules()}
    found: dict[str, nn.Module] = {}

    def note(module: nn.Module, inputs: tuple) -> None:
        found[names[module]] = module

    with hooked(norms_of(network), note):
        _pass(network, images)
    return found


def norms_to_match(network: nn.Module, side: int, parameter: str) -> dict[str, nn.Module]:
    """Batch norms whose moments other images can be given, by name, in the order of a pass.

    Those that have seen too little in training are left out.

    Args:
        network: in evaluation mode.
        side: of its input (pixels).
        parameter: key of params.yaml that asks for it, for the error.

    Raises:
        UserError: there are none.
    """
    met = norms_met(network, torch.zeros(2, 3, side, side, device=device_of(network)))
    if not met:
        raise UserError(
            f"{parameter}: no batch norms are seen in the teacher, and only they remember the"
            " images that it was trained on",
            f"switch {parameter} off",
        )
    trained = {name: norm for name, norm in met.items() if not is_untrained(norm)}
    if not trained:
        raise UserError(
            f"{parameter}: the teacher's {len(met)} batch norms have seen too few images in"
            " training, or none, to remember them",
            f"switch {parameter} off, or take weights that were saved with their running"
            " statistics",
        )
    return trained


def refuse_misfed(verdict: str, said: str, parameter: str) -> None:
    """Ends where the check of the teacher's input says that its moments would mislead.

    With another mean or deviation than the teacher's own all images are off, and what is done to
    bring them near would only make up for that. Images that are unlike those of the training
    (verdict `unknown`) are what `parameter` is for.

    Args:
        verdict, said: of the check of mean and deviation: `fits`, `wrong` or `unknown`, and why.

    Raises:
        UserError: the verdict is `wrong`.
    """
    if verdict == "wrong":
        raise UserError(
            f"{parameter}: {said}",
            f"correct teacher.mean and teacher.std and run `dvc repro teacher embed`, or switch"
            f" {parameter} off",
        )


def is_untrained(norm: Any) -> bool:
    """True for a batch norm that has seen too little in training to remember it."""
    if bool((norm.running_mean == 0).all() and (norm.running_var == 1).all()):
        return True
    # files of old releases lack the count, and then it is 0
    count, momentum = getattr(norm, "num_batches_tracked", None), getattr(norm, "momentum", None)
    return momentum is not None and count is not None and 0 < int(count) * momentum < FULL


def first_divergence(network: nn.Module, norm: nn.Module, batches: Iterable[Tensor]) -> float:
    """Divergence of what goes into `norm`, which `first_norm` found; no layer behind it is passed.

    Args:
        batches: normalised images, [B, 3, S, S] each.
    """
    sums = _Sums(stop=True)
    with hooked([norm], sums.add):
        for images in batches:
            _pass(network, images)
    return sums.divergence(norm)


@contextmanager
def mean_divergence(network: nn.Module) -> Iterator[list[float]]:
    """Divergences of what goes into each batch norm in the passes made meanwhile.

    The list that it yields is filled at the end; it stays empty without batch norms.
    """
    sums: dict[nn.Module, _Sums] = {}

    def add(module: nn.Module, inputs: tuple) -> None:
        sums.setdefault(module, _Sums()).add(module, inputs)

    found: list[float] = []
    with hooked(norms_of(network), add):
        yield found
    found += [one.divergence(norm) for norm, one in sums.items()]


class _Sums:
    """Count, sum and sum of squares of a batch norm's input, by channel."""

    def __init__(self, *, stop: bool = False) -> None:
        self.stop, self.count = stop, 0
        self.total: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())

    def add(self, module: nn.Module, inputs: tuple) -> None:
        x = inputs[0].detach().double()
        over = [axis for axis in range(x.ndim) if axis != 1]
        self.count += x.numel() // x.shape[1]
        self.total = self.total + x.sum(over).cpu()
        self.squares = self.squares + x.square().sum(over).cpu()
        if self.stop:
            raise _Reached

    def divergence(self, norm: Any) -> float:
        """Kullback-Leibler for normal distributions, mean over channels."""
        epsilon = float(getattr(norm, "eps", 1e-5))
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0) + epsilon
        trained_mean = norm.running_mean.double().cpu()
        trained_variance = norm.running_var.double().cpu() + epsilon
        ratio = variance / trained_variance
        shift = (mean - trained_mean).square() / trained_variance
        value = float((0.5 * (ratio - 1 - ratio.log() + shift)).mean())
        return value if math.isfinite(value) else math.inf


def _pass(network: nn.Module, images: Tensor) -> None:
    try:
        with torch.no_grad():
            network(images)
    except _Reached:
        pass


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    """`hook(module, inputs)` is called before each of the modules in the passes made meanwhile."""
    hooks = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()
