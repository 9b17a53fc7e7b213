"""MobileNetV2 for small images (Sandler et al., 2018), as in RepDistiller."""

from torch import Tensor, nn

from kd3_pipeline.models.network import Network
from kd3_pipeline.models.resnet import initialise

STAGES = (  # expansion, width, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """A 1×1 convolution that widens, a depthwise 3×3 and a linear 1×1 that narrows."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Network):
    """Widths × `width_mult`; feature map [B, 1280, S/16, S/16], widened from the last stage's."""

    classifier_name = "classifier"
    widening = ("conv2",)

    def __init__(self, num_classes: int, width_mult: float = 0.5) -> None:
        super().__init__()
        width = int(32 * width_mult)
        self.conv1 = nn.Sequential(*_convolution(3, width, 3, 2))
        self.blocks = nn.ModuleList()
        for expansion, channels, blocks, stride in STAGES:
            inputs, width = width, int(channels * width_mult)
            rest = [InvertedResidual(width, width, 1, expansion) for _ in range(blocks - 1)]
            first = InvertedResidual(inputs, width, stride, expansion)
            self.blocks.append(nn.Sequential(first, *rest))
        self.stage_channels = width
        self.feature_channels = int(1280 * max(width_mult, 1.0))
        self.conv2 = nn.Sequential(*_convolution(width, self.feature_channels, 1, 1))
        tail = nn.Sequential(nn.Linear(self.feature_channels, num_classes))
        setattr(self, self.classifier_name, tail)
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = self.conv1(images)
        for blocks in self.blocks:
            x = blocks(x)
        return self.conv2(x)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
