"""ShuffleNet V1 (Zhang et al., 2018) and V2 (Ma et al., 2018) for small images, as in RepDistiller.

Their stem is a 1×1 convolution, so that a 32-pixel image is halved by the three stages alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.models.network import Network

STEM = 24


class GroupedUnit(nn.Module):
    """V1: grouped 1×1, shuffle, depthwise 3×3, grouped 1×1; a stride appends the pooled input."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        added = outputs - inputs if stride == 2 else outputs
        inner = added // 4
        self.stride = stride
        self.groups = 1 if inputs == STEM else groups
        self.conv1 = nn.Conv2d(inputs, inner, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, added, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(added)

    def forward(self, x: Tensor) -> Tensor:
        out = shuffle(functional.relu(self.bn1(self.conv1(x))), self.groups)
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.stride == 2:
            return functional.relu(torch.cat([out, functional.avg_pool2d(x, 3, 2, 1)], dim=1))
        return functional.relu(out + x)


class SplitUnit(nn.Module):
    """V2, stride 1: 1×1, depthwise 3×3 and 1×1 on the second half of the channels, shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        out = functional.relu(self.bn1(self.conv1(second)))
        out = self.bn2(self.conv2(out))
        out = functional.relu(self.bn3(self.conv3(out)))
        return shuffle(torch.cat([first, out], dim=1), 2)


class DownUnit(nn.Module):
    """V2, stride 2: two branches of half the channels each, from all channels; shuffle."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 2, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn1(self.conv1(x))
        left = functional.relu(self.bn2(self.conv2(left)))
        right = functional.relu(self.bn3(self.conv3(x)))
        right = self.bn4(self.conv4(right))
        right = functional.relu(self.bn5(self.conv5(right)))
        return shuffle(torch.cat([left, right], dim=1), 2)


class ShuffleNetV1(Network):
    """Three stages of 4, 8 and 4 units; feature map [B, widths[2], S/8, S/8]."""

    classifier_name = "linear"
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self, num_classes: int, widths: Sequence[int] = (240, 480, 960), groups: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        inputs = STEM
        for number, (width, units) in enumerate(zip(widths, (4, 8, 4), strict=True), start=1):
            rest = [GroupedUnit(width, width, 1, groups) for _ in range(units - 1)]
            stage = nn.Sequential(GroupedUnit(inputs, width, 2, groups), *rest)
            setattr(self, f"layer{number}", stage)
            inputs = width
        self.linear = nn.Linear(inputs, num_classes)
        self.feature_channels = inputs

    def features(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(x)))


class ShuffleNetV2(Network):
    """Three stages of 4, 8 and 4 units; feature map [B, 1024, S/8, S/8], widened from the last."""

    classifier_name = "linear"
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    widening = ("conv2", "bn2")

    def __init__(self, num_classes: int, widths: Sequence[int] = (116, 232, 464)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        inputs = STEM
        for number, (width, units) in enumerate(zip(widths, (4, 8, 4), strict=True), start=1):
            rest = [SplitUnit(width) for _ in range(units - 1)]
            setattr(self, f"layer{number}", nn.Sequential(DownUnit(inputs, width), *rest))
            inputs = width
        self.conv2 = nn.Conv2d(inputs, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)
        self.stage_channels = inputs
        self.feature_channels = 1024

    def features(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return functional.relu(self.bn2(self.conv2(x)))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels in `groups` rows, read by columns: [B, C, H, W] → [B, C, H, W]."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
