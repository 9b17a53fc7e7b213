"""Batches of pixels on a device: crops, mirrors and normalisation without a loop over images.

All draws come from a generator on the CPU, so they are the same whatever the device. Only they
are sent to it, and nothing here waits for it.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kd3_pipeline.device import memory_format
from kd3_pipeline.pixelstore import Pixels

TRIES = 10  # as in torchvision's RandomResizedCrop
AT_ONCE = 2**20  # pixels of images that a CPU passes through a network, over all of a batch
MAX_LOG_RATIO = math.log(4 / 3)


def parts(pixels: Pixels, batch_size: int, device: torch.device) -> Iterator[np.ndarray]:
    """Batches of pixels uint8 [N, S, S, 3], as an array or what is indexed like one.

    They are smaller than `batch_size` where the maps of so many large images would take gigabytes
    of a CPU's memory, which gives nothing in return for large batches.
    """
    if device.type == "cpu":
        batch_size = min(batch_size, max(1, AT_ONCE // pixels.shape[1] ** 2))
    for start in range(0, len(pixels), batch_size):
        yield np.array(pixels[start : start + batch_size])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor from the CPU; a CUDA device does so in its own time, the caller goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    # from memory that is not pinned CUDA may wait for the stream; torch's allocator hands pinned
    # memory out again only when the copies from it are done
    return tensor.pin_memory().to(device, non_blocking=True)


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, S, S, 3] → float32 [B, 3, S, S] with the given statistics."""
    scale, offset = _statistics(tuple(mean), tuple(std), pixels.device)
    layout = memory_format(pixels.device)
    # brought into its layout while a value is still one byte
    return (pixels.permute(0, 3, 1, 2).contiguous(memory_format=layout) * scale).sub_(offset)


def centre(pixels: Tensor, side: int) -> Tensor:
    """The centre of each image, uint8 [B, side, side, 3], as `frames.framed` cuts it.

    Args:
        pixels: uint8 [B, S, S, 3], S at least `side`.
    """
    margin = (pixels.shape[1] - side) // 2
    return pixels[:, margin : margin + side, margin : margin + side]


def pad_crop(pixels: Tensor, generator: torch.Generator, pad: int, flip: bool) -> Tensor:
    """Shifts each image by up to `pad` pixels, reflecting the border; mirrors half if `flip`.

    Args:
        pixels: uint8 [B, S, S, 3].
    """
    count, side = pixels.shape[:2]
    return shifted(pixels, draw_shifts(count, (-pad, pad), flip, generator), side)


def draw_shifts(
    count: int, within: tuple[int, int], flip: bool, generator: torch.Generator
) -> Tensor:
    """Shifts of the centre, down and to the right, each `within` least and most, both possible.

    Returns:
        int64 [3, count] on the CPU: down, right, and whether it is mirrored, half of them if
        `flip`.
    """
    least, most = within
    shifts = torch.randint(least, most + 1, (2, count), generator=generator)
    return torch.cat([shifts, _draw_mirrored(count, flip, generator)[None]])


def shifted(pixels: Tensor, drawn: Tensor, side: int) -> Tensor:
    """Cuts out of each image what lies beside its centre, reflecting the border where it is beyond.

    Args:
        pixels: uint8 [B, S, S, 3].
        drawn: `draw_shifts`, [3, B].
        side: of what is cut out.
    """
    count, stored = pixels.shape[:2]
    down, right, mirrored = to_device(drawn, pixels.device)[:, :, None]
    place = torch.arange(side, device=pixels.device) + (stored - side) // 2
    rows, columns = _reflect(place + down, stored), _reflect(place + right, stored)
    columns = torch.where(mirrored.bool(), columns.flip(1), columns)
    image = torch.arange(count, device=pixels.device)
    return pixels[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def draw_resized(
    count: int, stored: int, scale: tuple[float, float], flip: bool, generator: torch.Generator
) -> Tensor:
    """Boxes of `draw_boxes` in images of `stored` pixels, and which are mirrored, half if `flip`.

    Returns:
        int64 [5, count] on the CPU: top, left, height, width, mirrored.
    """
    boxes = draw_boxes(count, stored, generator, scale)
    return torch.cat([boxes, _draw_mirrored(count, flip, generator)[None]])


def resized(pixels: Tensor, drawn: Tensor, side: int) -> Tensor:
    """Each image's box at `side` pixels, bilinear: uint8 [B, side, side, 3].

    Args:
        pixels: uint8 [B, S, S, 3].
        drawn: `draw_resized`, [5, B].
    """
    count, stored = pixels.shape[:2]
    top, left, height, width, mirrored = to_device(drawn, pixels.device)[:, :, None]
    rows = _centres(top, height, side, stored)
    columns = _centres(left, width, side, stored)
    columns = torch.where(mirrored.bool(), columns.flip(1), columns)
    shape = (count, side, side)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=3)
    images = pixels.permute(0, 3, 1, 2).float()
    # no place is outside of the image; of the modes that then agree, this one is on every device
    cut = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return cut.round().to(torch.uint8).permute(0, 2, 3, 1)


def draw_boxes(
    count: int, side: int, generator: torch.Generator, scale: tuple[float, float]
) -> Tensor:
    """Boxes as RandomResizedCrop draws them for square images, with ratios of 3/4 to 4/3.

    Returns:
        int64 [4, count] on the CPU: top, left, height and width.
    """
    draws = torch.empty(2, TRIES, count, dtype=torch.float64)
    area = draws[0].uniform_(*scale, generator=generator) * side**2
    ratio = draws[1].uniform_(-MAX_LOG_RATIO, MAX_LOG_RATIO, generator=generator).exp()
    sizes = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round()
    fits = ((sizes > 0) & (sizes <= side)).all(dim=0)
    first = fits.int().argmax(dim=0)
    size = sizes[:, first, torch.arange(count)]
    size = torch.where(fits.any(dim=0), size, side)  # the whole image where no try fits
    place = torch.rand(2, count, dtype=torch.float64, generator=generator)
    return torch.cat([(place * (side - size + 1)).floor(), size]).long()


def _draw_mirrored(count: int, flip: bool, generator: torch.Generator) -> Tensor:
    """int64 [count] of 0 and 1; nothing is drawn if not `flip`."""
    if not flip:
        return torch.zeros(count, dtype=torch.int64)
    return (torch.rand(count, generator=generator) < 0.5).long()


def _centres(start: Tensor, length: Tensor, side: int, stored: int) -> Tensor:
    """Places to sample a box at for `side` pixels, not beyond the centres of its outer pixels.

    Args:
        start, length: int64 [B, 1], in an image of `stored` pixels.

    Returns:
        float32 [B, side] in the coordinates of `grid_sample`.
    """
    middle = torch.arange(side, device=start.device) + 0.5
    within = (middle * (length / side) - 0.5).clamp(min=0).minimum(length - 1)
    return (start + within + 0.5) * (2 / stored) - 1


@lru_cache(maxsize=32)
def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """1 / (255 std) and mean / std, float32 [3, 1, 1]: made once, as that waits for the device."""
    means, stds = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    scale, offset = 1 / (255 * stds), means / stds
    return scale.float().view(3, 1, 1).to(device), offset.float().view(3, 1, 1).to(device)


def _reflect(index: Tensor, side: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= side, 2 * side - 2 - index, index)
