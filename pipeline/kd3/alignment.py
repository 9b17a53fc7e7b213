"""Alignment with the teacher: its classifier is shared, so its features must be met."""

import torch
from torch import Tensor, nn
from torch.nn import functional

QUIETEST = 0.01  # variance that a channel is given at least, of the mean over channels


class Transfer(nn.Module):
    """Carries a student's features into the teacher's channels (the bottleneck of SimKD).

    1×1, 3×3 and 1×1 convolutions with batch norm and ReLU; the inner width is
    `teacher_channels / factor`. A vector is a map of one position.

    Args:
        inner: width in place of that.
        kernel: of the convolution in the middle; of a single position 3×3 would read nothing but
            its centre, so 1 is for students that give a vector.
        signed: the teacher's features may be negative, so no ReLU comes last.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        factor: int = 2,
        *,
        inner: int | None = None,
        kernel: int = 3,
        signed: bool = False,
    ) -> None:
        super().__init__()
        inner = inner or teacher_channels // factor
        self.transfer = nn.Sequential(
            *_block(student_channels, inner, 1),
            *_block(inner, inner, kernel),
            *_block(inner, teacher_channels, 1),
        )
        if signed:
            self.transfer[-1] = nn.Identity()

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> tuple[Tensor, Tensor]:
        """What is compared of the features of student [B, C_s, …] and teacher [B, C_t, …].

        Of a teacher's map both maps [B, C_t, H, W] at the smaller one's size: the larger is
        average-pooled; maps are square. Of a teacher's vector [B, C_t] that vector and the
        average of the student's map.
        """
        student_map = as_map(student_features)
        if teacher_features.ndim == 2:
            return self.transfer(student_map).mean(dim=(2, 3)), teacher_features
        student_side, teacher_side = student_map.shape[-1], teacher_features.shape[-1]
        if teacher_side > student_side:
            teacher_features = functional.adaptive_avg_pool2d(teacher_features, student_side)
        return self.transfer(pooled_to(student_map, teacher_side)), teacher_features


def as_map(features: Tensor) -> Tensor:
    """A vector [B, C] as a map of one position [B, C, 1, 1]; a map stays as it is."""
    return features[:, :, None, None] if features.ndim == 2 else features


def pooled_to(feature_map: Tensor, side: int) -> Tensor:
    """A map [B, C, S, S] average-pooled to `side` if it is larger; of a `side` of 0 as it is."""
    if side and feature_map.shape[-1] > side:
        return functional.adaptive_avg_pool2d(feature_map, side)
    return feature_map


def disagreement_weights(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """w_i = sigmoid(‖z_s,i − z_t,i‖₂), without gradient: two [B, classes] → [B].

    The published code measures the distance with `torch.nn.PairwiseDistance`, which adds 1e-6 to
    the difference.
    """
    with torch.no_grad():
        return torch.sigmoid(functional.pairwise_distance(student_logits, teacher_logits))


def weighted_feature_loss(student_map: Tensor, teacher_map: Tensor, weights: Tensor) -> Tensor:
    """L_kd = mean over all elements of w_i (h_s,i − h_t,i)²; w [B].

    Args:
        student_map, teacher_map: maps [B, C, H, W], or vectors [B, C].
    """
    squared = (student_map - teacher_map).square().flatten(1).mean(dim=1)
    return (weights * squared).mean()


class ChannelVariance(nn.Module):
    """Variance σ_c² of each of the teacher's channels over all batches that were taken in.

    Of batches b = 1 … n, equally large, with mean m_b and variance v_b of a channel over images
    and positions (Chan et al., 1979; M the mean of the m_b):

        V_n = ((n − 1) V_{n−1} + v_n) / n + (n − 1) / n² (m_n − M_{n−1})²
        σ_c² = max(V_c, 0.01 · mean of V)

    The bound keeps a channel that is silent on nearly all images from counting for all the others.
    Standardising the teacher's features so by channel is what AM-RADIO (Ranzinger et al., CVPR
    2024) and PHI-S (2024) do, so that one loss serves teachers of unlike scales. In a difference of
    features the means fall out.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("batches", torch.zeros(()))

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor) -> None:
        """Takes in a batch by its channels' mean and variance, two [C] of float32."""
        self.batches += 1
        share = 1 / self.batches
        apart = (mean - self.mean).square()
        self.variance.lerp_(variance, share).add_((share - share.square()) * apart)
        self.mean.lerp_(mean, share)

    def forward(self) -> Tensor:
        """σ² of each channel, float32 [C]."""
        return self.variance.clamp(min=QUIETEST * self.variance.mean())


def per_channel(values: Tensor, features: Tensor) -> Tensor:
    """One value a channel, [C], in the shape that spreads over features [B, C, …]."""
    return values.view(1, -1, *[1] * (features.ndim - 2))


def _block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
