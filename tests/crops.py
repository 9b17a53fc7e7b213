"""Random crops of pixels, drawn and cut in one go."""

import torch
from torch import Tensor

from kd3_pipeline.pixels import draw_resized, resized


def resized_crop(
    pixels: Tensor,
    generator: torch.Generator,
    flip: bool,
    scale: tuple[float, float] = (0.08, 1.0),
) -> Tensor:
    """Crops [B, S, S, 3] of other sizes, back at the images' own; half mirrored if `flip`."""
    count, side = pixels.shape[:2]
    return resized(pixels, draw_resized(count, side, scale, flip, generator), side)
