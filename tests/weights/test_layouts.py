"""Public teachers: a state dict in the layout of each gives the logits of its own network."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import ARCHITECTURES, build
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.models.published import PUBLISHED, published_network
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import load_teacher

SIDE = 32
IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
relu = functional.relu


class Layers(dict[str, Tensor]):
    """A state dict that gets random tensors where a network first asks for a layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = torch.Generator().manual_seed(1)

    def tensor(self, name: str, *shape: int, scale: float = 1.0, around: float = 0.0) -> Tensor:
        if name not in self:
            self[name] = around + scale * torch.randn(shape, generator=self.draw)
        return self[name]

    def conv(self, name, x, width, kernel, stride=1, groups=1, bias=False) -> Tensor:
        shape = (width, x.shape[1] // groups, kernel, kernel)
        scale = (2 / (shape[1] * kernel**2)) ** 0.5
        weight = self.tensor(f"{name}.weight", *shape, scale=scale)
        offset = self.tensor(f"{name}.bias", width, scale=0.1) if bias else None
        return functional.conv2d(x, weight, offset, stride, kernel // 2, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        width = x.shape[1]
        weight = self.tensor(f"{name}.weight", width, scale=0.1, around=1.0)
        offset = self.tensor(f"{name}.bias", width, scale=0.1)
        mean = self.tensor(f"{name}.running_mean", width, scale=0.1)
        variance = self.tensor(f"{name}.running_var", width, scale=0.1, around=1.0).abs_()
        self.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        return functional.batch_norm(x, mean, variance, weight, offset)

    def linear(self, name: str, x: Tensor, width: int) -> Tensor:
        weight = self.tensor(f"{name}.weight", width, x.shape[1], scale=x.shape[1] ** -0.5)
        return functional.linear(x, weight, self.tensor(f"{name}.bias", width))


def resnet(layers, x, k, blocks, widths, head, shortcut, bottleneck=False, stem_pool=False):
    """Residual stages; `shortcut` is the name of the projections, `head` of the classifier."""
    x = relu(layers.norm("bn1", layers.conv("conv1", x, widths[0], 3)))
    x = functional.max_pool2d(x, 3, 2, 1) if stem_pool else x
    for stage, (count, width) in enumerate(zip(blocks, widths[1:], strict=True), start=1):
        for number in range(count):
            name = f"layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            if bottleneck:
                inner = width // 4
                out = relu(layers.norm(f"{name}.bn1", layers.conv(f"{name}.conv1", x, inner, 1)))
                out = layers.conv(f"{name}.conv2", out, inner, 3, stride)
                out = layers.conv(f"{name}.conv3", relu(layers.norm(f"{name}.bn2", out)), width, 1)
                out = layers.norm(f"{name}.bn3", out)
            else:
                out = layers.conv(f"{name}.conv1", x, width, 3, stride)
                out = layers.conv(f"{name}.conv2", relu(layers.norm(f"{name}.bn1", out)), width, 3)
                out = layers.norm(f"{name}.bn2", out)
            if stride == 2 or x.shape[1] != width:
                x = layers.conv(f"{name}.{shortcut}.0", x, width, 1, stride)
                x = layers.norm(f"{name}.{shortcut}.1", x)
            x = relu(out + x)
    return layers.linear(head, pool(x), k)


def wide(layers, x, k, count, widen, plain):
    """Pre-activation blocks. `plain`: the shortcut projects the input as it comes, before the
    batch norm; stages and projections have other names too."""
    x = layers.conv("conv1", x, 16, 3)
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
        for number in range(count):
            name = f"layer{stage}.{number}" if plain else f"block{stage}.layer.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            active = relu(layers.norm(f"{name}.bn1", x))
            out = layers.conv(f"{name}.conv1", active, width, 3, stride)
            out = layers.conv(f"{name}.conv2", relu(layers.norm(f"{name}.bn2", out)), width, 3)
            if x.shape[1] != width:
                projection = f"{name}.shortcut.0" if plain else f"{name}.convShortcut"
                x = layers.conv(projection, x if plain else active, width, 1, stride)
            x = out + x
    return layers.linear("fc", pool(relu(layers.norm("bn1", x))), k)


def vgg(layers, x, k, counts, tail):
    """All layers in one list `features`; every stage ends in a pooling."""
    place = 0
    for width, count in zip((64, 128, 256, 512, 512), counts, strict=True):
        for _ in range(count):
            x = layers.conv(f"features.{place}", x, width, 3, bias=True)
            x = relu(layers.norm(f"features.{place + 1}", x))
            place += 3
        x = functional.max_pool2d(x, 2)
        place += 1
    return tail(layers, x.flatten(1), k)


def three_linear(layers, x, k, hidden):
    x = relu(layers.linear("classifier.0", x, hidden))
    return layers.linear("classifier.6", relu(layers.linear("classifier.3", x, hidden)), k)


def block_vgg(layers, x, k, counts):
    """Stages `block0` to `block4`, three poolings for 32 pixels, one linear layer."""
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512, 512), counts, strict=True)):
        for number in range(count):
            x = layers.conv(f"block{stage}.{3 * number}", x, width, 3, bias=True)
            x = relu(layers.norm(f"block{stage}.{3 * number + 1}", x))
        x = functional.max_pool2d(x, 2) if stage < 3 else x
    return layers.linear("classifier", pool(x), k)


def divisible(width: float) -> int:
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def mobile(layers, x, k, mult):
    """Inverted residuals; the stem and the second stage have stride 1."""
    relu6 = functional.relu6
    x = layers.conv("features.0.0", x, divisible(32 * mult), 3)
    x = relu6(layers.norm("features.0.1", x))
    place = 1
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2))
    for grow, base, count, first in (*stages, (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for number in range(count):
            name, out, at = f"features.{place}.conv", x, 0
            stride, inner = first if number == 0 else 1, x.shape[1] * grow
            if grow > 1:
                out = relu6(layers.norm(f"{name}.0.1", layers.conv(f"{name}.0.0", out, inner, 1)))
                at = 1
            out = layers.conv(f"{name}.{at}.0", out, inner, 3, stride, groups=inner)
            out = relu6(layers.norm(f"{name}.{at}.1", out))
            out = layers.conv(f"{name}.{at + 1}", out, divisible(base * mult), 1)
            out = layers.norm(f"{name}.{at + 2}", out)
            x = x + out if stride == 1 and x.shape == out.shape else out
            place += 1
    x = layers.conv(f"features.{place}.0", x, divisible(1280 * max(1.0, mult)), 1)
    return layers.linear("classifier.1", pool(relu6(layers.norm(f"features.{place}.1", x))), k)


def shuffle(layers, x, k, widths):
    """Units on half of the channels; the stem has stride 1 and no pooling."""

    def branch(name, x, half, stride):
        x = relu(layers.norm(f"{name}.1", layers.conv(f"{name}.0", x, half, 1)))
        x = layers.norm(f"{name}.4", layers.conv(f"{name}.3", x, half, 3, stride, groups=half))
        return relu(layers.norm(f"{name}.6", layers.conv(f"{name}.5", x, half, 1)))

    x = relu(layers.norm("conv1.1", layers.conv("conv1.0", x, widths[0], 3)))
    for stage, (width, count) in enumerate(zip(widths[1:4], (4, 8, 4), strict=True), start=2):
        for number in range(count):
            name, half = f"stage{stage}.{number}", width // 2
            if number == 0:
                inputs = x.shape[1]
                left = layers.conv(f"{name}.branch1.0", x, inputs, 3, 2, groups=inputs)
                left = layers.conv(
                    f"{name}.branch1.2", layers.norm(f"{name}.branch1.1", left), half, 1
                )
                left = relu(layers.norm(f"{name}.branch1.3", left))
                right = branch(f"{name}.branch2", x, half, 2)
            else:
                left = x[:, :half]
                right = branch(f"{name}.branch2", x[:, half:], half, 1)
            x = torch.stack([left, right], dim=2).flatten(1, 2)  # channels by turns
    x = relu(layers.norm("conv5.1", layers.conv("conv5.0", x, widths[4], 1)))
    return layers.linear("fc", x.mean(dim=(2, 3)), k)


def repvgg(layers, x, k, widths):
    """Three branches a block, summed before the activation."""

    def block(name, x, width, stride):
        out = layers.conv(f"{name}.rbr_dense.conv", x, width, 3, stride)
        out = layers.norm(f"{name}.rbr_dense.bn", out)
        small = layers.conv(f"{name}.rbr_1x1.conv", x, width, 1, stride)
        out = out + layers.norm(f"{name}.rbr_1x1.bn", small)
        if stride == 1 and x.shape[1] == width:
            out = out + layers.norm(f"{name}.rbr_identity", x)
        return relu(out)

    x = block("stage0", x, min(64, widths[0]), 1)
    for stage, (width, count) in enumerate(zip(widths, (2, 4, 14, 1), strict=True), start=1):
        for number in range(count):
            x = block(f"stage{stage}.{number}", x, width, 2 if stage > 1 and number == 0 else 1)
    return layers.linear("linear", pool(x), k)


def dense(layers, x, k, growth, blocks, width, whole_stem):
    """Each layer appends `growth` channels; `whole_stem`: norm, ReLU and pooling follow it."""
    x = layers.conv("features.conv0", x, width, 3)
    if whole_stem:
        x = functional.max_pool2d(relu(layers.norm("features.norm0", x)), 3, 2, 1)
    for number, count in enumerate(blocks, start=1):
        for at in range(1, count + 1):
            name = f"features.denseblock{number}.denselayer{at}"
            out = layers.conv(f"{name}.conv1", relu(layers.norm(f"{name}.norm1", x)), 4 * growth, 1)
            out = layers.conv(f"{name}.conv2", relu(layers.norm(f"{name}.norm2", out)), growth, 3)
            x = torch.cat([x, out], dim=1)
        if number < len(blocks):
            name = f"features.transition{number}"
            x = layers.conv(
                f"{name}.conv", relu(layers.norm(f"{name}.norm", x)), x.shape[1] // 2, 1
            )
            x = functional.avg_pool2d(x, 2)
    return layers.linear("classifier", pool(relu(layers.norm("features.norm5", x))), k)


def narrow(depth: int, multiple: int = 1) -> dict:
    base = (16, 16, 32, 64) if multiple == 1 else (32, 64, 128, 256)
    return {"blocks": ((depth - 2) // 6,) * 3, "widths": base}


VGG_COUNTS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
SHUFFLE = {
    "0_5": (24, 48, 96, 192, 1024),
    "1_0": (24, 116, 232, 464, 1024),
    "1_5": (24, 176, 352, 704, 1024),
    "2_0": (24, 244, 488, 976, 2048),
}
REP = {"a0": (48, 96, 192, 1280), "a1": (64, 128, 256, 1280), "a2": (96, 192, 384, 1408)}
DENSE121 = {"growth": 32, "blocks": (6, 12, 24, 16), "width": 64, "whole_stem": True}
SLIM121 = {"growth": 12, "blocks": (6, 12, 24, 16), "width": 24, "whole_stem": False}
BASIC = (64, 64, 128, 256, 512)
FOUR = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
OLD = {"head": "linear", "shortcut": "shortcut"}
NEW = {"head": "fc", "shortcut": "downsample"}
DEEP = {"blocks": (3, 4, 6, 3), "widths": (64, 256, 512, 1024, 2048), "bottleneck": True}


def one_linear(layers, x, k):
    return layers.linear("head.fc", x, k)


Case = tuple[str, Callable[..., Tensor], str, str]  # architecture, source, wrapper, prefix
CASES: dict[str, Case] = {
    **{
        f"chenyaofo {name}": (name, partial(resnet, **narrow(depth), **NEW), "", "")
        for name, depth in (("resnet20", 20), ("resnet56", 56))
    },
    **{
        f"chenyaofo vgg{d}_bn": (
            f"chenyaofo/vgg{d}_bn",
            partial(vgg, counts=counts, tail=partial(three_linear, hidden=512)),
            "",
            "",
        )
        for d, counts in VGG_COUNTS.items()
    },
    **{
        f"chenyaofo mobilenetv2_x{m}": (
            f"chenyaofo/mobilenetv2_x{m}",
            partial(mobile, mult=float(m.replace("_", "."))),
            "",
            "",
        )
        for m in ("0_5", "0_75", "1_0", "1_4")
    },
    **{
        f"chenyaofo shufflenetv2_x{m}": (
            f"chenyaofo/shufflenetv2_x{m}",
            partial(shuffle, widths=widths),
            "",
            "",
        )
        for m, widths in SHUFFLE.items()
    },
    **{
        f"chenyaofo repvgg_{m}": (f"chenyaofo/repvgg_{m}", partial(repvgg, widths=widths), "", "")
        for m, widths in REP.items()
    },
    "mdistiller resnet32x4": ("resnet32x4", partial(resnet, **narrow(32, 4), **NEW), "model", ""),
    "mdistiller wrn_40_2": ("wrn40_2", partial(wide, count=6, widen=2, plain=False), "model", ""),
    "mdistiller vgg13": ("vgg13", partial(block_vgg, counts=VGG_COUNTS[13]), "model", ""),
    "mdistiller ResNet50": ("resnet50", partial(resnet, **DEEP, **OLD), "model", ""),
    "CMI resnet34": (
        "resnet34",
        partial(resnet, blocks=FOUR["resnet34"], widths=BASIC, **OLD),
        "state_dict",
        "",
    ),
    "CMI wrn40_2": ("wrn40_2", partial(wide, count=6, widen=2, plain=False), "state_dict", ""),
    "CMI vgg11": ("vgg11", partial(block_vgg, counts=VGG_COUNTS[11]), "state_dict", ""),
    **{
        f"huyvnphan {name}": (
            f"huyvnphan/{name}",
            partial(resnet, blocks=blocks, widths=BASIC, stem_pool=True, **NEW),
            "",
            "",
        )
        for name, blocks in FOUR.items()
    },
    "huyvnphan resnet50": (
        "huyvnphan/resnet50",
        partial(resnet, stem_pool=True, **DEEP, **NEW),
        "",
        "",
    ),
    "huyvnphan vgg16_bn": (
        "huyvnphan/vgg16_bn",
        partial(vgg, counts=VGG_COUNTS[16], tail=partial(three_linear, hidden=4096)),
        "",
        "",
    ),
    "huyvnphan densenet121": ("huyvnphan/densenet121", partial(dense, **DENSE121), "", ""),
    "huyvnphan mobilenet_v2": ("huyvnphan/mobilenet_v2", partial(mobile, mult=1.0), "", ""),
    "edadaltocg resnet18": (
        "resnet18",
        partial(resnet, blocks=FOUR["resnet18"], widths=BASIC, **NEW),
        "",
        "",
    ),
    "edadaltocg resnet50": ("resnet50", partial(resnet, **DEEP, **NEW), "", ""),
    "edadaltocg vgg16_bn": (
        "edadaltocg/vgg16_bn",
        partial(vgg, counts=VGG_COUNTS[16], tail=one_linear),
        "",
        "",
    ),
    "edadaltocg densenet121": ("edadaltocg/densenet121", partial(dense, **SLIM121), "", ""),
    "torchdistill resnet110": ("resnet110", partial(resnet, **narrow(110), **NEW), "", ""),
    "torchdistill wide_resnet40_4": (
        "torchdistill/wide_resnet40_4",
        partial(wide, count=6, widen=4, plain=True),
        "",
        "",
    ),
    "torchdistill wide_resnet16_8": (
        "torchdistill/wide_resnet16_8",
        partial(wide, count=2, widen=8, plain=True),
        "",
        "",
    ),
    "torchdistill densenet_bc": (
        "torchdistill/densenet_bc_k12_depth100",
        partial(dense, growth=12, blocks=(16, 16, 16), width=24, whole_stem=False),
        "",
        "",
    ),
    "kuangliu ResNet18": (
        "resnet18",
        partial(resnet, blocks=FOUR["resnet18"], widths=BASIC, **OLD),
        "net",
        "module.",
    ),
}


def made(name: str, classes: int) -> Network:
    """As `build`, for the networks that are published under their publisher's name."""
    return published_network(name, classes) if name in PUBLISHED else build(name, classes)


LARGE = {  # of each there is a smaller case
    *("huyvnphan resnet34", "huyvnphan resnet50", "edadaltocg resnet50", "CMI resnet34"),
    *("huyvnphan vgg16_bn", "torchdistill densenet_bc", "torchdistill wide_resnet16_8"),
    *("chenyaofo mobilenetv2_x1_4", "chenyaofo shufflenetv2_x2_0", "chenyaofo vgg19_bn"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name, case in CASES.items()
    ],
)
def test_a_public_teacher_is_read_as_its_own_network_reads_it(tmp_path, case: Case):
    name, source, wrapper, prefix = case
    layers = Layers()
    with torch.no_grad():
        expected = source(layers, IMAGES, 10)
    state = {prefix + key: value for key, value in layers.items()}
    path = tmp_path / "teacher.pt"
    torch.save({"acc": 93.0, wrapper: state} if wrapper else state, path)
    weights = read_weights(path)
    network = made(name, 10)
    load_teacher(network, weights, SIDE)
    with torch.no_grad():
        feature_map = network.eval().features(IMAGES)
        logits = network.classifier(pool(feature_map))
    assert feature_map.shape[:2] == (2, network.feature_channels)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.05  # a network that says the same of everything proves nothing


def test_every_published_network_is_shown_to_be_right_or_is_a_size_of_one_that_is():
    shown = {architecture for architecture, *_ in CASES.values()}
    assert set(PUBLISHED) - shown == {
        "torchdistill/wide_resnet28_10",
        *(f"huyvnphan/vgg{depth}_bn" for depth in (11, 13, 19)),
    }
    assert shown <= set(PUBLISHED) | set(ARCHITECTURES)


def test_a_vgg_of_32_pixels_takes_no_larger_images(tmp_path):
    network = published_network("chenyaofo/vgg11_bn", 10)
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(UserError, match=r"images of 64 pixels \(teacher\.input_size\): "):
        load_teacher(network, read_weights(tmp_path / "teacher.pt"), 64)


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(UserError, match="did you mean 'chenyaofo/vgg16_bn'"):
        published_network("chenyaofo/vgg16", 10)
