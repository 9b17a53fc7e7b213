"""Check that a cut network is the network that it was made of, on numbers."""

import torch
from torch import Tensor

from kd3_pipeline.device import laid_out
from kd3_pipeline.models.cut_network import CutNetwork
from kd3_pipeline.models.network import pool

TOLERANCE = 1e-4  # of the logits' spread


def answers(network: CutNetwork, logits: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Images and the network's logits for them: one of the sample, and a brighter and a darker
    one, as a record can hold what its code saw in the sample."""
    draw = torch.Generator().manual_seed(3)
    found = [(network.sample[:1], logits[:1])]
    for scale, level in ((2.0, 1.0), (0.5, -1.0)):
        images = scale * torch.randn(network.sample[:1].shape, generator=draw) + level
        found.append((images, network.whole(images.clone())))
    return [(images, answer) for images, answer in found if answer.isfinite().all()]


def holds(network: CutNetwork, known: list[tuple[Tensor, Tensor]]) -> bool:
    """Tells whether both parts give the network's own logits; for one image, not two as before."""
    every = torch.cat([logits for _, logits in known])
    try:
        return all(close(_parts(network, images), logits, every) for images, logits in known)
    except Exception:
        return False


def _parts(network: CutNetwork, images: Tensor) -> Tensor:
    """Logits by both parts, with features that are float32 as they are stored."""
    return network.classify(pool(network.features(images.clone()).float()))


def takes_channels_last(network: CutNetwork, logits: Tensor) -> bool:
    """Tells whether its code also works on tensors in the layout that embedding uses."""
    try:
        images = network.sample[:1].to(memory_format=torch.channels_last)
        laid_out(network, torch.channels_last)
        return close(network(images), logits[:1], logits)
    except RuntimeError:
        return False
    finally:
        laid_out(network, torch.contiguous_format)


def close(one: Tensor, other: Tensor, all_of: Tensor | None = None) -> bool:
    """Tells whether logits are the same to 1e-4 of their spread."""
    spread = float((other if all_of is None else all_of).std())
    return bool((one - other).abs().max() <= TOLERANCE * max(spread, 1e-12))
