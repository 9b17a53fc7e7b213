"""Networks of timm, cut in two at their last spatial map."""

import difflib
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.errors import UserError
from pipeline.models.network import Network, pool
from pipeline.models.torchvision_network import Unregistered

SIDE = 64  # of the image that finds the map: small, and yet more than one position is left
TOLERANCE = 1e-4


def timm_network(name: str, num_classes: int, **options: Any) -> Network:
    """A network of timm with random weights.

    Args:
        name: as in `timm.list_models()`.
        options: of the model's constructor.

    Raises:
        UserError: timm is not installed, has no such model, or the model has no feature map that
            global average pooling and then a classifier follow.
    """
    timm = import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean 'timm/{near[0]}'?" if near else "see timm.list_models()"
        raise UserError(f"no architecture named 'timm/{name}'", hint)
    model = timm.create_model(name, num_classes=num_classes, **options)
    settings = model.pretrained_cfg
    fixed = settings.get("fixed_input_size")
    return cut(model, f"timm/{name}", settings["input_size"][-1] if fixed else SIDE)


def import_timm() -> Any:
    """The package timm.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError:
        raise UserError("timm is not installed", "install the extra 'teachers'") from None
    return timm


class CutNetwork(Network):
    """Modules of another network, in `features` up to its last spatial map and in `tail` after it.

    Attributes:
        own_names: for each prefix of the other network's state-dict keys, the one here.
    """

    classifier_name = "tail"

    def __init__(
        self,
        features: nn.Sequential,
        tail: nn.Sequential,
        channels: int,
        own_names: dict[str, str],
    ) -> None:
        super().__init__()
        self.features = features
        self.tail = tail
        self.feature_channels = channels
        self.own_names = own_names


class _NoCut(Exception):
    """Reason why a model cannot be cut."""


class _Outline(fx.Tracer):
    """Records a model's own forward pass; its children are not entered."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def cut(model: nn.Module, name: str, side: int = SIDE) -> Network:
    """`model` in two parts: up to its last spatial map, and everything after it.

    The last spatial map is the last output of a child of `model` that has channels and more than
    one position. What follows has to be the same function of the map's average as of the map.

    Args:
        name: of the model, for the error.
        side: of an image in pixels that leaves several positions.

    Raises:
        UserError: there is no such map, or no linear layer after it; the shape that the model has
            in its place is named.
    """
    shapes: list[torch.Size] = []
    hooks = [
        child.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
        for child in model.children()
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, side, side))
            return _cut(model, side)
    except NotImplementedError:  # on the meta device: not the model's fault
        raise
    except (_NoCut, RuntimeError, AssertionError, AttributeError) as reason:
        maps = [list(shape[1:]) for shape in shapes if len(shape) > 2]
        shape = f"its last map is {maps[-1]}" if maps else "it has no map"
        raise UserError(
            f"{name} has no feature map to share a classifier at ({shape} for {side}-pixel"
            f" images): {_first_line(reason)}",
            "choose a network in which layers follow a global average pooling",
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)


def _cut(model: nn.Module, side: int) -> CutNetwork:
    names, steps = _steps(model)
    outputs = [torch.zeros(1, 3, side, side)]
    for step in steps:
        outputs.append(step(outputs[-1]))
    shapes = [output.shape for output in outputs[1:]]
    spatial = [
        at for at, shape in enumerate(shapes) if len(shape) == 4 and math.prod(shape[2:]) > 1
    ]
    if not spatial:
        raise _NoCut("no map of several positions is left")
    place = spatial[-1] + 1
    channels = shapes[place - 1][1]
    features = _sequence(names[:place], steps[:place])
    tail = _sequence(names[place:], steps[place:])
    if not any(isinstance(layer, nn.Linear) for layer in tail.modules()):
        raise _NoCut("no linear layer follows")
    if not outputs[-1].is_meta:
        some = torch.randn(2, channels, 3, 3, generator=torch.Generator().manual_seed(0))
        if not torch.allclose(tail(some), tail(pool(some)[:, :, None, None]), atol=TOLERANCE):
            raise _NoCut("what follows takes more than the average of the map")
    own = [f"features.{name}." for name in _child_names(names[:place])]
    own += [f"tail.{name}." for name in _child_names(names[place:])]
    pooled = nn.Unflatten(1, (channels, 1, 1))
    tail = _sequence(["pooled", *names[place:]], [pooled, *steps[place:]])
    own_names = {f"{name}.": new for name, new in zip(names, own, strict=True)}
    return CutNetwork(features, tail, channels, own_names)


def _steps(model: nn.Module) -> tuple[list[str], list[nn.Module]]:
    """What the forward pass does, one after the other, and where each step stands in `model`."""
    names, steps = [], []
    before = None
    for node in _Outline().trace(model).nodes:
        if node.op in ("placeholder", "output"):
            before = node if node.op == "placeholder" else before
            continue
        if node.all_input_nodes != [before]:
            raise _NoCut(f"its parts do not follow one another at '{node.name}'")
        before = node
        if node.op == "call_module":
            module = model.get_submodule(node.target)
        else:
            call = node.target if callable(node.target) else getattr(Tensor, node.target)
            module = Unregistered(call, *node.args[1:], **node.kwargs)
        names.append(str(node.target) if node.op == "call_module" else node.name)
        steps.append(module)
    return names, steps


def _sequence(names: Sequence[str], steps: Sequence[nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(zip(_child_names(names), steps, strict=True)))


def _child_names(names: Sequence[str]) -> list[str]:
    """Names for the children of a sequence, each once: an activation may be used twice."""
    found: list[str] = []
    for name in names:
        name = name.replace(".", "_")
        found.append(f"{name}_{len(found)}" if name in found else name)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
