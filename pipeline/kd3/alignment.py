"""Alignment with the teacher: its classifier is shared, so its features must be met."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Transfer(nn.Module):
    """Carries a student's feature map into the teacher's channels (the bottleneck of SimKD).

    1×1, 3×3 and 1×1 convolutions with batch norm and ReLU; the inner width is
    `teacher_channels / factor`.
    """

    def __init__(self, student_channels: int, teacher_channels: int, factor: int = 2) -> None:
        super().__init__()
        inner = teacher_channels // factor
        self.transfer = nn.Sequential(
            *_block(student_channels, inner, 1),
            *_block(inner, inner, 3),
            *_block(inner, teacher_channels, 1),
        )

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps [B, C_t, H, W] at the smaller one's size, from [B, C_s, …] and [B, C_t, …].

        The larger is average-pooled; maps are square.
        """
        student_side, teacher_side = student_map.shape[-1], teacher_map.shape[-1]
        if student_side > teacher_side:
            student_map = functional.adaptive_avg_pool2d(student_map, teacher_side)
        elif teacher_side > student_side:
            teacher_map = functional.adaptive_avg_pool2d(teacher_map, student_side)
        return self.transfer(student_map), teacher_map


def disagreement_weights(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """w_i = sigmoid(‖z_s,i − z_t,i‖₂), without gradient: two [B, classes] → [B].

    The published code measures the distance with `torch.nn.PairwiseDistance`, which adds 1e-6 to
    the difference.
    """
    with torch.no_grad():
        return torch.sigmoid(functional.pairwise_distance(student_logits, teacher_logits))


def weighted_feature_loss(student_map: Tensor, teacher_map: Tensor, weights: Tensor) -> Tensor:
    """L_kd = mean over all elements of w_i (h_s,i − h_t,i)²; maps [B, C, H, W], weights [B]."""
    squared = (student_map - teacher_map).square().flatten(1).mean(dim=1)
    return (weights * squared).mean()


def _block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
