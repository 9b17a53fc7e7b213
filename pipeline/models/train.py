"""Training a demo teacher on labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pipeline.console import Advance
from pipeline.device import autocast, memory_format
from pipeline.errors import UserError
from pipeline.models.network import Network
from pipeline.pixels import normalise, pad_crop


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with Nesterov momentum, one-cycle learning rate, shifted crops."""

    epochs: int
    batch_size: int
    lr: float
    flip: bool
    seed: int
    precision: torch.dtype


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
        network.parameters(), recipe.lr, momentum=0.9, weight_decay=5e-4, nesterov=True
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
            with autocast(device, recipe.precision):
                logits = network(normalise(crops, mean, std))
            loss = functional.cross_entropy(logits.float(), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            right += (logits.argmax(dim=1) == targets[rows]).sum()
            advance(1)
        advance(0, f"epoch {epoch + 1} of {recipe.epochs}, accuracy {_share(right, recipe, steps)}")
    network.eval()
    return float(right) / (steps * recipe.batch_size)


def _share(right: torch.Tensor, recipe: Recipe, steps: int) -> str:
    return f"{100 * float(right) / (steps * recipe.batch_size):.1f}%"
