"""Refined images: web images whose pixels give the teacher the moments that it remembers.

The running statistics of a teacher's batch norms are all that a checkpoint tells of the images that
it was trained on. A few steps on the pixels bring what web images make of them near to these. What
is refined is trained on; the images as they were stay what galleries, duplicates and traces show.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from kd3_pipeline.console import Advance
from kd3_pipeline.device import autocast, laid_out, memory_format
from kd3_pipeline.embed.pieces import Pieces
from kd3_pipeline.embeddings import REFINED, REFINED_LOGITS
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.models.norms import hooked
from kd3_pipeline.params import Embed
from kd3_pipeline.pixels import centre, normalise, to_device
from kd3_pipeline.pixelstore import Pixels

FIGURES = "refined_figures.npy"  # of each batch: distances before, after, and squared change
AT_ONCE, ON_GPU = 2**20, 2**22  # pixels of images whose maps are kept for the way back
SAVE_EVERY = 5.0  # seconds of work that a kill may cost
HELD_OUT = 0.03  # share of the images, as distill.held_out has it by default

Moments = tuple[Tensor, Tensor]  # mean and variance by channel, [C] each


@dataclass(frozen=True)
class Refined:
    """What became of N refined images.

    Attributes:
        layers: names of the batch norms that were met, in the order of a pass.
        before, after: mean distance of each over all batches, with the stored bytes.
        moved: root of the mean squared change of a value, in deviations of the teacher's input.
    """

    layers: list[str]
    before: list[float]
    after: list[float]
    moved: float


class _Moments(torch.autograd.Function):
    """`moments`, of which the way back is one multiplication and addition an element.

    PyTorch's own var_mean keeps float32 copies for it, and made a step on a CPU 1.6 times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Moments:
        values = x.movedim(1, -1).reshape(-1, x.shape[1]).to(torch.float32, copy=True)
        mean = values.mean(0)
        variance = values.sub_(mean).square_().mean(0)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, by_mean: Tensor, by_variance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = 2 * by_variance / count
        level = by_mean / count - slope * mean
        channels = [1, -1] + [1] * (x.ndim - 2)
        of = [one.to(x.dtype).view(channels) for one in (level, slope)]
        return torch.addcmul(of[0], x, of[1])


def moments(x: Tensor) -> Moments:
    """Mean and variance of each channel of what goes into a batch norm, [B, C] or [B, C, …]."""
    mean, variance = _Moments.apply(x)
    return mean, variance


def joined(parts: Sequence[Moments], counts: Sequence[int]) -> Moments:
    """Moments of a batch from those of its parts of so many images (law of total variance)."""
    shares = [count / sum(counts) for count in counts]
    mean = torch.stack([share * m for share, (m, _) in zip(shares, parts, strict=True)]).sum(0)
    variances = [
        share * (v + (m - mean).square()) for share, (m, v) in zip(shares, parts, strict=True)
    ]
    return mean, torch.stack(variances).sum(0)


def distance(found: Moments, norm: Any) -> Tensor:
    """Distance of a batch's moments from those that a batch norm remembers, a scalar:

    mean over channels of (m − μ)² / (σ² + ε) + log² ((v + ε) / (σ² + ε)), m and v being the mean
    and variance of the batch, μ and σ² the running ones. It is the idea of DeepInversion's
    regulariser, ‖m − μ‖ + ‖v − σ²‖ (Yin et al., "Dreaming to Distill", CVPR 2020), without a scale:
    a channel counts the same whatever its unit.
    """
    mean, variance = found
    epsilon = float(getattr(norm, "eps", 1e-5))
    remembered = norm.running_var + epsilon
    shift = (mean - norm.running_mean).square() / remembered
    return (shift + ((variance + epsilon) / remembered).log().square()).mean()


class Remembering:
    """A teacher that tells the moments of what goes into its batch norms.

    Args:
        network: on `device`, in evaluation mode.
        norms: by name, those that it is asked for.
        side: of its input (pixels). So many large images are passed at once that what they leave
            for the way back fits into memory.
        precision: of convolutions; moments, pooling and classifier are in float32.
    """

    def __init__(
        self,
        network: Network,
        norms: Mapping[str, nn.Module],
        side: int,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.network, self.norms = laid_out(network, memory_format(device)), norms
        self.side, self.device, self.precision = side, device, precision
        self.most = max(1, (AT_ONCE if device.type == "cpu" else ON_GPU) // side**2)
        self.met: list[str] = []  # names of the norms in the last pass, by call
        self._names = {norm: name for name, norm in norms.items()}

    @torch.no_grad()
    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] of normalised images [B, 3, S, S], and the distances [L] of the batch."""
        parts = images.split(self.most)
        logits, found = zip(*map(self._pass, parts), strict=True)
        return torch.cat(logits), self._distances(found, parts)

    def pull(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the mean distance by images [B, 3, S, S], and the distances [L].

        Of parts the moments are those of all together: a first pass finds them, and in a second
        one each part is told what it has in them. So the result is that of one pass.
        """
        parts = [part.requires_grad_() for part in images.detach().split(self.most)]
        if len(parts) == 1:
            distances = self._distances([self._pass(parts[0])[1]], parts)
            return torch.autograd.grad(distances.mean(), parts)[0], distances.detach()
        with torch.no_grad():
            found = [self._pass(part)[1] for part in parts]
        leaves = [[(m.requires_grad_(), v.requires_grad_()) for m, v in part] for part in found]
        distances = self._distances(leaves, parts)
        given = [
            torch.autograd.grad(distances.mean(), _flat(part), retain_graph=True) for part in leaves
        ]
        pulled = [
            torch.autograd.grad(_flat(self._pass(part)[1]), part, by_moments)[0]
            for part, by_moments in zip(parts, given, strict=True)
        ]
        return torch.cat(pulled), distances.detach()

    def _pass(self, images: Tensor) -> tuple[Tensor, list[Moments]]:
        """Logits, and moments by call of a batch norm."""
        found: list[Moments] = []
        self.met = []

        def note(norm: nn.Module, inputs: tuple) -> None:
            self.met.append(self._names[norm])
            found.append(moments(inputs[0]))

        with hooked(self.norms.values(), note):
            with autocast(self.device, self.precision):
                features = self.network.features(images)
            return self.network.classify(pool(features.float())), found

    def _distances(self, found: Sequence[Sequence[Moments]], parts: Sequence[Tensor]) -> Tensor:
        """Distances [L] of the moments of all parts together."""
        counts = [len(part) for part in parts]
        layers = zip(self.met, zip(*found, strict=True), strict=True)
        return torch.stack(
            [distance(joined(layer, counts), self.norms[name]) for name, layer in layers]
        )


def refine_batch(
    teacher: Remembering, images: Tensor, corners: Sequence[tuple[int, int]], section: Embed
) -> tuple[Tensor, Tensor]:
    """Images [B, 3, S0, S0] after a step of Adam for each corner, and the distances [L] before.

    Minimises (1/L) Σ d_l + k · mean (x − x₀)² over the pixels x that were x₀, with the `distance`
    d_l of each of L batch norms. Nothing here waits for the device.

    Args:
        images: normalised as the teacher takes them; stay as they are.
        corners: of the squares that the teacher sees in turn: top and left.
        section: its `refine_rate` is Adam's, its `refine_keep` is k.
    """
    refined = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([refined], section.refine_rate)
    before = torch.zeros(0)
    for step, corner in enumerate(corners):
        rows, columns = (slice(start, start + teacher.side) for start in corner)
        pulled, distances = teacher.pull(refined[:, :, rows, columns])
        before = distances if step == 0 else before
        with torch.no_grad():
            gradient = (refined - images) * (2 * section.refine_keep / images.numel())
            gradient[:, :, rows, columns] += pulled
        refined.grad = gradient
        optimizer.step()
    return refined.detach(), before


def surest(logits: np.ndarray, count: int) -> np.ndarray:
    """Rows of `count` images, int64 and ascending: of each class those with the surest answers.

    Classes are the teacher's answers. Each gives as many, and where one has fewer, the others more.

    Args:
        logits: of the teacher, [N, C].
    """
    scores = softmax(logits.astype(np.float64), axis=1)
    answers, confidence = scores.argmax(axis=1), scores.max(axis=1)
    order = np.lexsort((-confidence, answers))
    firsts = np.searchsorted(answers[order], np.arange(logits.shape[1]))
    place = np.empty(len(order), np.int64)  # among those of its class
    place[order] = np.arange(len(order)) - firsts[answers[order]]
    return np.sort(np.lexsort((-confidence, place))[:count])


def measured(ids: Sequence[str], count: int) -> np.ndarray:
    """Rows of at most `count` images by which agreement is measured, int64 and ascending.

    Of a share of all, which is what `distill.held_out` holds out by default: these go first
    whatever that is, being those of the lowest content hash.
    """
    few = min(count, round(HELD_OUT * len(ids)))
    return np.sort(np.argsort(np.array([int(name[:8], 16) for name in ids]), kind="stable")[:few])


def batch_rows(total: int, size: int) -> list[np.ndarray]:
    """Rows of each batch, int64, of about `size` images from all over a crawl in order of class.

    A batch of one class has other moments than the training set, to which it would be pulled.
    """
    count = max(1, round(total / size))
    return [np.arange(start, total, count) for start in range(count)]


def corners_of(batch: int, stored: int, side: int, steps: int) -> list[tuple[int, int]]:
    """Top and left of the square of `side` in `stored` pixels that the teacher sees at each step.

    The first is the centre. The others are drawn, as crops are in training: all of what is stored
    is trained on, so all of it is refined.
    """
    middle = (stored - side) // 2
    drawn = np.random.default_rng(batch).integers(0, stored - side + 1, (steps - 1, 2))
    return [(middle, middle), *map(tuple, drawn.tolist())]


def refine(
    pixels: Pixels,
    teacher: Remembering,
    config: ModelConfig,
    folder: Path,
    section: Embed,
    advance: Advance,
) -> Refined:
    """Writes `refined.npy` (uint8 [N, S, S, 3]) and `refined_logits.npy` (float32 [N, C]).

    Killed at any moment and called again with the same arguments it goes on behind the last saved
    batch, and what it writes is the same to the byte. Memory does not grow with N.

    Args:
        pixels: as `embed` stored them, uint8 [N, S, S, 3].
        config: of the teacher.
        folder: of these pixels, this teacher and these settings alone.
        section: its `refine`, `refine_rate`, `refine_keep` and `refine_batch` are used.
        advance: called with the number of images, those of earlier calls too.

    Raises:
        UserError: the steps lead beyond all numbers.
        ExternalError: the disk is full or fails, or the device has too little memory.
    """
    batches = batch_rows(len(pixels), section.refine_batch)
    layers = _layers(teacher, pixels, config)
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        REFINED: (np.uint8, tuple(pixels.shape)),
        REFINED_LOGITS: (np.float32, (len(pixels), len(config.class_names))),
        FIGURES: (np.float64, (len(batches), 2 * len(layers) + 1)),
    }
    with Pieces(folder, layout) as work:
        advance(sum(map(len, batches[: work.saved])))
        saved_at = time.monotonic()
        for at in range(work.saved, len(batches)):
            rows = batches[at]
            corners = corners_of(at, pixels.shape[1], teacher.side, section.refine)
            found = _refined(np.array(pixels[rows]), corners, teacher, config, section)
            for name, values in found.items():
                work.arrays[name][at if name == FIGURES else rows] = values
            if at + 1 == len(batches) or time.monotonic() - saved_at > SAVE_EVERY:
                work.save(at + 1)
                saved_at = time.monotonic()
            before, after = np.split(found[FIGURES][:-1], 2)
            advance(len(rows), f"distance {before.mean():.3f} → {after.mean():.3f}")
        figures = np.array(work.arrays[FIGURES]).mean(axis=0)
    before, after = np.split(figures[:-1], 2)
    return Refined(layers, before.tolist(), after.tolist(), float(figures[-1]) ** 0.5)


def seconds_needed(
    pixels: Pixels, teacher: Remembering, config: ModelConfig, section: Embed
) -> float:
    """How long `refine` takes, by one step on its first batch."""
    batches = batch_rows(len(pixels), section.refine_batch)
    images = _normalised(np.array(pixels[batches[0]]), teacher, config)
    images = images[..., : teacher.side, : teacher.side]
    teacher.pull(images[:2])[1].cpu()  # what only the first pass of a device has to do
    started = time.monotonic()
    teacher.pull(images)[1].cpu()
    # the pass that answers at the end has no way back
    return (time.monotonic() - started) * (section.refine + 0.3) * len(batches)


def _layers(teacher: Remembering, pixels: Pixels, config: ModelConfig) -> list[str]:
    """Names of the batch norms that images go through, by call."""
    images = _normalised(np.array(pixels[:2]), teacher, config)
    teacher.answers(images[..., : teacher.side, : teacher.side])
    return list(teacher.met)


def _refined(
    stored: np.ndarray,
    corners: Sequence[tuple[int, int]],
    teacher: Remembering,
    config: ModelConfig,
    section: Embed,
) -> dict[str, np.ndarray]:
    """What is written of a batch uint8 [B, S, S, 3], by file.

    Raises:
        UserError, ExternalError: as `refine`.
    """
    images = _normalised(stored, teacher, config)
    try:
        refined, before = refine_batch(teacher, images, corners, section)
        whole = refined.isfinite().all()
        pixels = to_bytes(refined, config.mean, config.std)
        shown = normalise(centre(pixels, teacher.side), config.mean, config.std)
        logits, after = teacher.answers(shown)
    except torch.OutOfMemoryError:
        raise ExternalError(
            f"embed.refine: a batch of {len(stored)} images takes more memory than the"
            f" {teacher.device.type} device has left",
            "lower embed.refine_batch; the same command goes on with the pass as it is",
        ) from None
    moved = (normalise(pixels, config.mean, config.std) - images).square().mean()
    if not (bool(whole) and bool(logits.isfinite().all())):
        raise UserError(
            "embed.refine leads to pixels that are no numbers, or to such answers",
            f"lower embed.refine_rate, which is {section.refine_rate:g}",
        )
    figures = torch.cat([before, after, moved[None]])
    return {
        REFINED: pixels.cpu().numpy(),
        REFINED_LOGITS: logits.float().cpu().numpy(),
        FIGURES: figures.cpu().numpy(),
    }


def to_bytes(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images [B, 3, S, S] as the nearest pixels, uint8 [B, S, S, 3]."""
    means, stds = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std)
    )
    levels = (images * stds + means).mul_(255).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _normalised(stored: np.ndarray, teacher: Remembering, config: ModelConfig) -> Tensor:
    pixels = to_device(torch.from_numpy(stored), teacher.device)
    return normalise(pixels, config.mean, config.std)


def _flat(pairs: Sequence[Moments]) -> list[Tensor]:
    return [one for pair in pairs for one in pair]
