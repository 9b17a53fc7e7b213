"""Logits of a network for images, of which every score is a function."""

from collections.abc import Sequence

import numpy as np
import torch

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.pixels import normalise, parts
from kd3_pipeline.pixelstore import Pixels


@torch.inference_mode()
def logits_of(
    network: Network,
    pixels: Pixels,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
    advance: Advance = no_progress,
) -> np.ndarray:
    """Logits of each image: pixels uint8 [N, S, S, 3], or what is sliced like it → float32 [N, C].

    Args:
        mean, std: of the network's input, for pixels from 0 to 1.
        advance: called with the number of images of each batch.

    Raises:
        UserError: a logit is not finite, so no score of it means anything.
    """
    logits = np.empty((len(pixels), network.num_classes), np.float32)
    done = 0
    for part in parts(pixels, batch_size, device):
        batch = torch.from_numpy(part).to(device)
        logits[done : done + len(batch)] = network(normalise(batch, mean, std)).float().cpu()
        done += len(batch)
        advance(len(batch))
    if not np.isfinite(logits).all():
        raise UserError(
            "a network answers a test image with a logit that is not finite",
            "its weights are damaged, or it did not train: run its stage again",
        )
    return logits
