"""Batches of pixels on a device: crops, mirrors and normalisation without a loop over images.

All draws come from a generator on the CPU, so they are the same whatever the device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.device import memory_format


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, S, S, 3] → float32 [B, 3, S, S] with the given statistics."""
    images = pixels.permute(0, 3, 1, 2).float()
    images = images.contiguous(memory_format=memory_format(pixels.device))
    offset = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1) * 255
    scale = torch.tensor(std, device=pixels.device).view(1, 3, 1, 1) * 255
    return (images - offset) / scale


def pad_crop(pixels: Tensor, generator: torch.Generator, pad: int, flip: bool) -> Tensor:
    """Shifts each image by up to `pad` pixels, reflecting the border; mirrors half if `flip`.

    Args:
        pixels: uint8 [B, S, S, 3].
    """
    count, side = pixels.shape[:2]
    shift = torch.randint(-pad, pad + 1, (2, count, 1), generator=generator)
    rows, columns = _reflect(torch.arange(side) + shift, side)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    image = torch.arange(count, device=pixels.device)
    return pixels[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def resized_crop(pixels: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
    """RandomResizedCrop with torchvision's defaults (scale 0.08 to 1, ratio 3/4 to 4/3), bilinear.

    Args:
        pixels: uint8 [B, S, S, 3].
    """
    count = len(pixels)
    area = torch.empty(count).uniform_(0.08, 1.0, generator=generator)
    ratio = torch.empty(count).uniform_(-1, 1, generator=generator) * torch.log(torch.tensor(4 / 3))
    width = (area * ratio.exp()).sqrt().clamp(max=1)
    height = (area / ratio.exp()).sqrt().clamp(max=1)
    place = torch.rand(2, count, generator=generator) * 2 - 1
    sign = torch.ones(count)
    if flip:
        sign -= 2 * (torch.rand(count, generator=generator) < 0.5)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * sign, place[0] * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, place[1] * (1 - height)
    images = pixels.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(theta.to(pixels.device), list(images.shape), align_corners=False)
    cut = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return cut.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _reflect(index: Tensor, side: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= side, 2 * side - 2 - index, index)
