"""What the nearest images in the teacher's feature space say about an image."""

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 4096


def on_topic_share(features: Tensor, labels: Tensor, neighbours: int = 10) -> Tensor:
    """Share of an image's nearest images to which the teacher gives the same class, float32 [N].

    Nearest by cosine, the image itself left out; exact. An image among images of other classes
    is one that the teacher places by chance.

    Args:
        features: [N, D]; labels: int64 [N], the teacher's classes.
    """
    unit = functional.normalize(features.float(), dim=1)
    nearest = min(neighbours, len(unit) - 1)
    share = torch.ones(len(unit), device=unit.device)
    if nearest < 1:
        return share
    for start in range(0, len(unit), CHUNK):
        similarity = unit[start : start + CHUNK] @ unit.T
        own = torch.arange(len(similarity), device=unit.device)
        similarity[own, start + own] = float("-inf")
        found = labels[similarity.topk(nearest, dim=1).indices]
        share[start : start + CHUNK] = (found == labels[start + own, None]).float().mean(dim=1)
    return share
