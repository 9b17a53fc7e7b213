"""Normalisation check: whether the teacher is fed as it was trained, by images without labels.

Batch norms remember the mean and variance of what went through them in training. Fed in the same
way, even images of another kind come close; another mean and std of the input moves every layer.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.checkpoint import ModelConfig
from pipeline.models.network import Network, device_of
from pipeline.pixels import normalise

CIFAR10 = (0.4914, 0.4822, 0.4465)
NORMALISATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "CIFAR-10": (CIFAR10, (0.247, 0.2435, 0.2616)),
    "CIFAR-10, std 0.2": (CIFAR10, (0.2023, 0.1994, 0.201)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0.5 / 0.5": ((0.5,) * 3, (0.5,) * 3),
    "0.5 / 0.25": ((0.5,) * 3, (0.25,) * 3),
    "none, 0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "none, 0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
}
CONFIGURED = "configured"
BATCH = 64
# Measured with two ResNet-20, each as if trained under every normalisation, on three sets of real
# images: the right one was at most 2.0 times as far off as the best.
CLEARLY = 2.5
NOISE = 0.01  # of the divergence: what 512 images of the training set itself do not exceed
CONFIDENT = 0.05  # without batch norms: how much more confident is clearly better
COLLAPSED = 0.5  # and a class with so large a share of the images is no sign of understanding


@dataclass(frozen=True)
class Measurement:
    """Fit of one normalisation to the teacher.

    Attributes:
        divergence: of the inputs of batch norms from their running statistics: Kullback-Leibler
            for normal distributions, mean over channels and then layers; nan without batch norms.
        confidence: mean of the highest probability.
        share: of the images in the most predicted class.
    """

    name: str
    divergence: float
    confidence: float
    share: float


@dataclass(frozen=True)
class NormalisationCheck:
    """Measurements of the configured normalisation, which is the first, and of the known ones.

    Attributes:
        better: name of one that clearly does better than the configured one.
        by_confidence: the network has no batch norms to judge by.
    """

    measurements: list[Measurement]
    better: str | None
    by_confidence: bool

    @property
    def warning(self) -> str:
        """One line for the user; empty if nothing is wrong."""
        if self.better is None:
            return ""
        found = next(one for one in self.measurements if one.name == self.better)
        given, (mean, std) = self.measurements[0], NORMALISATIONS[self.better]
        what = (
            f"mean confidence {given.confidence:.2f}, {found.confidence:.2f}"
            if self.by_confidence
            else f"batch norms are off by {given.divergence:.3g}, {found.divergence:.3g}"
        )
        return (
            f"teacher.mean and teacher.std do not seem to be those that the teacher was trained"
            f" with: {what} with {self.better} (mean {_triple(mean)}, std {_triple(std)})"
        )

    def table(self) -> str:
        """The measurements as text, one line each."""
        lines = [f"{'normalisation':<18} {'batch norms':>12} {'confidence':>11} {'top class':>10}"]
        for one in self.measurements:
            off = "-" if math.isnan(one.divergence) else f"{one.divergence:.3g}"
            lines.append(f"{one.name:<18} {off:>12} {one.confidence:>11.3f} {one.share:>10.1%}")
        if self.by_confidence:
            lines.append("The network has no batch norms: judged by confidence alone.")
        return "\n".join(lines)


def sample(total: int) -> np.ndarray:
    """Rows of `total` images to check with, int64: from all of a crawl, which is in order of class.

    So few that the check, which passes them once for each normalisation, takes about a tenth of
    the time of a pass over all. Of the 512 that `NOISE` was measured with, 16 did as well at
    telling a wrong normalisation from the right one.
    """
    count = min(total, 512, max(16, total // 300))
    return np.linspace(0, total - 1, count).astype(np.int64)


def check_normalisation(
    network: Network, config: ModelConfig, pixels: np.ndarray
) -> NormalisationCheck:
    """Compares the configured mean and std with the known ones.

    A normalisation is clearly better if its divergence is less than 1/`CLEARLY` of the configured
    one's. Without batch norms it has to be more confident by `CONFIDENT`, which says less: inputs
    that are far too large make any network confident, so it must not see one class everywhere.

    Args:
        network: in evaluation mode, on its device.
        pixels: uint8 [N, S, S, 3] of any images of the kind, some hundreds.
    """
    given = (tuple(config.mean), tuple(config.std))
    known = {name: values for name, values in NORMALISATIONS.items() if not _same(values, given)}
    if network.own_input:  # another mean and std would not reach it
        known = {}
    measurements = [
        _measure(network, name, torch.from_numpy(pixels), *values)
        for name, values in {CONFIGURED: given, **known}.items()
    ]
    configured, others = measurements[0], measurements[1:]
    if by_confidence := math.isnan(configured.divergence):
        sound = [one for one in others if one.share < COLLAPSED]
        best = max(sound, key=lambda one: one.confidence, default=configured)
        collapsed = configured.share >= COLLAPSED
        clearly = collapsed or best.confidence > configured.confidence + CONFIDENT
    else:
        best = min(others, key=lambda one: one.divergence)
        clearly = configured.divergence + NOISE > CLEARLY * (best.divergence + NOISE)
    better = best.name if clearly and best is not configured else None
    return NormalisationCheck(measurements, better, by_confidence)


def _measure(
    network: Network, name: str, pixels: Tensor, mean: Sequence[float], std: Sequence[float]
) -> Measurement:
    device = device_of(network)
    confidence, classes = 0.0, []
    with torch.no_grad(), _moments(network) as moments:
        for batch in pixels.split(BATCH):
            logits = network(normalise(batch.to(device), mean, std)).float()
            top, chosen = logits.softmax(dim=1).max(dim=1)
            confidence += float(top.nan_to_num().sum())  # of one that is far off
            classes.append(chosen)
    share = torch.cat(classes).bincount().max() / len(pixels)
    layers = [_divergence(norm, *sums) for norm, sums in moments.items()]
    divergence = sum(layers) / len(layers) if layers else math.nan
    return Measurement(name, divergence, confidence / len(pixels), float(share))


@contextmanager
def _moments(network: Network) -> Iterator[dict[nn.BatchNorm2d, list[Tensor]]]:
    """Collects count, sum and sum of squares [C] of what goes into each batch norm."""
    moments: dict[nn.BatchNorm2d, list[Tensor]] = {}

    def add(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        x, over = inputs[0].detach().float(), (0, 2, 3)
        count = torch.tensor(x.numel() / x.shape[1])
        sums = [count, *(sums.cpu().double() for sums in (x.sum(dim=over), (x * x).sum(dim=over)))]
        known = moments.get(norm)
        moments[norm] = sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]

    hooks = [
        module.register_forward_pre_hook(add)
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    ]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()


def _divergence(norm: nn.BatchNorm2d, count: Tensor, total: Tensor, squares: Tensor) -> float:
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0) + norm.eps
    assert norm.running_mean is not None and norm.running_var is not None  # see `_moments`
    running_mean = norm.running_mean.double().cpu()
    running_variance = norm.running_var.double().cpu() + norm.eps
    ratio = variance / running_variance
    shift = (mean - running_mean).square() / running_variance
    value = float((0.5 * (ratio - 1 - ratio.log() + shift)).mean())
    return value if math.isfinite(value) else math.inf


def _same(one: tuple[Sequence[float], Sequence[float]], other: tuple) -> bool:
    pairs = zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True)
    return all(abs(a - b) <= 1e-3 * max(abs(a), abs(b)) for a, b in pairs)


def _triple(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
