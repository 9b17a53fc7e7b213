"""Known architectures as outlines: their tensors' names and shapes, at the cost of no values."""

import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from kd3_pipeline.console import Advance
from kd3_pipeline.errors import UserError
from kd3_pipeline.models import ARCHITECTURES, TIMM, TORCHVISION, build
from kd3_pipeline.models.heads import slots_of
from kd3_pipeline.models.own import is_own
from kd3_pipeline.models.published import PUBLISHED
from kd3_pipeline.models.resnet import CifarResNet
from kd3_pipeline.models.timm_network import import_timm
from kd3_pipeline.weights.colours import with_channels
from kd3_pipeline.weights.files import Weights
from kd3_pipeline.weights.fitting import NoFit, fit
from kd3_pipeline.weights.naming import counted

MOST = 5  # architectures that are named
CLASSES = 10  # of outlines that only their layers before the last are looked at
TRIAL_LAYERS = 4  # of 1x1 that a network's code may make and throw away
ALIKE = 0.5  # of an architecture's kinds of names are in the file, or it is not tried


def inner_of(network: nn.Module) -> nn.Module:
    """The module whose state dict has the names that its author gave: for a network that was cut
    it is within."""
    own_names = getattr(network, "own_names", None)
    return network.get_submodule(own_names[""].rstrip(".")) if own_names else network


def key_of(network: nn.Module, name: str) -> str:
    """The name in a network's state dict of a tensor of `inner_of(network)`."""
    return getattr(network, "own_names", {"": ""})[""] + name


def outline(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """An architecture's module with shapes alone, on the meta device; with values, where only its
    own code can tell.

    Raises:
        UserError: there is no such architecture, it has no such options, or code of one's own
            fails.
    """
    if is_own(name):
        return inner_of(build(name, num_classes, **options))
    try:
        return _shapes(name, num_classes, options)
    except UserError:
        raise
    except Exception:  # what is wrong with a name or an option is said in words here
        return inner_of(build(name, num_classes, **options))


def _shapes(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):
            return _raw(name, num_classes, options)
    except (NotImplementedError, RuntimeError):  # RegNet works out its widths with tensors
        with _EmptyOnMeta():
            return _raw(name, num_classes, options)


class _EmptyOnMeta(TorchFunctionMode):
    """Puts what layers are made of on the meta device, and lets all else be computed."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **(kwargs or {}) | device)


def _raw(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    if name.startswith(TORCHVISION):
        from torchvision import models

        short = name.removeprefix(TORCHVISION)
        return models.get_model(short, weights=None, num_classes=num_classes, **options)
    if name.startswith(TIMM):
        short = name.removeprefix(TIMM)
        return import_timm().create_model(short, num_classes=num_classes, **options)
    return inner_of(build(name, num_classes, **options))


def outlines(
    name: str, num_classes: int, options: Mapping[str, Any], input_size: int
) -> Iterator[tuple[dict[str, Any], nn.Module]]:
    """Outlines of an architecture with the options that are given, and with those that its files
    may mean beside.

    Raises:
        UserError: as `outline`, for what is given.
    """
    given = dict(options)
    yield given, outline(name, num_classes, given)
    more: dict[str, Any] = {}
    make = getattr(ARCHITECTURES.get(name), "func", None)
    if make is CifarResNet:
        more = {"shortcut": "padded"}
    elif name in (f"{TORCHVISION}googlenet", f"{TORCHVISION}inception_v3"):
        more = {"aux_logits": False}
    elif name.startswith(f"{TORCHVISION}vit_"):
        more = {"image_size": input_size}
    elif name.startswith(TIMM):
        more = {"img_size": input_size}
    if set(more) <= set(given):
        return
    try:
        module = _shapes(name, num_classes, more | given)
    except Exception:  # of timm's networks not all have a size
        return
    yield more | given, module


def architectures_for(weights: Weights, channels: int, advance: Advance) -> list[str]:
    """Names of the known architectures that the weights would fit, the first few.

    Own and published ones and torchvision's; if none fits, timm's where it is installed.
    """
    sizes = [_sizes(candidate.state) for candidate in weights.choices]
    there = {
        ending for one in weights.choices for name in one.state for ending in _endings(_kind(name))
    }
    found: list[str] = []
    for names in (_here(), _of_timm()):
        for name in names:
            advance(1, name)
            module = _alike(name, sizes, there)
            if module is not None and _would_fit(module, weights, channels):
                found.append(name)
            if len(found) == MOST:
                return found
        if found:
            break
    return found


def _alike(
    name: str, sizes: Sequence[frozenset[tuple[int, ...]]], there: AbstractSet[str]
) -> nn.Module | None:
    """Outline of an architecture whose kernels, and most kinds of its names, a file has."""
    any_size = frozenset[tuple[int, ...]]().union(*sizes)
    foreign = itertools.count(1)

    def check(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        if parameter is None or _sizes({name: parameter}) <= any_size:
            return
        if parameter.shape[-1] > 1 or next(foreign) > TRIAL_LAYERS:
            raise _Foreign

    handle = register_module_parameter_registration_hook(check)
    try:
        with warnings.catch_warnings(action="ignore"):  # GoogLeNet's, of values that it has none of
            module = _shapes(name, CLASSES, {})
    except Exception:  # foreign kernels; or one that cannot be built here is none to choose
        return None
    finally:
        handle.remove()
    kinds = {_kind(key) for key in module.state_dict() if not counted(key)}
    alike = len(kinds & there) >= ALIKE * len(kinds)
    return module if alike and any(_sizes(module.state_dict()) <= size for size in sizes) else None


class _Foreign(Exception):
    """A network gets kernels of sizes that no kernel of a file has: the rest is not built."""


def _would_fit(module: nn.Module, weights: Weights, channels: int) -> bool:
    own = with_channels(module, channels)
    for candidate in weights.choices:
        try:
            fit(own, slots_of(module), candidate.state, ordered=weights.ordered)
        except NoFit:
            continue
        return True
    return False


def _sizes(state: Mapping[str, Tensor]) -> frozenset[tuple[int, ...]]:
    """Shapes of the kernels: those of a network that fits are all in the file. How many colours
    one takes does not count."""
    return frozenset(
        (tensor.shape[0], tensor.shape[1] * (tensor.shape[1] > 3), *tensor.shape[2:])
        for tensor in state.values()
        if tensor.ndim == 4
    )


def _here() -> Iterator[str]:
    yield from ARCHITECTURES
    yield from PUBLISHED
    from torchvision import models

    yield from (f"{TORCHVISION}{name}" for name in models.list_models(module=models))


def _of_timm() -> Iterator[str]:
    try:
        timm = import_timm()
    except UserError:
        return
    yield from (f"{TIMM}{name}" for name in timm.list_models())


def _kind(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _endings(name: str) -> list[str]:
    """A name, and what remains of it without its first parts, which may be a wrapper's."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
