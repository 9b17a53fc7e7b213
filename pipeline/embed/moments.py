"""Moments of each image at the teacher's batch norms, and weights that make them the remembered.

A batch norm remembers mean and variance of what went through it in training: the only trace of the
original images that a checkpoint carries. Web images that are drawn by these weights have nearly
the same moments there, so what the student sees is nearer to the original domain (covariate shift
by moment matching; Gretton et al., "Covariate Shift by Kernel Mean Matching", 2009, with the
teacher's own moments in place of a kernel's).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd3_pipeline.console import Advance
from kd3_pipeline.device import autocast
from kd3_pipeline.embed.arrays import ArrayWriter
from kd3_pipeline.embed.balance import Balance, balance
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network, device_of
from kd3_pipeline.models.norms import hooked
from kd3_pipeline.pixels import AT_ONCE, normalise, to_device
from kd3_pipeline.pixelstore import Pixels

MOMENTS = "moments.npy"
DIRECTIONS = 512  # numbers that are kept of an image
SAMPLE = 1024  # images that deviations and directions are taken from
FOR_EACH = 8  # images for each direction, or few images could be given any moments
STILL = 0.01  # of its usual size: what varies less from image to image no weights can move
PIECE = 64  # batches after which an interrupted pass goes on
MEASURED = (1024, 4096)  # fewest and most images drawn to measure the moments by layer: a tenth


@dataclass(frozen=True)
class Basis:
    """How D moments of an image become K numbers.

    Attributes:
        scale: 1 / deviation over images, float32 [D] on the device; 0 for what hardly varies.
        directions: float32 [D, K] on the device, orthonormal: those of most variance, over √D.
    """

    scale: Tensor
    directions: Tensor

    @property
    def left_out(self) -> int:
        """Moments that hardly vary from image to image."""
        return int((self.scale == 0).sum())


class MomentPass:
    """Passes of the teacher as it is, batch norms unfolded, that give the moments of images.

    Args:
        network: in evaluation mode, on its device; stays as it is.
        norms: of `norms_to_match`.
        precision: of convolutions.
    """

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        precision: torch.dtype,
        norms: Mapping[str, nn.Module],
    ) -> None:
        self.network, self.config, self.precision = network, config, precision
        self.norms, self.device = norms, device_of(network)
        means = [_buffer(norm, "running_mean") for norm in norms.values()]
        variances = [_buffer(norm, "running_var") for norm in norms.values()]
        squares = [v + m.square() for m, v in zip(means, variances, strict=True)]
        self.remembered = torch.cat([torch.cat(pair) for pair in zip(means, squares, strict=True)])
        # what a moment's deviation over images is compared with
        usual = [torch.cat([v.sqrt(), s]) for v, s in zip(variances, squares, strict=True)]
        self.usual = torch.cat(usual)
        ends = np.cumsum([2 * len(mean) for mean in means]).tolist()
        starts = [0, *ends[:-1]]
        self.spans = {n: slice(a, b) for n, a, b in zip(norms, starts, ends, strict=True)}

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> Tensor:
        """Mean and mean square of each channel of each norm's input, less the remembered ones.

        Args:
            pixels: uint8 [B, S, S, 3].

        Returns:
            float32 [B, D] on the device, which may still be at work on them.
        """
        seen: dict[nn.Module, list[Tensor]] = {}

        def note(module: nn.Module, inputs: tuple) -> None:
            x = inputs[0].float().flatten(2) if inputs[0].ndim > 2 else inputs[0].float()[..., None]
            seen.setdefault(module, []).append(torch.cat([x.mean(2), x.square().mean(2)], dim=1))

        images = to_device(torch.from_numpy(pixels), self.device)
        with hooked(self.norms.values(), note), autocast(self.device, self.precision):
            self.network(normalise(images, self.config.mean, self.config.std))
        # one that is met several times remembers the mean of all
        found = [torch.stack(seen[norm]).mean(0) for norm in self.norms.values()]
        return torch.cat(found, dim=1) - self.remembered


@dataclass(frozen=True)
class MomentWeights:
    """Weights of all images, and what they do.

    Attributes:
        weights: float32 [N], on average 1.
        figures: for reports/embed.json: errors in deviations of an image, before and after, in all
            and by layer, measured anew on images that are drawn; effective number, penalty,
            numbers of moments and directions.
        held: as `Balance` has it.
    """

    weights: np.ndarray
    figures: dict[str, Any]
    held: bool


def moment_weights(
    passed: MomentPass, pixels: Pixels, folder: Path, batch_size: int, advance: Advance
) -> MomentWeights:
    """Weighs N images so that their moments are those that the teacher remembers.

    Killed while the teacher passes them, the next call goes on behind the last whole piece. An
    image takes `DIRECTIONS` numbers of 16 bits on the disk, and a few in memory.

    Args:
        pixels: as the teacher takes them, uint8 [N, S, S, 3].
        folder: for the moments, of this teacher and these images alone.
        batch_size: images a pass; a CPU takes fewer of large ones.
        advance: called with `passes(N)` images in all.

    Raises:
        UserError: a moment is not finite, or another process writes them.
        ExternalError: the disk is full or fails.
    """
    total = len(pixels)
    if passed.device.type == "cpu":
        batch_size = min(batch_size, max(1, AT_ONCE // pixels.shape[1] ** 2))
    basis = basis_of(passed, pixels, batch_size, advance)
    _write(passed, basis, pixels, folder, batch_size, advance)
    moments = np.load(folder / MOMENTS, mmap_mode="r")
    found = balance(moments, lambda said: advance(0, said))
    drawn = measured(total)
    even = np.ones(total, np.float32)
    errors = [
        layer_errors(passed, basis, pixels, *systematic(weights, drawn), batch_size, advance)
        for weights in (even, found.weights)
    ]
    return MomentWeights(found.weights, _figures(found, basis, drawn, *errors), found.held)


def passes(total: int) -> int:
    """Images that `moment_weights` passes for `total` ones."""
    return total + min(SAMPLE, total) + 2 * measured(total)


def measured(total: int) -> int:
    """Images drawn to measure the moments, of `total`."""
    least, most = MEASURED
    return min(total, most, max(least, total // 10))


def basis_of(passed: MomentPass, pixels: Pixels, batch_size: int, advance: Advance) -> Basis:
    """Deviations and directions, from images evenly spread over all.

    The directions are those of most variance (of the images' second moments about what is
    remembered, so the mean error is among them), which need no seed. Directions drawn at random did
    as well.
    """
    rows = np.linspace(0, len(pixels) - 1, min(SAMPLE, len(pixels))).astype(np.int64)
    parts = []
    for some in _split(rows, batch_size):
        parts.append(passed(pixels[some]))
        advance(len(some))
    moments = torch.cat(parts)
    deviation = moments.std(dim=0, unbiased=False)
    moves = deviation > STILL * passed.usual
    scale = torch.where(moves, 1 / deviation.clamp(min=1e-30), 0.0)
    standard = moments * scale
    # the directions of few rows, by the products of the rows: D may be 50,000
    values, vectors = torch.linalg.eigh((standard @ standard.T).double())
    most = min(DIRECTIONS, max(1, len(pixels) // FOR_EACH))
    largest = values.flip(0)[:most]
    count = int((largest > 1e-9 * largest[0].clamp(min=1e-30)).sum())
    vectors = vectors.flip(1)[:, :count] / values.flip(0)[:count].sqrt()
    directions = standard.T @ vectors.float()
    return Basis(scale, directions / max(1, int(moves.sum())) ** 0.5)


def systematic(weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """About `count` images drawn by weight: their rows, int64 [M], and how often each, float [M].

    All of them, by their weights, where there are no more than `count`.
    """
    if len(weights) <= count:
        return np.arange(len(weights)), weights.astype(np.float64)
    ends = np.cumsum(weights, dtype=np.float64)
    points = (np.arange(count) + 0.5) * ends[-1] / count
    rows, times = np.unique(np.searchsorted(ends, points), return_counts=True)
    return np.minimum(rows, len(weights) - 1), times.astype(np.float64)


def layer_errors(
    passed: MomentPass,
    basis: Basis,
    pixels: Pixels,
    rows: np.ndarray,
    times: np.ndarray,
    batch_size: int,
    advance: Advance,
) -> dict[str, float]:
    """Distance of mean moments from the remembered ones: root mean square over moments, in
    deviations of an image, by the name of the norm; of all under the empty name.

    Args:
        rows, times: the images, int64 [M], and how often each counts.
    """
    sums = torch.zeros_like(passed.remembered, dtype=torch.float64, device="cpu")
    for some, counts in zip(_split(rows, batch_size), _split(times, batch_size), strict=True):
        moments = passed(pixels[some]).cpu().double()
        sums += torch.from_numpy(counts) @ moments
        advance(len(some))
    squares = (sums / times.sum() * basis.scale.cpu()).square()
    counted = (basis.scale.cpu() > 0).double()
    spans = {"": slice(None), **passed.spans}
    return {
        name: float((squares[span].sum() / counted[span].sum().clamp(min=1)).sqrt())
        for name, span in spans.items()
    }


def _write(
    passed: MomentPass,
    basis: Basis,
    pixels: Pixels,
    folder: Path,
    batch_size: int,
    advance: Advance,
) -> None:
    """Writes the moments of all images in the directions of `basis`, float16 [N, K]."""
    layout = {MOMENTS: (np.float16, (basis.directions.shape[1],))}
    with ArrayWriter(folder, len(pixels), layout) as arrays:
        advance(arrays.saved)
        rows = np.arange(arrays.saved, len(pixels))
        for number, found in enumerate(_projected(passed, basis, pixels, rows, batch_size), 1):
            if not np.isfinite(found).all():
                raise UserError(
                    f"embed.moments: {(~np.isfinite(found)).any(axis=1).sum():,} images have"
                    " moments at the teacher's batch norms that float16 does not hold",
                    "switch embed.moments off",
                )
            arrays.append({MOMENTS: found})
            if number % PIECE == 0:
                arrays.save()
            advance(len(found))
        arrays.save()


def _projected(
    passed: MomentPass, basis: Basis, pixels: Pixels, rows: np.ndarray, batch_size: int
) -> Iterator[np.ndarray]:
    """The numbers of each batch of rows, float16 [B, K]; a GPU is a batch ahead of what is read."""
    cuda = passed.device.type == "cuda"
    waiting: tuple[Tensor, torch.cuda.Event | None] | None = None
    for some in _split(rows, batch_size):
        numbers = (passed(pixels[some]) * basis.scale) @ basis.directions
        # copies that a CUDA device makes in its own time land in pinned memory
        begun = numbers.half().to("cpu", non_blocking=cuda), torch.cuda.Event() if cuda else None
        if begun[1]:
            begun[1].record()
        if waiting:
            yield _landed(*waiting)
        waiting = begun
    if waiting:
        yield _landed(*waiting)


def _landed(numbers: Tensor, copied: torch.cuda.Event | None) -> np.ndarray:
    if copied:
        copied.synchronize()
    return numbers.numpy()


def _split(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _figures(
    found: Balance, basis: Basis, drawn: int, before: dict[str, float], after: dict[str, float]
) -> dict[str, Any]:
    return {
        "error_before": round(before[""], 4),
        "error_after": round(after[""], 4),
        "effective": round(found.effective),
        "penalty": float(f"{found.penalty:.4g}"),
        "largest_weight": round(float(found.weights.max()), 2),
        "moments": len(basis.scale),
        "left_out": basis.left_out,
        "directions": basis.directions.shape[1],
        "measured_on": drawn,
        "layers": [
            {"layer": name, "before": round(before[name], 4), "after": round(after[name], 4)}
            for name in before
            if name
        ],
    }


def _buffer(norm: nn.Module, name: str) -> Tensor:
    value = getattr(norm, name)
    assert isinstance(value, Tensor)
    return value.detach().float()
