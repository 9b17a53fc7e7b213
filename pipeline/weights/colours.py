"""Teachers of one channel or of BGR, as networks of RGB: exactly, in their first layer.

A convolution is linear: on the brightness 0.299 R + 0.587 G + 0.114 B it is the convolution on RGB
whose weights are those of the one channel, times 0.299, 0.587 and 0.114; on BGR it is that with
its weights in the other order. So nothing is added to the network.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kd3_pipeline.models.adapting import LUMA


def input_layers(network: nn.Module) -> list[str]:
    """Names of the convolutions that take images of three channels."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    ]


def with_channels(network: nn.Module, channels: int) -> dict[str, Tensor]:
    """The network's tensors by name, as they would be with images of so many channels: shapes
    only, where it is not three."""
    own = dict(network.state_dict())
    if channels != 3:
        for name in input_layers(network):
            outputs, _, *kernel = own[f"{name}.weight"].shape
            own[f"{name}.weight"] = torch.empty(outputs, channels, *kernel, device="meta")
    return own


def fold(
    state: Mapping[str, Tensor], layers: Sequence[str], channels: int, order: str
) -> dict[str, Tensor]:
    """`state` for images of RGB.

    Args:
        layers: that take the images.
        channels, order: of the images that the weights in `state` are for.
    """
    found = dict(state)
    for name in layers:
        weight = found[f"{name}.weight"]
        if channels == 1:
            weight = weight * torch.tensor(LUMA).reshape(1, 3, 1, 1)
        elif order == "bgr":
            weight = weight.flip(1)
        found[f"{name}.weight"] = weight.contiguous()
    return found
