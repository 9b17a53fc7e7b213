"""MixDistribution: an image in another one's channel statistics."""

import torch
from torch import Tensor


def mix_distribution(
    images: Tensor,
    lam: Tensor | None = None,
    permutation: Tensor | None = None,
    *,
    alpha: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(x − m)/s · (λ s + (1−λ) s') + λ m + (1−λ) m', with another image's m' and s'.

    m and s are mean and deviation of each image and channel over its pixels (unbiased variance
    plus 1e-6). Done on the normalised batch.

    Args:
        images: [B, 3, H, W].
        lam: λ of each image, [B]; drawn from Beta(α, α) when None.
        permutation: which image lends its statistics, [B] int64; drawn when None.
        generator: source of the draws, on the CPU.
    """
    count = len(images)
    if lam is None:
        lam = _beta(alpha, count, generator)
    if permutation is None:
        permutation = torch.randperm(count, generator=generator)
    lam = lam.to(images).view(-1, 1, 1, 1)
    permutation = permutation.to(images.device)
    variance, mean = torch.var_mean(images, dim=(2, 3), keepdim=True)
    deviation = (variance + 1e-6).sqrt()
    mixed_deviation = lam * deviation + (1 - lam) * deviation[permutation]
    mixed_mean = lam * mean + (1 - lam) * mean[permutation]
    return (images - mean) / deviation * mixed_deviation + mixed_mean


def _beta(alpha: float, count: int, generator: torch.Generator | None) -> Tensor:
    # in float64, because for a small α a gamma draw underflows float32 in both parts of the ratio
    gamma = torch._standard_gamma(
        torch.full((2, count), alpha, dtype=torch.float64), generator=generator
    )
    return (gamma[0] / gamma.sum(dim=0)).clamp(0, 1)
