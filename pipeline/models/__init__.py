"""Networks of the distillation literature and of torchvision, by name."""

import difflib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.heads import put_head
from kd3_pipeline.models.mobilenet import MobileNetV2
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.resnet import CifarResNet, ImageResNet
from kd3_pipeline.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from kd3_pipeline.models.vgg import LAYERS, VGG
from kd3_pipeline.models.wrn import WideResNet

NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)
ARCHITECTURES: dict[str, Callable[..., Network]] = {
    **{
        f"resnet{depth}": partial(CifarResNet, depth=depth, widths=NARROW)
        for depth in (8, 14, 20, 32, 44, 56, 110)
    },
    "resnet8x4": partial(CifarResNet, depth=8, widths=WIDE),
    "resnet32x4": partial(CifarResNet, depth=32, widths=WIDE),
    "resnet18": partial(ImageResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ImageResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ImageResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    **{
        f"wrn{depth}_{widen}": partial(WideResNet, depth=depth, widen=widen)
        for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2))
    },
    **{f"vgg{depth}": partial(VGG, depth=depth) for depth in LAYERS},
    "mobilenetv2": MobileNetV2,
    "shufflev1": ShuffleNetV1,
    "shufflev2": ShuffleNetV2,
}
ALIASES = {
    "resnet18_cifar": "resnet18",
    "resnet34_cifar": "resnet34",
    "wrn161": "wrn16_1",
    "wrn162": "wrn16_2",
    "wrn401": "wrn40_1",
    "wrn402": "wrn40_2",
}
TORCHVISION = "torchvision/"
TIMM = "timm/"
PUBLISHERS = ("chenyaofo/", "huyvnphan/", "edadaltocg/", "torchdistill/")
UNKNOWN_OPTION = re.compile(r"(?:unexpected|multiple values for) keyword argument '(\w+)'")


def build(name: str, num_classes: int, **options: Any) -> Network:
    """A network with random weights.

    Args:
        name: one of `ARCHITECTURES` or of `published.PUBLISHED`; or `torchvision/` or `timm/` and
            a classifier of that library; or the user's code, with a `:`
            (`kd3_pipeline.models.own`).
        options: of the architecture's constructor; also `head`, layers in place of its last ones
            (`kd3_pipeline.models.heads`).

    Raises:
        UserError: no architecture of this name, or it does not have these options; or it is code
            that there is no consent for.
    """
    make = _maker(name)
    device = torch.get_default_device()
    try:
        if ":" in name or name.startswith((TORCHVISION, TIMM)):
            with torch.device("cpu"):  # where to cut shows with values, which `meta` has none of
                network = make(num_classes, **options)
            return network if device.type == "cpu" else network.to(device)
        head = options.pop("head", None)
        network = make(num_classes, **options)
        if head:
            put_head(network, head)
        return network
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        if not options:
            raise
        wrong = UNKNOWN_OPTION.search(str(error))
        if wrong:
            raise UserError(f"architecture '{name}' has no option '{wrong[1]}'") from None
        raise UserError(f"architecture '{name}' cannot be built with {options}: {error}") from None


def _maker(name: str) -> Callable[..., Network]:
    if name in ARCHITECTURES or name in ALIASES:
        return ARCHITECTURES[ALIASES.get(name, name)]
    if f"{name}".startswith(TORCHVISION):
        # late, because importing torchvision takes longer than all else here
        from kd3_pipeline.models.torchvision_network import torchvision_network

        return partial(torchvision_network, name.removeprefix(TORCHVISION))
    if f"{name}".startswith(TIMM):
        from kd3_pipeline.models.timm_network import timm_network

        return partial(timm_network, name.removeprefix(TIMM))
    if ":" in f"{name}":
        from kd3_pipeline.models.own import own_network

        return partial(own_network, name)
    if f"{name}".startswith(PUBLISHERS):
        from kd3_pipeline.models.published import published_network

        return partial(published_network, name)
    if meant := _meant_as_own(name):
        raise UserError(f"no architecture named '{name}'", meant)
    near = difflib.get_close_matches(name, [*ARCHITECTURES, *ALIASES], n=1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    known = (
        f"known: {', '.join(sorted(ARCHITECTURES))}, {TORCHVISION}NAME, {TIMM}NAME, FILE.py:NAME"
    )
    raise UserError(f"no architecture named '{name}'", meant + known)


def _meant_as_own(name: str) -> str:
    """What a name of one's own code lacks, in words; empty if it is not like one."""
    if name.endswith(".py"):
        return f"name the class or function in it: {name}:NAME"
    module, dot, entry = name.rpartition(".")
    if dot and "/" not in name and name.replace(".", "").isidentifier():
        return f"code of one's own has a colon before its class or function: {module}:{entry}"
    return ""
