"""Residual networks for small images, with the state-dict keys of the published ones.

`CifarResNet`: three stages, 6n+2 layers (He et al., 2016; the ×4 widths of RepDistiller).
`ImageResNet`: four stages, ResNet-18 and -34 with a 3×3 stem for 32-pixel images.
"""

from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.network import Network


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, whose projection is called `shortcut_name`."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut_name: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut_name = shortcut_name
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            setattr(self, shortcut_name, nn.Sequential(projection, nn.BatchNorm2d(outputs)))
        else:
            setattr(self, shortcut_name, nn.Sequential())

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + getattr(self, self.shortcut_name)(x))


class CifarResNet(Network):
    """`depth` 8, 14, 20, … and four widths; feature map [B, widths[3], S/4, S/4]."""

    def __init__(self, num_classes: int, depth: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[1], blocks, 1, "downsample")
        self.layer2 = _stage(widths[1], widths[2], blocks, 2, "downsample")
        self.layer3 = _stage(widths[2], widths[3], blocks, 2, "downsample")
        self.fc = nn.Linear(widths[3], num_classes)
        self.feature_channels = widths[3]
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(x)))


class ImageResNet(Network):
    """ResNet-18 (`blocks` 2, 2, 2, 2) or -34; feature map [B, 512, S/8, S/8]."""

    classifier_name = "linear"

    def __init__(self, num_classes: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks[0], 1, "shortcut")
        self.layer2 = _stage(64, 128, blocks[1], 2, "shortcut")
        self.layer3 = _stage(128, 256, blocks[2], 2, "shortcut")
        self.layer4 = _stage(256, 512, blocks[3], 2, "shortcut")
        self.linear = nn.Linear(512, num_classes)
        self.feature_channels = 512
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
    rest = [BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), *rest)
