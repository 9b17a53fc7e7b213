"""Normalisation check: whether the teacher is fed as it was trained, by images without labels.

The first batch norm tells best (`kd3_pipeline.models.norms`). Networks without one are judged by
their answers, which tell less: they can show that another normalisation is better, never that the
configured one is right.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network, device_of
from kd3_pipeline.models.norms import first_divergence, first_norm, is_untrained, mean_divergence
from kd3_pipeline.pixels import normalise

CIFAR10 = (0.4914, 0.4822, 0.4465)
IMAGENET = (0.485, 0.456, 0.406)
NORMALISATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "CIFAR-10": (CIFAR10, (0.247, 0.2435, 0.2616)),
    "CIFAR-10, std 0.2": (CIFAR10, (0.2023, 0.1994, 0.201)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)),
    "ImageNet": (IMAGENET, (0.229, 0.224, 0.225)),
    "MNIST": ((0.1307,) * 3, (0.3081,) * 3),
    "0.5 / 0.5": ((0.5,) * 3, (0.5,) * 3),
    "0.5 / 0.25": ((0.5,) * 3, (0.25,) * 3),
    "none, 0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "none, 0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
    "ImageNet's mean alone": (IMAGENET, (1.0,) * 3),
    "the same, 0 to 255": (IMAGENET, (1 / 255,) * 3),
}
CONFIGURED = "configured"
KNOWN = "the teacher was trained here, with them"
BATCH = 64
MOST = 512  # images for the first batch norm
# Chosen with one public ResNet-20 of CIFAR-10 on nine sets of images, shown on others
# (benchmarks/normalisation.py): with photographs the right one was off by 0.13 at most, a gross
# mistake by 0.37 at least, and the right one at most 1.7 times as far off as the best.
CLEARLY = 2.5
NOISE = 0.01  # of the divergence: what 512 images of the training set itself do not exceed
CLOSE = 0.25
ALARM = 0.15  # what is off by less costs the teacher a point or two of accuracy at most
FEWEST = 64  # images for answers to tell anything
SHARPNESS = 0.5  # of answers that are compared: their mean entropy, of that of even ones
# Chosen with that ResNet-20, its batch norms left out of account, and three small networks with
# layer norms: with images of many classes the right one had 0.95 of the best diversity at least,
# and the best one 0.84 of all there is; with images of one class or two that is 0.14 to 0.86.
# What is near to the configured one costs a teacher little, and moves the answers to few classes
# about as much as a gross mistake does: it is not judged by them.
LESS = 0.85  # of the best diversity is clearly worse
VARIED = 0.8  # what the best has to reach for the images to be of many classes
NEAR_MEAN, NEAR_STD = 0.1, 1.35  # difference, and ratio, that is near
ORDER_RATIO, ORDER_SCORE = 1.3, 3.0  # both have to speak for the other order of colours

Verdict = Literal["fits", "wrong", "unknown"]


@dataclass(frozen=True)
class Measurement:
    """Fit of one normalisation to the teacher.

    Attributes:
        first: divergence of the first batch norm's input from its running statistics; nan without.
        diversity: of the answers, from 0, where all are the same, to 1, where all classes are
            answered alike: entropy of the mean answer less the mean entropy, both by the latter's
            most, after the logits are scaled to one mean entropy; nan where the first batch norm
            judges.
    """

    name: str
    first: float = math.nan
    diversity: float = math.nan


@dataclass(frozen=True)
class NormalisationCheck:
    """Measurements of the configured normalisation, which is the first, and of the known ones.

    Attributes:
        verdict: `fits`, `wrong` or `unknown`, which is no assurance.
        better: name of one that clearly does better than the configured one.
        reason: why it is unknown, or why it fits whatever was measured; empty else.
        divergence: of all batch norms with the configured one, mean; nan without any.
    """

    measurements: list[Measurement]
    verdict: Verdict
    better: str | None = None
    reason: str = ""
    divergence: float = math.nan

    @property
    def warning(self) -> str:
        """One line for the user; empty if nothing is known to be wrong."""
        if self.better is None:
            return ""
        found = next(one for one in self.measurements if one.name == self.better)
        given, (mean, std) = self.measurements[0], NORMALISATIONS[self.better]
        what = (
            f"the diversity of its answers is {given.diversity:.2f}, {found.diversity:.2f}"
            if math.isnan(given.first)
            else f"the first batch norm is off by {given.first:.3g}, {found.first:.3g}"
        )
        return (
            f"teacher.mean and teacher.std do not seem to be those that the teacher was trained"
            f" with: {what} with {self.better} (mean {_triple(mean)}, std {_triple(std)})"
        )

    @property
    def text(self) -> str:
        """The verdict in one line."""
        if self.verdict == "wrong":
            return self.warning
        if self.verdict == "unknown":
            return f"cannot tell whether teacher.mean and std are right: {self.reason}"
        first = self.measurements[0].first
        if self.reason:
            return f"they fit: {self.reason}"
        alike = [
            one.name for one in self.measurements[1:] if one.first + NOISE < 2 * (first + NOISE)
        ]
        near = f"; hardly told apart from {'; '.join(alike)}" if alike else ""
        return f"they fit: the first batch norm is off by {first:.3g}, of {CLOSE:g} at most{near}"

    def table(self) -> str:
        """The measurements as text, one line each."""
        lines = [f"{'normalisation':<22} {'first batch norm':>16} {'diversity':>10}"]
        for one in self.measurements:
            first, diversity = (
                "-" if math.isnan(value) else f"{value:.3g}" for value in (one.first, one.diversity)
            )
            lines.append(f"{one.name:<22} {first:>16} {diversity:>10}")
        return "\n".join(lines)


@dataclass(frozen=True)
class OrderCheck:
    """Whether the network takes its colours in the other order.

    Attributes:
        verdict: `wrong` if so; never `fits`, because many networks hardly mind.
        ratio: divergence of the first batch norm as configured, by that of the other order.
        score: mean difference of confidences by its standard error; above 0 for the other order.
    """

    verdict: Verdict
    ratio: float
    score: float


def sample(total: int) -> np.ndarray:
    """Rows of `total` images for whole passes, int64: from all of a crawl, in order of class.

    So few that these passes take a small part of the time of a pass over all.
    """
    return spread(total, min(512, max(16, total // 300)))


def spread(total: int, most: int = MOST) -> np.ndarray:
    """At most so many rows of `total`, from all over: int64."""
    return np.linspace(0, total - 1, min(total, most)).astype(np.int64)


def check_normalisation(
    network: Network, config: ModelConfig, pixels: np.ndarray, whole: int = 256
) -> NormalisationCheck:
    """Compares the configured mean and std with the known ones.

    Of a teacher that was trained here, with these values, they fit whatever the images say: they
    may be unlike those of its training, which the divergence tells.

    A normalisation is clearly better if the first batch norm's divergence is less than 1/`CLEARLY`
    of the configured one's, which is over `ALARM`. Without batch norms, if its answers are so much
    more diverse that the configured one's have less than `LESS` of that, which wants images of
    most classes.

    Args:
        network: in evaluation mode, on its device; stays as it is.
        pixels: uint8 [N, S, S, 3] of any images of the kind, some hundreds.
        whole: images that may be passed through all of the network, for each normalisation where
            there is no batch norm; fewer than 64 do not judge.
    """
    found = _compared(network, config, pixels, whole)
    if config.known_input and found.verdict != "fits":
        return replace(found, verdict="fits", better=None, reason=KNOWN)
    return found


def _compared(
    network: Network, config: ModelConfig, pixels: np.ndarray, whole: int
) -> NormalisationCheck:
    given = (tuple(config.mean), tuple(config.std))
    configured = [Measurement(CONFIGURED)]
    if network.own_input:
        reason = "the program normalises by itself, and what it does cannot be varied"
        return NormalisationCheck(configured, "unknown", reason=reason)
    if not len(pixels):
        return NormalisationCheck(configured, "unknown", reason="there are no images to ask it")
    device = device_of(network)
    few = torch.from_numpy(pixels[spread(len(pixels), whole)]).to(device)
    norm = first_norm(network, normalise(few[:2], *given))
    known = {name: values for name, values in NORMALISATIONS.items() if not _same(values, given)}
    tried = {CONFIGURED: given, **known}
    if norm is None:
        if len(few) < FEWEST:
            reason = (
                f"no batch norms are seen in it, and {len(few)} images are too few for its answers"
                f" to tell ({FEWEST} at least)"
            )
            return NormalisationCheck(configured, "unknown", reason=reason)
        answers = {name: torch.cat(list(_answers(network, few, v))) for name, v in tried.items()}
        found = [Measurement(k, diversity=_diversity(one)) for k, one in answers.items()]
        return judged(found, near=near_to(given))
    with torch.no_grad(), mean_divergence(network) as layers:
        for batch in few.split(BATCH):
            network(normalise(batch, *given))
    divergence = sum(layers) / len(layers)
    if is_untrained(norm):
        reason = "its batch norms have seen too few images in training, or none"
        return NormalisationCheck(configured, "unknown", reason=reason, divergence=divergence)
    many = torch.from_numpy(pixels[spread(len(pixels))]).to(device)
    measurements = [
        Measurement(name, first_divergence(network, norm, _batches(many, values)))
        for name, values in tried.items()
    ]
    return judged(measurements, divergence)


def check_order(network: Network, config: ModelConfig, pixels: np.ndarray) -> OrderCheck:
    """Compares the order of colours with the other one.

    Args:
        network, pixels: as `check_normalisation` has them; all are passed, twice.
    """
    given = (tuple(config.mean), tuple(config.std))
    images = torch.from_numpy(pixels).to(device_of(network))
    norm = first_norm(network, normalise(images[:2], *given)) if len(pixels) else None
    if norm is None or is_untrained(norm):
        return OrderCheck("unknown", math.nan, math.nan)
    orders = (images, images.flip(3))
    first = [first_divergence(network, norm, _batches(each, given)) for each in orders]
    confidence = [
        torch.cat([part.softmax(1).max(1).values for part in _answers(network, each, given)])
        for each in orders
    ]
    gain = (confidence[1] - confidence[0]).double()
    error = float(gain.std()) / math.sqrt(len(gain))
    score = float(gain.mean()) / error if error > 0 else 0.0
    ratio = (first[0] + NOISE) / (first[1] + NOISE)
    other = ratio > ORDER_RATIO and score > ORDER_SCORE
    return OrderCheck("wrong" if other else "unknown", ratio, score)


def judged(
    measurements: list[Measurement], divergence: float = math.nan, near: Collection[str] = ()
) -> NormalisationCheck:
    """The verdict on the first of the measurements, by the others.

    Args:
        near: names of those that differ too little from the first for answers to tell.
    """
    if math.isnan(measurements[0].first):
        return _by_answers(measurements, near)
    configured, *others = measurements
    best = min(others, key=lambda one: one.first)
    clearly = configured.first + NOISE > CLEARLY * (best.first + NOISE)
    if clearly and configured.first > ALARM:
        return NormalisationCheck(measurements, "wrong", best.name, divergence=divergence)
    if configured.first <= CLOSE:
        return NormalisationCheck(measurements, "fits", divergence=divergence)
    reason = (
        f"the first batch norm is off by {configured.first:.3g}, and with no known mean and std"
        f" clearly less ({best.first:.3g} with {best.name}): either the images are unlike those of"
        " the training, or its mean and std were unusual"
    )
    return NormalisationCheck(measurements, "unknown", reason=reason, divergence=divergence)


def near_to(given: tuple[Sequence[float], Sequence[float]]) -> set[str]:
    """Names of the normalisations that differ little from a mean and a std."""

    def near(values: tuple[Sequence[float], Sequence[float]]) -> bool:
        (means, stds), (mean, std) = values, given
        apart = max(abs(a - b) for a, b in zip(means, mean, strict=True))
        return apart <= NEAR_MEAN and all(
            1 / NEAR_STD <= a / b <= NEAR_STD for a, b in zip(stds, std, strict=True)
        )

    return {name for name, values in NORMALISATIONS.items() if near(values)}


def _by_answers(measurements: list[Measurement], near: Collection[str]) -> NormalisationCheck:
    configured, *others = measurements
    others = [one for one in others if one.name not in near]
    best = max(others, key=lambda one: one.diversity)
    varied = max(best.diversity, configured.diversity) >= VARIED
    if varied and configured.diversity < LESS * best.diversity:
        return NormalisationCheck(measurements, "wrong", best.name)
    reason = "no batch norms are seen in it, and its answers speak for no other ones"
    if not varied:
        reason = "no batch norms are seen in it, and its answers are all for few classes"
    return NormalisationCheck(measurements, "unknown", reason=reason)


def _diversity(logits: Tensor) -> float:
    """As `Measurement` has it.

    Answers are brought to one sharpness first: inputs that are far too large make any network sure
    of all it says.
    """
    even = math.log(logits.shape[1])
    logits = logits / logits.std().clamp(min=1e-12)
    low, high = -12.0, 12.0  # of the logarithm of the scale
    for _ in range(40):
        middle = (low + high) / 2
        answers = (logits * math.exp(middle)).softmax(1)
        low, high = (middle, high) if _entropy(answers) > SHARPNESS * even else (low, middle)
    gained = _entropy(answers.mean(0, keepdim=True)) - _entropy(answers)
    return max(0.0, gained / ((1 - SHARPNESS) * even))


def _entropy(answers: Tensor) -> float:
    """Mean over answers, in nats."""
    return float(-torch.special.xlogy(answers, answers).sum(1).mean())


def _answers(
    network: Network, images: Tensor, values: tuple[Sequence[float], Sequence[float]]
) -> Iterator[Tensor]:
    """Logits [B, C], float64 on the CPU; zeros for an image of which some are no numbers."""
    with torch.no_grad():
        for batch in _batches(images, values):
            found = network(batch).double().cpu()
            yield torch.where(found.isfinite().all(1, keepdim=True), found, 0.0)


def _batches(images: Tensor, values: tuple[Sequence[float], Sequence[float]]) -> Iterator[Tensor]:
    return (normalise(batch, *values) for batch in images.split(BATCH))


def _same(one: tuple[Sequence[float], Sequence[float]], other: tuple) -> bool:
    pairs = zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True)
    return all(abs(a - b) <= 1e-3 * max(abs(a), abs(b)) for a, b in pairs)


def _triple(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
