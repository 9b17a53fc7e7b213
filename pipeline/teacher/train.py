"""Training of a teacher on labelled images: the demo's on a CPU, or a strong one on a GPU."""

import numpy as np
import torch
from torch.nn import functional

from kd3_pipeline.console import Advance
from kd3_pipeline.device import autocast, laid_out, memory_format
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Teacher
from kd3_pipeline.pixels import normalise, pad_crop, to_device


def train(
    network: Network,
    pixels: np.ndarray,
    labels: np.ndarray,
    section: Teacher,
    device: torch.device,
    precision: torch.dtype,
    advance: Advance,
) -> float:
    """Trains `network` in place and returns its accuracy on the augmented images (last epoch).

    SGD with Nesterov momentum, a linear one-cycle learning rate that peaks at `lr`, shifted crops.

    Args:
        pixels: uint8 [N, S, S, 3].
        labels: int64 [N].
        section: its `mean`, `std` and all keys from `epochs` to `seed` are used.
        precision: of the network's products; the loss is in float32.

    Raises:
        UserError: fewer images than a batch.
    """
    if len(pixels) < section.batch_size:
        raise UserError(f"{len(pixels)} images are fewer than a batch of {section.batch_size}")
    generator = torch.Generator().manual_seed(section.seed)
    images = torch.from_numpy(pixels).to(device)
    targets = torch.from_numpy(labels).to(device)
    laid_out(network.to(device), memory_format(device)).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        section.lr,
        momentum=0.9,
        weight_decay=section.weight_decay,
        nesterov=True,
    )
    steps = len(pixels) // section.batch_size
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        section.lr,
        total_steps=section.epochs * steps,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    right = torch.zeros((), device=device)
    for epoch in range(section.epochs):
        order = torch.randperm(len(pixels), generator=generator).to(device)
        right.zero_()
        for step in range(steps):
            rows = order[step * section.batch_size : (step + 1) * section.batch_size]
            crops = pad_crop(images[rows], generator, images.shape[1] // 8, section.flip)
            inputs = normalise(crops, section.mean, section.std)
            if section.cutout:
                inputs = cut_out(inputs, generator, section.cutout)
            with autocast(device, precision):
                logits = network(inputs)
            loss = functional.cross_entropy(
                logits.float(), targets[rows], label_smoothing=section.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            right += (logits.argmax(dim=1) == targets[rows]).sum()
            advance(1)
        accuracy = float(right) / (steps * section.batch_size)
        advance(0, f"epoch {epoch + 1} of {section.epochs}, accuracy {100 * accuracy:.1f}%")
    network.eval()
    return accuracy


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
