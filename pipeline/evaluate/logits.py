"""Logits of a network for images, of which every score is a function."""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.console import Advance, no_progress
from pipeline.errors import UserError
from pipeline.models.network import Network
from pipeline.pixelfile import Pixels
from pipeline.pixels import normalise


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
    """Logits of each image: pixels uint8 [N, S, S, 3], which may be on the disk → float32 [N, C].

    Args:
        mean, std: of the network's input, for pixels from 0 to 1.
        advance: called with the number of images of each batch.

    Raises:
        UserError: a logit is not finite, so no score of it means anything.
    """
    logits = np.empty((len(pixels), network.num_classes), np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(np.array(pixels[start : start + batch_size])).to(device)
        logits[start : start + len(batch)] = network(normalise(batch, mean, std)).float().cpu()
        advance(len(batch))
    if not np.isfinite(logits).all():
        raise UserError(
            "a network answers a test image with a logit that is not finite",
            "its weights are damaged, or it did not train: run its stage again",
        )
    return logits
