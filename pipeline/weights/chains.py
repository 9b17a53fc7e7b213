"""Heads of several layers, rebuilt from the names and shapes of their tensors."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# what training keeps beside a network: losses, metrics, queues
BESIDE = re.compile(
    r"(^|[._])(criterion|criteria|loss\w*|\w*_loss|losses|metrics?|\w*_metric|acc|accuracy|auroc|f1"
    r"|confmat|queue\w*|centers?|optimi[sz]er|scheduler|scaler|class_weights?|pos_weight)($|[._])",
    re.I,
)
Names = dict[str, str]
ANY_ORDER = 5  # layers whose order is found by their shapes


@dataclass(frozen=True)
class Layer:
    """Tensors of one layer: `kind` is a type of `kd3_pipeline.models.layers`."""

    name: str
    kind: str
    tensors: Mapping[str, Tensor]

    def follows(self, width: int) -> bool:
        """Tells whether it takes `width` features."""
        weight = self.tensors.get("weight", self.tensors.get("running_mean"))
        return weight is not None and weight.shape[-1] == width

    @property
    def outputs(self) -> int:
        tensor = self.tensors.get("weight", self.tensors.get("running_mean"))
        return len(tensor) if tensor is not None else 0

    @property
    def spec(self) -> dict[str, Any]:
        """As `build_layers` takes it, without a name."""
        if self.kind == "Linear":
            outputs, inputs = self.tensors["weight"].shape
            values = {"in_features": inputs, "out_features": outputs}
            return {"type": "Linear", **values, "bias": "bias" in self.tensors}
        if self.kind == "BatchNorm1d":
            affine = "weight" in self.tensors
            return {"type": "BatchNorm1d", "num_features": self.outputs, "affine": affine}
        return {"type": "LayerNorm", "normalized_shape": [self.outputs]}


def layers_in(tensors: Mapping[str, Tensor]) -> tuple[list[Layer], list[str]]:
    """Layers for vectors among tensors by name, and the names that are of no such layer."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        groups.setdefault(layer, {})[part] = tensor
    layers, others = [], []
    for layer, parts in groups.items():
        kind = "" if BESIDE.search(layer) else _kind(parts)
        if kind:
            layers.append(Layer(layer, kind, parts))
        else:
            others += [f"{layer}.{part}".lstrip(".") for part in parts]
    return layers, others


def _kind(parts: Mapping[str, Tensor]) -> str:
    weight = parts.get("weight")
    norm = {"running_mean", "running_var"}
    if norm <= set(parts) <= norm | {"weight", "bias", "num_batches_tracked"}:
        return "BatchNorm1d"
    if weight is None or not set(parts) <= {"weight", "bias"}:
        return ""
    if weight.ndim == 2:
        return "Linear"
    return "LayerNorm" if weight.ndim == 1 and "bias" in parts else ""


def chains(layers: Sequence[Layer], inputs: int, ordered: bool) -> list[list[Layer]]:
    """Ways to set `layers` one after the other, from `inputs` features on, to a linear one.

    All of them if that goes, else those of one parent. Numbers in names are their order, else that
    of the file if it has one, else the only one in which the shapes fit.
    """
    together = _chain(layers, inputs, ordered)
    if together:
        return [together]
    parents = dict.fromkeys(layer.name.rpartition(".")[0] for layer in layers)
    groups = [
        [layer for layer in layers if layer.name.rpartition(".")[0] == parent]
        for parent in parents
        if parent
    ] + [[layer] for layer in layers if "." not in layer.name]
    return [found for group in groups if (found := _chain(group, inputs, ordered))]


def _chain(layers: Sequence[Layer], inputs: int, ordered: bool) -> list[Layer]:
    numbers = [layer.name.rpartition(".")[2] for layer in layers]
    parents = {layer.name.rpartition(".")[0] for layer in layers}
    if len(parents) == 1 and all(number.isdigit() for number in numbers):
        by_number = sorted(layers, key=lambda layer: int(layer.name.rpartition(".")[2]))
        return by_number if _fits(by_number, inputs) else []
    if ordered and _fits(layers, inputs):
        return list(layers)
    if len(layers) > ANY_ORDER:
        return []
    found = [order for order in itertools.permutations(layers) if _fits(order, inputs)]
    return list(found[0]) if len(found) == 1 else []


def _fits(layers: Sequence[Layer], width: int) -> bool:
    for layer in layers:
        if not layer.follows(width):
            return False
        width = layer.outputs
    return bool(layers) and layers[-1].kind == "Linear"


def head_spec(chain: Sequence[Layer], activation: str) -> tuple[list[dict[str, Any]], Names]:
    """Layers of a head for `build_layers`, and the name in it of each tensor of the file.

    Args:
        activation: type of the layer between two linear ones, which has no tensors: where names
            are numbers it stands in the first gap, else before the second; `Identity` for none.
    """
    names = [layer.name.rpartition(".")[2] for layer in chain]
    one_parent = len({layer.name.rpartition(".")[0] for layer in chain}) == 1
    numbered = one_parent and all(name.isdigit() for name in names)
    if not one_parent:
        names = [layer.name.replace(".", "_") for layer in chain]
    between = {} if activation == "Identity" else _between(chain, names, numbered)
    spec: list[dict[str, Any]] = []
    for place, (layer, name) in enumerate(zip(chain, names, strict=True)):
        spec.append({"name": name} | layer.spec)
        if place in between:
            spec.append({"name": between[place], "type": activation})
    renamed = {
        f"{layer.name}.{part}": f"{name}.{part}"
        for layer, name in zip(chain, names, strict=True)
        for part in layer.tensors
    }
    return spec, renamed


def _between(chain: Sequence[Layer], names: Sequence[str], numbered: bool) -> dict[int, str]:
    """Names of the activations between linear layers, by the place of the layer before."""
    linear = [place for place, layer in enumerate(chain) if layer.kind == "Linear"]
    found = {}
    for one, next_one in itertools.pairwise(linear):
        if not numbered:
            found[next_one - 1] = f"before_{names[next_one]}"
            continue
        for place in range(one, next_one):
            if int(names[place + 1]) - int(names[place]) > 1:
                found[place] = str(int(names[place]) + 1)
                break
    return found


def described(spec: Sequence[Mapping[str, Any]]) -> str:
    """Layers in words: `Linear 512 → 256, ReLU, Linear 256 → 5`."""
    words = []
    for one in spec:
        if one["type"] == "Linear":
            words.append(f"Linear {one['in_features']} → {one['out_features']}")
        else:
            words.append(str(one["type"]))
    return ", ".join(words)
