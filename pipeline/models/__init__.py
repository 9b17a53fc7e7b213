"""Networks of the distillation literature, by name."""

import difflib
from collections.abc import Callable

from pipeline.errors import UserError
from pipeline.models.network import Network
from pipeline.models.resnet import CifarResNet, ImageResNet
from pipeline.models.wrn import WideResNet

NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)
ARCHITECTURES: dict[str, Callable[[int], Network]] = {
    **{
        f"resnet{depth}": lambda classes, depth=depth: CifarResNet(classes, depth, NARROW)
        for depth in (8, 14, 20, 32, 44, 56, 110)
    },
    "resnet8x4": lambda classes: CifarResNet(classes, 8, WIDE),
    "resnet32x4": lambda classes: CifarResNet(classes, 32, WIDE),
    "resnet18": lambda classes: ImageResNet(classes, (2, 2, 2, 2)),
    "resnet34": lambda classes: ImageResNet(classes, (3, 4, 6, 3)),
    **{
        f"wrn{depth}_{widen}": lambda classes, depth=depth, widen=widen: WideResNet(
            classes, depth, widen
        )
        for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2))
    },
}


def build(name: str, num_classes: int) -> Network:
    """A network with random weights.

    Raises:
        UserError: no architecture of this name.
    """
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        meant = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(
            f"no architecture named '{name}'", f"{meant}known: {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[name](num_classes)
