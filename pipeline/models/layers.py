"""Layers as values of JSON: the tail of a network is written down, and rebuilt without its code."""

import difflib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kd3_pipeline.errors import UserError

# by type the arguments that say it all; each is an attribute of the same name, but for `bias`
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "Linear": ("in_features", "out_features", "bias"),
    "Conv2d": (
        *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"),
        *("groups", "bias", "padding_mode"),
    ),
    "AdaptiveAvgPool2d": ("output_size",),
    "AdaptiveMaxPool2d": ("output_size",),
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "BatchNorm2d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    "Dropout": ("p",),
    "Dropout1d": ("p",),
    "Dropout2d": ("p",),
    "AlphaDropout": ("p",),
    "Softmax": ("dim",),
    "LogSoftmax": ("dim",),
    "Hardtanh": ("min_val", "max_val"),
    "ELU": ("alpha",),
    "CELU": ("alpha",),
    "GELU": ("approximate",),
    "LeakyReLU": ("negative_slope",),
    "PReLU": ("num_parameters",),
    "Softplus": ("beta", "threshold"),
    **dict.fromkeys(("Hardshrink", "Softshrink"), ("lambd",)),
    **dict.fromkeys(
        (
            *("ReLU", "ReLU6", "SiLU", "Mish", "SELU", "Tanh", "Sigmoid", "LogSigmoid"),
            *("Hardswish", "Hardsigmoid", "Softsign", "Tanhshrink", "Identity"),
        ),
        (),
    ),
}
MAY_BE_NONE = ("momentum", "dim")


def layers_of(module: nn.Module) -> list[dict[str, Any]] | None:
    """Specification of a tail that consists of plain layers of torch, for `build_layers`.

    Returns:
        One dictionary a layer: `name`, `type` and its arguments, or `layers` where it is itself an
        `nn.Sequential`; all of it values that JSON has. A module that is no sequence is one layer
        with the name "". None if there is a layer of another kind, or one with hooks.
    """
    if type(module) is not nn.Sequential or _hooked(module):
        one = _layer_of("", module)
        return [one] if one else None
    found = [_layer_of(name, child) for name, child in module.named_children()]
    return None if None in found else [one for one in found if one]


def build_layers(spec: Sequence[Mapping[str, Any] | str]) -> nn.Module:
    """Layers of a specification of `layers_of`, with random weights and the same keys.

    Args:
        spec: as `layers_of` gives it. Written by hand, a layer without arguments may be its type
            alone, names may be missing (then they are the places), and so may arguments that
            torch has a default for.

    Returns:
        An `nn.Sequential`; a single layer with the name "" is that layer itself.

    Raises:
        UserError: a type or an argument is unknown, missing or no fitting value.
    """
    if isinstance(spec, str | Mapping) or not isinstance(spec, Sequence):
        raise UserError(f"layers are a list, not {spec!r}"[:200])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place, one in enumerate(spec):
        values = {"type": one} if isinstance(one, str) else dict(one)
        name = values.pop("name", str(place))
        if not isinstance(name, str) or "." in name or name in layers:
            raise UserError(f"layer {place} has the name {name!r}, which is no name or not its own")
        layers[name] = _build_layer(values)
    return layers[""] if list(layers) == [""] else nn.Sequential(layers)


def _hooked(module: nn.Module) -> bool:
    """A hook may change what the layer does, as torch's spectral norm does."""
    return any(getattr(module, name) for name in ("_forward_pre_hooks", "_forward_hooks"))


def _layer_of(name: str, module: nn.Module) -> dict[str, Any] | None:
    kind = type(module).__name__
    if _hooked(module):
        return None
    if type(module) is nn.Sequential:
        inner = layers_of(module)
        return None if inner is None else {"name": name, "type": kind, "layers": inner}
    if kind not in ARGUMENTS or type(module) is not getattr(nn, kind):
        return None
    return {"name": name, "type": kind} | {at: _value(module, at) for at in ARGUMENTS[kind]}


def _value(module: nn.Module, argument: str) -> Any:
    value = getattr(module, argument)
    if argument == "bias":
        return value is not None
    return list(value) if isinstance(value, tuple) else value


def _build_layer(values: dict[str, Any]) -> nn.Module:
    kind = values.pop("type", None)
    if kind == "Sequential":
        if values.keys() != {"layers"}:
            raise UserError("a layer of type Sequential has `layers` and nothing else")
        inner = build_layers(values["layers"])
        return (
            inner if isinstance(inner, nn.Sequential) else nn.Sequential(OrderedDict({"": inner}))
        )
    if not isinstance(kind, str) or kind not in ARGUMENTS:
        near = difflib.get_close_matches(str(kind), ARGUMENTS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(f"no layer of the type {kind!r}", f"{hint}known: {', '.join(ARGUMENTS)}")
    if unknown := sorted(map(str, values.keys() - set(ARGUMENTS[kind]))):
        known = ", ".join(ARGUMENTS[kind]) or "none"
        raise UserError(f"a layer {kind} has no argument {unknown[0]!r}", f"known: {known}")
    for name, value in values.items():
        _check_value(kind, name, value)
    fitting = {at: tuple(one) if isinstance(one, list) else one for at, one in values.items()}
    try:
        return getattr(nn, kind)(**fitting)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"a layer {kind} cannot be built with {values}: {error}") from None


def _check_value(kind: str, name: str, value: object) -> None:
    """Numbers, words and lists of numbers alone: some constructors run what they are given."""
    listed = value if isinstance(value, list | tuple) else [value]
    plain = all(isinstance(one, int | float | str) for one in listed)
    if not plain and not (value is None and name in MAY_BE_NONE):
        raise UserError(f"a layer {kind} has {value!r} for {name}"[:200])
