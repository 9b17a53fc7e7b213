"""Last layers of a network, replaced by those that a file of weights has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.layers import build_layers, layers_of


@dataclass(frozen=True)
class Slot:
    """Place of a network's last layers, which a file may have others in.

    Attributes:
        at: name of the module.
        inputs: features that it takes.
        last: name of the layer that gives the logits; `at` or within it.
    """

    at: str
    inputs: int
    last: str


def slots_of(network: nn.Module, within: str = "") -> list[Slot]:
    """Places of a network's last layers: its last linear layer, then the sequences around it.

    Args:
        within: name of the child to look in, where the tail is known; empty: everywhere.

    Returns:
        The narrowest first. Without a linear layer it is the last convolution; none if there is
        neither.
    """
    modules = {
        name: module
        for name, module in network.named_modules()
        if not within or name == within or name.startswith(f"{within}.")
    }
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, module in modules.items() if isinstance(module, kind)]
        if names:
            break
    else:
        return []
    last = names[-1]
    found = [Slot(last, _inputs(modules[last]), last)]
    around = last.rpartition(".")[0]
    while around in modules and type(modules[around]) is nn.Sequential and around:
        inner = modules[around]
        linear = [one for one in inner.modules() if isinstance(one, nn.Linear)]
        if layers_of(inner) is None or not linear:
            break
        found.append(Slot(around, linear[0].in_features, last))
        around = around.rpartition(".")[0]
    return found


def put_head(model: nn.Module, head: Mapping[str, Any]) -> None:
    """Puts other layers in the place of a model's last ones.

    Args:
        head: `at`, the name of the module that goes, and `layers` for `build_layers`.

    Raises:
        UserError: there is no such module, or no such layers.
    """
    if set(head) != {"at", "layers"} or not isinstance(head["layers"], Sequence):
        raise UserError("the option `head` of an architecture has `at` and `layers`")
    try:
        model.get_submodule(head["at"])
    except AttributeError:
        raise UserError(f"the network has no layer '{head['at']}' to replace") from None
    model.set_submodule(head["at"], build_layers(head["layers"]))


def _inputs(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
