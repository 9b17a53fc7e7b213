"""Grey levels of many pictures at once: means, edges, what lies around each pixel."""

import torch
from torch.nn import functional

from kd3_pipeline.dedup.alignment import reduced

SIDE = 96  # pixels of a close-up
PART = 8  # pixels of a part, of which a window of 2 x 2 is compared at a time
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow


def luma(pictures: torch.Tensor) -> torch.Tensor:
    """Luminance [P, S, S] of pictures [P, 3, S, S]."""
    red, green, blue = pictures.unbind(dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def softened(grey: torch.Tensor, share: float) -> torch.Tensor:
    """Pictures [P, S, S], of each pixel of which `share` comes from either neighbour."""
    for axis in (1, 2):
        first, last = (grey.narrow(axis, place, 1) for place in (0, grey.shape[axis] - 1))
        padded = torch.cat([first, grey, last], dim=axis)
        size = grey.shape[axis]
        sides = padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size)
        grey = (1 - 2 * share) * grey + share * sides
    return grey


def deviation(grey: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Standard deviation of grey levels [P, S, S] over a mask, float32 [P]."""
    count = mask.sum(dim=(1, 2)).clamp(min=1)
    mean = (grey * mask).sum(dim=(1, 2)) / count
    return (((grey - mean[:, None, None]) ** 2 * mask).sum(dim=(1, 2)) / count).sqrt()


def mean_over(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of values [P, S, S] over a mask, float32 [P]."""
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1e-3)


def surroundings(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the 20 x 20 pixels about each pixel, of those in the mask."""
    count, total = (
        functional.avg_pool2d(
            functional.pad(reduced(side, side.shape[-1] // 4), (2,) * 4)[:, None], 5, 1
        )
        for side in (mask, values * mask)
    )
    mean = total / count.clamp(min=0.02)
    return functional.interpolate(mean, scale_factor=4, mode="bilinear")[:, 0]


def window_means(values: torch.Tensor) -> torch.Tensor:
    """Means of the windows, [P, 11, 11] of pictures of SIDE pixels."""
    parts = functional.avg_pool2d(values[:, None], PART)
    return functional.avg_pool2d(parts, 2, 1)[:, 0]


def squared_gradient(pictures: torch.Tensor) -> torch.Tensor:
    """Squared length of the gradient of pictures in colour, [P, S, S]."""
    across = functional.pad(pictures[:, :, :, 2:] - pictures[:, :, :, :-2], (1, 1))
    down = functional.pad(pictures[:, :, 2:] - pictures[:, :, :-2], (0, 0, 1, 1))
    return (across**2 + down**2).sum(dim=1)


def levels_beyond(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Levels by which pixels of one picture are beyond all near ones of the other."""
    (low_a, high_a), (low_b, high_b) = extremes(a), extremes(b)
    over, under = torch.maximum(b - high_a, a - high_b), torch.maximum(low_a - b, low_b - a)
    return torch.maximum(over, under).clamp(min=0)


def extremes(grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest and the highest level of each pixel and its neighbours."""
    return -dilated(-grey, 1), dilated(grey, 1)


def dilated(values: torch.Tensor, pixels: int) -> torch.Tensor:
    """The largest of the values [P, H, W] within some pixels, in a square: row by row, which is
    several times as fast as max_pool2d."""
    for axis in (1, 2):
        size = values.shape[axis]
        grown = values.clone()
        for step in range(1, pixels + 1):
            near, far = grown.narrow(axis, 0, size - step), grown.narrow(axis, step, size - step)
            torch.maximum(near, values.narrow(axis, step, size - step), out=near)
            torch.maximum(far, values.narrow(axis, 0, size - step), out=far)
        values = grown
    return values
