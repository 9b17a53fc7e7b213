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
        images: [B, 3, H, W] of more than one pixel, floating point.
        lam: λ of each image, [B]; drawn from Beta(α, α) when None.
        permutation: which image lends its statistics, [B] int64; drawn when None.
        generator: source of the draws, on the CPU; torch's own when None.

    Returns:
        [B, 3, H, W] in the dtype and on the device of `images`.
    """
    count = len(images)
    if lam is None:
        lam = _beta(alpha, count, generator)
    if permutation is None:
        permutation = torch.randperm(count, generator=generator)
    lam = _on_device(lam.to(images.dtype), images).view(-1, 1, 1, 1)
    permutation = _on_device(permutation, images)
    variance, mean = torch.var_mean(images, dim=(2, 3), keepdim=True)
    deviation = (variance + 1e-6).sqrt()
    mixed_deviation = lam * deviation + (1 - lam) * deviation[permutation]
    mixed_mean = lam * mean + (1 - lam) * mean[permutation]
    return (images - mean) / deviation * mixed_deviation + mixed_mean


def _beta(alpha: float, count: int, generator: torch.Generator | None) -> Tensor:
    """λ = G / (G + G') of two gamma variates of shape α: float64 [`count`]."""
    # A small α makes both variates underflow to 0. So Gamma(α) is drawn as
    # Gamma(α + 1) · U^(1/α) (Marsaglia and Tsang, 2000), and the ratio taken of its logarithms.
    shape = torch.full((2, count), alpha + 1, dtype=torch.float64)
    # private, because torch.distributions draws from torch's own generator alone
    boosted = torch._standard_gamma(shape, generator=generator).log()
    uniform = torch.rand(2, count, dtype=torch.float64, generator=generator)
    logarithm = boosted + torch.log1p(-uniform) / alpha  # 1 − U, because U may be 0
    return torch.sigmoid(logarithm[0] - logarithm[1])


def _on_device(drawn: Tensor, images: Tensor) -> Tensor:
    # asynchronous on CUDA only: on MPS such a copy may read memory that was already released
    return drawn.to(images.device, non_blocking=images.is_cuda)
