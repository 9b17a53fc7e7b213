"""Mixtures of images: MixDistribution's statistics, and function matching's pixels."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Mix = Literal["mixup", "cutmix", "half"]


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


class Mixture(NamedTuple):
    """How the pixels of each image of a batch are mixed with those of another one, its partner.

    x' = m x + (1 − m) x_π, with m = 0 within the image's box and m = λ outside of it.

    Attributes:
        partner: π, int64 [B].
        share: λ, float32 [B].
        box: first and last row, first and last column of the partner's part, each last one
            excluded, int64 [4, B].
        side: of the images that it is for.
    """

    partner: Tensor
    share: Tensor
    box: Tensor
    side: int

    def of(self, images: Tensor) -> Tensor:
        """The mixed images [B, C, side, side], on the device of `images`, which is not waited for.

        Both networks are shown them: a consistent and patient teacher is a good function to match
        (Beyer et al., CVPR 2022).
        """
        top, bottom, left, right = _on_device(self.box, images)[:, :, None, None]
        place = torch.arange(self.side, device=images.device)
        down, across = place[:, None], place[None, :]
        inside = (down >= top) & (down < bottom) & (across >= left) & (across < right)
        share = _on_device(self.share.to(images.dtype), images).view(-1, 1, 1)
        own = torch.where(inside, torch.zeros_like(share), share)[:, None]
        return own * images + (1 - own) * images[_on_device(self.partner, images)]

    def of_weights(self, weights: Tensor) -> Tensor:
        """How much each mixed image counts, [B], of how much images count that it is made of."""
        height, width = self.box[1] - self.box[0], self.box[3] - self.box[2]
        share = self.share * (1 - height * width / self.side**2)
        own = _on_device(share.to(weights.dtype), weights)
        return own * weights + (1 - own) * weights[_on_device(self.partner, weights)]


def draw_mixture(how: Mix, count: int, side: int, generator: torch.Generator) -> Mixture:
    """Mixtures of `count` images of `side` pixels; partners are a permutation of the batch.

    `mixup` (Zhang et al., ICLR 2018): λ ~ U(0, 1) for each image, no box. `half`: the same for
    every second image, while the others stay as they are. `cutmix` (Yun et al., ICCV 2019): a box
    with (1 − λ) of the area around a point drawn from the whole image, cut off at its border.

    Args:
        generator: source of the draws, on the CPU.
    """
    partner = torch.randperm(count, generator=generator)
    drawn = torch.rand(count, generator=generator)
    if how != "cutmix":
        if how == "half":
            drawn[::2] = 1
        return Mixture(partner, drawn, torch.zeros(4, count, dtype=torch.int64), side)
    length = (side * (1 - drawn).sqrt()).long()
    middle = torch.randint(0, side, (2, count), generator=generator)
    first = (middle - length // 2).clamp(min=0)
    last = (middle - length // 2 + length).clamp(max=side)
    box = torch.stack([first[0], last[0], first[1], last[1]])
    return Mixture(partner, torch.ones(count), box, side)


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
