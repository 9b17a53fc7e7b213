"""Contrast between an image and its mixed view."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Projection(nn.Module):
    """A linear map to the unit sphere, (W x + b) / ‖W x + b‖₂: [B, in] → [B, out]."""

    def __init__(self, in_features: int, out_features: int = 128) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(self.linear(features), dim=1)


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.3) -> Tensor:
    """NT-Xent (Chen et al., 2020) over the 2B rows v of both views; j(i) is i's other view.

    L_con = −mean_i log( exp(cos(v_i, v_j(i)) / τ) / Σ_{k≠i} exp(cos(v_i, v_k) / τ) ), a scalar; 0
    for one image, which has no negatives.

    Args:
        a, b: two views of the same images, [B, D] each, of one dtype.
        temperature: τ.
    """
    rows = functional.normalize(torch.cat([a, b]), dim=1)
    similarity = rows @ rows.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    count = len(a)
    positive = torch.arange(2 * count, device=a.device).roll(count)
    return functional.cross_entropy(similarity, positive)
