"""Training a teacher on labelled images: the demo's on a CPU, or a strong one on a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pipeline.console import Advance
from pipeline.device import autocast, memory_format
from pipeline.errors import UserError
from pipeline.models.network import Network
from pipeline.pixels import normalise, pad_crop, to_device


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with Nesterov momentum, one-cycle learning rate, shifted crops.

    Attributes:
        lr: the peak of the cycle.
        cutout: side of the square that is blanked in each image, in pixels; 0 for none.
    """

    epochs: int
    batch_size: int
    lr: float
    flip: bool
    seed: int
    precision: torch.dtype
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    cutout: int = 0


def train(
    network: Network,
    pixels: np.ndarray,
    labels: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: Recipe,
    device: torch.device,
    advance: Advance,
) -> float:
    """Trains `network` in place and returns its accuracy on the augmented images (last epoch).

    Args:
        pixels: uint8 [N, S, S, 3]; labels: int64 [N].

    Raises:
        UserError: fewer images than a batch.
    """
    if len(pixels) < recipe.batch_size:
        raise UserError(f"{len(pixels)} images are fewer than a batch of {recipe.batch_size}")
    generator = torch.Generator().manual_seed(recipe.seed)
    images = torch.from_numpy(pixels).to(device)
    targets = torch.from_numpy(labels).to(device)
    network.to(device, memory_format=memory_format(device)).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        recipe.lr,
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps = len(pixels) // recipe.batch_size
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.lr,
        total_steps=recipe.epochs * steps,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    right = torch.zeros((), device=device)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(pixels), generator=generator).to(device)
        right.zero_()
        for step in range(steps):
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            crops = pad_crop(images[rows], generator, images.shape[1] // 8, recipe.flip)
            inputs = normalise(crops, mean, std)
            if recipe.cutout:
                inputs = cut_out(inputs, generator, recipe.cutout)
            with autocast(device, recipe.precision):
                logits = network(inputs)
            loss = functional.cross_entropy(
                logits.float(), targets[rows], label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            right += (logits.argmax(dim=1) == targets[rows]).sum()
            advance(1)
        advance(0, f"epoch {epoch + 1} of {recipe.epochs}, accuracy {_share(right, recipe, steps)}")
    network.eval()
    return float(right) / (steps * recipe.batch_size)


def cut_out(images: torch.Tensor, generator: torch.Generator, side: int) -> torch.Tensor:
    """Blanks a square around a random point of each image (DeVries and Taylor, 2017).

    Args:
        images: normalised, [B, 3, S, S]: zero is the mean colour.
        side: of the square in pixels; what lies outside of the image is lost.
    """
    count, size = len(images), images.shape[-1]
    centres = torch.randint(size, (2, count, 1), generator=generator)
    offset = torch.arange(size) - centres + side // 2
    rows, columns = (offset >= 0) & (offset < side)
    hole = to_device(rows[:, :, None] & columns[:, None, :], images.device)
    return images.masked_fill(hole[:, None], 0.0)


def _share(right: torch.Tensor, recipe: Recipe, steps: int) -> str:
    return f"{100 * float(right) / (steps * recipe.batch_size):.1f}%"
