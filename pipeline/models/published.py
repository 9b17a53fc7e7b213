"""Networks of public CIFAR teachers that differ from `kd3_pipeline.models`, with their own keys.

A name is the publisher's and the network's, as `chenyaofo/vgg16_bn`:

- `chenyaofo`: github.com/chenyaofo/pytorch-cifar-models. Its ResNets are `resnet20` to `resnet56`.
- `huyvnphan`: github.com/huyvnphan/PyTorch_CIFAR10, torchvision's networks with stems of stride 1.
- `edadaltocg`: huggingface.co/edadaltocg. Its ResNets are `resnet18`, `resnet34` and `resnet50`.
- `torchdistill`: github.com/yoshitomo-matsubara/torchdistill. Its ResNets are `resnet20` to
  `resnet110`.
"""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.parts import ChainedNetwork, TorchvisionNetwork, Unregistered
from kd3_pipeline.models.resnet import initialise
from kd3_pipeline.models.vgg import LAYERS

WIDTHS = (64, 128, 256, 512, 512)
MOBILE_STAGES = [  # expansion, width, blocks, stride: the second stage keeps the size
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]
SHUFFLE_WIDTHS = {
    "0_5": [24, 48, 96, 192, 1024],
    "1_0": [24, 116, 232, 464, 1024],
    "1_5": [24, 176, 352, 704, 1024],
    "2_0": [24, 244, 488, 976, 2048],
}
REP_WIDTHS = {"a0": (48, 96, 192, 1280), "a1": (64, 128, 256, 1280), "a2": (96, 192, 384, 1408)}
DENSE121 = (6, 12, 24, 16)


def published_network(name: str, num_classes: int) -> Network:
    """A network of a public teacher with random weights and that teacher's state-dict keys.

    Args:
        name: one of `PUBLISHED`.

    Raises:
        UserError: no network of this name.
    """
    if name not in PUBLISHED:
        near = difflib.get_close_matches(name, PUBLISHED, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(PUBLISHED)}"
        raise UserError(f"no architecture named '{name}'", hint)
    return PUBLISHED[name](num_classes)


class RepBlock(nn.Module):
    """RepVGG in training form (Ding et al., 2021): 3×3, 1×1 and identity, each with batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and inputs == outputs
        self.rbr_identity = nn.BatchNorm2d(inputs) if same else None
        self.rbr_dense = self._branch(inputs, outputs, 3, stride)
        self.rbr_1x1 = self._branch(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.rbr_dense(x) + self.rbr_1x1(x)
        return functional.relu(out if self.rbr_identity is None else out + self.rbr_identity(x))

    @staticmethod
    def _branch(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(outputs)))


class RepVGG(Network):
    """1, 2, 4, 14 and 1 blocks; feature map [B, widths[3], S/8, S/8]."""

    classifier_name = "linear"
    stage1: nn.Sequential
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential

    def __init__(self, num_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = min(64, widths[0])
        self.stage0 = RepBlock(3, inputs, 1)
        for stage, (width, blocks) in enumerate(zip(widths, (2, 4, 14, 1), strict=True), start=1):
            first = RepBlock(inputs, width, 1 if stage == 1 else 2)
            rest = [RepBlock(width, width, 1) for _ in range(blocks - 1)]
            setattr(self, f"stage{stage}", nn.Sequential(first, *rest))
            inputs = width
        self.linear = nn.Linear(inputs, num_classes)
        self.feature_channels = inputs

    def features(self, images: Tensor) -> Tensor:
        x = self.stage1(self.stage0(images))
        return self.stage4(self.stage3(self.stage2(x)))


class PlainWideBlock(nn.Module):
    """As `wrn.WideBlock`, but the shortcut takes the input before its batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        projection = () if same else (nn.Conv2d(inputs, outputs, 1, stride, bias=False),)
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(functional.relu(self.bn1(x)))
        return self.conv2(functional.relu(self.bn2(out))) + self.shortcut(x)


class PlainWideResNet(Network):
    """WRN-`depth`-`widen`; feature map [B, 64·widen, S/4, S/4]."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, num_classes: int, depth: int, widen: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        inputs = 16
        for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
            first = PlainWideBlock(inputs, width, 1 if stage == 1 else 2)
            rest = [PlainWideBlock(width, width, 1) for _ in range((depth - 4) // 6 - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
            inputs = width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, num_classes)
        self.feature_channels = inputs
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return functional.relu(self.bn1(x))


def _vgg(num_classes: int, depth: int, hidden: int, head: str = "classifier") -> Network:
    """VGG whose map is a single position: five poolings of a 32-pixel image.

    Args:
        hidden: width of two hidden linear layers; 0 for none.
        head: name of the classifier.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for width, convolutions in zip(WIDTHS, LAYERS[depth], strict=True):
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    tail: nn.Sequential
    if hidden:
        tail = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )
    else:
        tail = nn.Sequential(OrderedDict(fc=nn.Linear(inputs, num_classes)))
    features = nn.Sequential(*layers, Unregistered(_one_position))
    model = nn.Module()
    model.add_module("features", features)
    model.add_module(head, tail)
    return TorchvisionNetwork(model, head, 0.0)


def _one_position(feature_map: Tensor) -> Tensor:
    """Its classifier was trained on maps of one position: others would be another network."""
    if feature_map.shape[2:].numel() != 1:
        height, width = feature_map.shape[2:]
        raise ValueError(f"its classifier takes 1×1 maps of 32-pixel images, not {height}×{width}")
    return feature_map


def _mobile(num_classes: int, width_mult: float) -> Network:
    model = models.MobileNetV2(num_classes, width_mult, MOBILE_STAGES)
    model.features[0][0].stride = (1, 1)
    return TorchvisionNetwork(model, "classifier", 0.0)


def _shuffle(num_classes: int, widths: list[int]) -> Network:
    model = models.ShuffleNetV2([4, 8, 4], widths, num_classes)
    model.conv1[0].stride = (1, 1)
    return ChainedNetwork(model, "fc", 0.0, ["conv1", "stage2", "stage3", "stage4", "conv5"])


def _resnet(num_classes: int, name: str) -> Network:
    """torchvision's, with a 3×3 stem of stride 1 and with its max pooling."""
    model = models.get_model(name, weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    stages = [f"layer{stage}" for stage in (1, 2, 3, 4)]
    return ChainedNetwork(model, "fc", 0.0, ["conv1", "bn1", "relu", "maxpool", *stages])


def _dense(
    num_classes: int, growth: int, blocks: Sequence[int], width: int, absent: Sequence[str] = ()
) -> Network:
    """torchvision's, with a 3×3 stem of stride 1 and without its layers `absent`."""
    model = models.DenseNet(growth, tuple(blocks), width, num_classes=num_classes)
    model.features.conv0 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
    for name in absent:
        setattr(model.features, name, nn.Identity())
    model.features.append(nn.ReLU())
    return TorchvisionNetwork(model, "classifier", 0.0)


STEM = ("norm0", "relu0", "pool0")
PUBLISHED: dict[str, Callable[[int], Network]] = {
    **{f"chenyaofo/vgg{d}_bn": partial(_vgg, depth=d, hidden=512) for d in (11, 13, 16, 19)},
    **{
        f"chenyaofo/mobilenetv2_x{width}": partial(
            _mobile, width_mult=float(width.replace("_", "."))
        )
        for width in ("0_5", "0_75", "1_0", "1_4")
    },
    **{
        f"chenyaofo/shufflenetv2_x{width}": partial(_shuffle, widths=widths)
        for width, widths in SHUFFLE_WIDTHS.items()
    },
    **{f"chenyaofo/repvgg_{size}": partial(RepVGG, widths=w) for size, w in REP_WIDTHS.items()},
    **{
        f"huyvnphan/{name}": partial(_resnet, name=name)
        for name in ("resnet18", "resnet34", "resnet50")
    },
    **{f"huyvnphan/vgg{d}_bn": partial(_vgg, depth=d, hidden=4096) for d in (11, 13, 16, 19)},
    "huyvnphan/densenet121": partial(_dense, growth=32, blocks=DENSE121, width=64),
    "huyvnphan/mobilenet_v2": partial(_mobile, width_mult=1.0),
    "edadaltocg/vgg16_bn": partial(_vgg, depth=16, hidden=0, head="head"),
    "edadaltocg/densenet121": partial(_dense, growth=12, blocks=DENSE121, width=24, absent=STEM),
    "torchdistill/wide_resnet40_4": partial(PlainWideResNet, depth=40, widen=4),
    "torchdistill/wide_resnet28_10": partial(PlainWideResNet, depth=28, widen=10),
    "torchdistill/wide_resnet16_8": partial(PlainWideResNet, depth=16, widen=8),
    "torchdistill/densenet_bc_k12_depth100": partial(
        _dense, growth=12, blocks=(16, 16, 16), width=24, absent=STEM
    ),
}
