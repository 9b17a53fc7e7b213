"""Residual networks for small images, with the state-dict keys of the published ones.

`CifarResNet`: three stages, 6n+2 layers (He et al., 2016; the ×4 widths of RepDistiller); between
stages the shortcut is a projection, or as in the paper the map with channels of zeros around it.
`ImageResNet`: four stages, ResNet-18, -34 and -50 with a 3×3 stem for 32-pixel images.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.models.network import Network

Shortcut = Literal["projection", "padded", "padded_after"]


class Padded(nn.Module):
    """Every other position of a map, with channels of zeros: option A of the paper.

    Args:
        around: half of them come before the map's, as most have it; else all come after.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, around: bool) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2 if around else 0
        self.after = outputs - inputs - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, whose projection is called `shortcut_name`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        shortcut_name: str,
        shortcut: Shortcut = "projection",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut_name = shortcut_name
        setattr(self, shortcut_name, _shortcut(inputs, outputs, stride, shortcut))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + getattr(self, self.shortcut_name)(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the inner ones a quarter as wide, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut_name: str) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut_name = shortcut_name
        setattr(self, shortcut_name, _shortcut(inputs, outputs, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return functional.relu(out + getattr(self, self.shortcut_name)(x))


class CifarResNet(Network):
    """`depth` 8, 14, 20, … and four widths; feature map [B, widths[3], S/4, S/4].

    Args:
        shortcut: where a stage begins: a `projection` by a 1×1 convolution with batch norm, or
            `padded` with channels of zeros around the map's, or `padded_after` with all of them
            behind: these have no weights.

    Raises:
        ValueError: there is no such shortcut.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int,
        widths: Sequence[int],
        shortcut: Shortcut = "projection",
    ) -> None:
        super().__init__()
        if shortcut not in get_args(Shortcut):
            raise ValueError(f"the shortcut is one of {', '.join(get_args(Shortcut))}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(BasicBlock, widths[0], widths[1], blocks, 1, "downsample", shortcut)
        self.layer2 = _stage(BasicBlock, widths[1], widths[2], blocks, 2, "downsample", shortcut)
        self.layer3 = _stage(BasicBlock, widths[2], widths[3], blocks, 2, "downsample", shortcut)
        self.fc = nn.Linear(widths[3], num_classes)
        self.feature_channels = widths[3]
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(x)))


class ImageResNet(Network):
    """ResNet-18 (`blocks` 2, 2, 2, 2), -34 or -50; feature map [B, 512 or 2048, S/8, S/8]."""

    classifier_name = "linear"

    def __init__(self, num_classes: int, blocks: Sequence[int], bottleneck: bool = False) -> None:
        super().__init__()
        block, wider = (Bottleneck, 4) if bottleneck else (BasicBlock, 1)
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64 * wider, blocks[0], 1, "shortcut")
        self.layer2 = _stage(block, 64 * wider, 128 * wider, blocks[1], 2, "shortcut")
        self.layer3 = _stage(block, 128 * wider, 256 * wider, blocks[2], 2, "shortcut")
        self.layer4 = _stage(block, 256 * wider, 512 * wider, blocks[3], 2, "shortcut")
        self.linear = nn.Linear(512 * wider, num_classes)
        self.feature_channels = 512 * wider
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution that has values."""
    for module in network.modules():
        # random numbers without values, on the meta device, cost a second and half of PyTorch
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(
    inputs: int, outputs: int, stride: int, shortcut: Shortcut = "projection"
) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    if shortcut != "projection":
        return Padded(inputs, outputs, stride, around=shortcut == "padded")
    projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(outputs))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    outputs: int,
    blocks: int,
    stride: int,
    name: str,
    *shortcut: Any,
) -> nn.Sequential:
    rest = [block(outputs, outputs, 1, name, *shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(block(inputs, outputs, stride, name, *shortcut), *rest)
