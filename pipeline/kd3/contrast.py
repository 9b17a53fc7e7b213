"""Contrast between an image and its mixed view."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Projection(nn.Module):
    """A linear map to the unit sphere: [B, in_features] → [B, out_features]."""

    def __init__(self, in_features: int, out_features: int = 128) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(self.linear(features), dim=1)


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.3) -> Tensor:
    """NT-Xent (Chen et al., 2020) over 2B rows: the positive of a row is its other view.

    Args:
        a, b: two views of the same images, [B, D] each; compared by cosine.
    """
    rows = functional.normalize(torch.cat([a, b]), dim=1)
    similarity = rows @ rows.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    count = len(a)
    positive = torch.arange(2 * count, device=a.device).roll(count)
    return functional.cross_entropy(similarity, positive)
