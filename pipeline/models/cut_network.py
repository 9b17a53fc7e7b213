"""Network made of any module: its parts run the module's own layers, under the module's own keys.

Whatever the cut is, the state dict is the module's own under the prefix `model.`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.recording import Steps

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
PREFIX = "model."
ENDS = "ends_the_pass"  # mark of a module with a hook at which the forward pass may end
_pass = threading.local()  # `ends_at`: where this thread's pass ends, which the tail's does not
PLAIN: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "leaky_relu": nn.LeakyReLU,
}
EVERY = slice(None)
# index that makes maps of one position of vectors, by whether the channels are the last axis
SPREAD = {False: (EVERY, EVERY, None, None), True: (EVERY, None, None, EVERY)}


class Reached(Exception):
    """Ends a forward pass at the cut, with the value there."""

    def __init__(self, value: Tensor) -> None:
        super().__init__("the forward pass ends here")
        self.value = value


class CutNetwork(Network):
    """A module as it came, in two parts.

    Args:
        model: the module; it becomes the child `model`.
        name: of the architecture, for errors.
        num_classes: its outputs.

    Attributes:
        cut_reason: why the cut is no better one; empty for a map.
        told: what was made of the module's output and signature; empty if nothing.
        map_shape: of the features of one image, as [512, 7, 7].
        side: of the images in pixels with which the cut was found.
        own_names: for each prefix of the module's state-dict keys, the one here.
    """

    classifier_name = ""

    def __init__(self, model: nn.Module, name: str, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.cut = "logits"
        self.cut_reason = ""
        self.told = ""
        self.feature_channels = num_classes
        self.map_shape: tuple[int, ...] = (num_classes,)
        self.side = 0
        self.own_names = {"": PREFIX}
        self.sample = torch.empty(0)
        self.stop: tuple[str, bool] | None = None
        self.before: Steps | None = None
        self.after: Steps | None = None
        self.reached: frozenset[str] = frozenset()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.rows_only = False
        self.dropped = False
        self._outputs = num_classes

    @property
    def classifier(self) -> nn.Module:
        """The tail as a module of its own: one layer, several in a row, or a recorded graph.

        Its layers are those of the network, not copies.
        """
        if self.after is None:
            return nn.Identity()
        tail = as_layers(self, self.after.graph) or fx.GraphModule(self, self.after.graph, "Tail")
        return tail.train(self.training)

    @property
    def num_classes(self) -> int:
        if self.dropped:
            raise TypeError(f"this {type(self).__name__} has no classifier")
        return self._outputs

    def whole(self, images: Tensor) -> Tensor:
        """Logits [B, classes] by the module's own forward pass."""
        return logits_of(self.model(images), self.name)

    def whole_of_sample(self) -> Tensor:
        """The same for `sample`."""
        return self.whole(self.sample)

    def features(self, images: Tensor) -> Tensor:
        with self._any_layout():
            if self.stop is not None:
                images = self._until(*self.stop, images)
            elif self.before is None:
                return self.whole(images)
            return images if self.before is None else self.before.run(self, images)

    def classify(self, pooled: Tensor) -> Tensor:
        return pooled if self.after is None else self.after.run(self, pooled)

    def drop(self) -> None:
        """Takes away what only the tail uses; `classify` does nothing from then on."""
        if self.cut == "logits":
            return
        recorded = self.before is not None and self.stop is None
        if recorded and self.before:
            used = {
                str(node.target) for node in self.before.graph.nodes if isinstance(node.target, str)
            }
        else:
            used = set(self.reached)
        _take_out(self.model, "model", used, recorded, self.shapes)
        self.after = None
        self.dropped = True

    def _until(self, path: str, before: bool, images: Tensor) -> Tensor:
        """The value at a module: the forward pass of the module's own code ends there."""
        module = self.get_submodule(path)
        if not vars(module).get(ENDS):  # it is another one than before, as after `fuse`
            if before:
                module.register_forward_pre_hook(_end_before)
            else:
                module.register_forward_hook(_end_after)
            vars(module)[ENDS] = True
        if torch.compiler.is_exporting():  # which leaves out what nothing comes of
            return self._seen(module, before, images)
        _pass.ends_at = module
        try:
            self.model(images)
        except Reached as end:
            return end.value
        finally:
            _pass.ends_at = None
        raise RuntimeError(f"{self.name}: the forward pass did not come to '{path}'")

    def _seen(self, module: nn.Module, before: bool, images: Tensor) -> Tensor:
        """The value at a module in a whole forward pass: an exporter takes no pass that ends."""
        found: list[Tensor] = []
        if before:
            hook = module.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
        else:
            hook = module.register_forward_hook(lambda module, inputs, out: found.append(out))
        try:
            self.model(images)
        finally:
            hook.remove()
        return found[0]

    def _any_layout(self) -> AbstractContextManager:
        return Reshaping() if self.rows_only else nullcontext()


class Reshaping(TorchFunctionMode):
    """Makes `view` work whatever the layout of a tensor in memory is, as `reshape` does."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is Tensor.view and not any(isinstance(arg, torch.dtype) for arg in args):
            func = Tensor.reshape
        return func(*args, **(kwargs or {}))


def _end_before(module: nn.Module, inputs: tuple) -> None:
    if getattr(_pass, "ends_at", None) is module:
        raise Reached(inputs[0])


def _end_after(module: nn.Module, inputs: tuple, output: Tensor) -> None:
    if getattr(_pass, "ends_at", None) is module:
        raise Reached(output)


class Gone(nn.Module):
    """Stands for a module that was taken away: zeros of the shape that it gave.

    Args:
        shape: for one image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros((x.shape[0], *self.shape))


def logits_of(output: Any, name: str) -> Any:
    """The logits in what a module returns: `.logits`, `["logits"]`, the first of several, or all.

    Raises:
        UserError: there are none that could be told.
    """
    return _logits_of(output, name)[0]


def how_told(output: Any, name: str) -> str:
    """What `logits_of` takes, in words; empty if the output is a tensor."""
    return _logits_of(output, name)[1]


def _logits_of(output: Any, name: str) -> tuple[Any, str]:
    if isinstance(output, Tensor | fx.Proxy):
        return output, ""
    if isinstance(output, Mapping):
        if "logits" in output:
            return output["logits"], "its logits are output['logits']"
        if len(output) == 1:
            (key,) = output
            return output[key], f"its logits are output['{key}']"
        keys = ", ".join(map(str, output))
        raise UserError(f"{name} returns a dict with {keys}: which are the logits?", LOGITS)
    if isinstance(getattr(output, "logits", None), Tensor | fx.Proxy):
        return output.logits, "its logits are output.logits"
    if isinstance(output, tuple | list) and output:
        found, _ = _logits_of(output[0], name)
        return found, f"its logits are the first of {len(output)} outputs"
    raise UserError(f"{name} returns a {type(output).__name__}, no logits", LOGITS)


LOGITS = "return them alone, as .logits, as ['logits'] or as the first of a tuple"


def as_layers(network: nn.Module, graph: fx.Graph) -> nn.Module | None:
    """The layers of a graph in which one follows the other; None if it is more than that."""
    layers: list[tuple[str, nn.Module]] = []
    previous = None
    for node in graph.nodes:
        if node.op == "get_attr" and node.target == "training":
            continue
        if node.op == "placeholder":
            previous = node
            continue
        if node.op == "output":
            if node.args[0] is not previous:
                return None
            break
        inputs = [one for one in node.all_input_nodes if one.target != "training"]
        layer = _layer(network, node) if inputs == [previous] else None
        if layer is None:
            return None
        previous = node
        if type(layer) is nn.Identity:
            continue
        layers.append((str(node.target) if node.op == "call_module" else node.name, layer))
    if not layers:
        return nn.Identity()
    if len(layers) == 1:
        return layers[0][1]
    names = _short([name for name, _ in layers])
    return nn.Sequential(OrderedDict(zip(names, [layer for _, layer in layers], strict=True)))


def _layer(network: nn.Module, node: fx.Node) -> nn.Module | None:
    """The layer that does what a node does with its one input; None for other things."""
    if node.op == "call_module":
        alone = len(node.args) == 1 and not node.kwargs
        return network.get_submodule(str(node.target)) if alone else None
    given: list[Any] = list(node.args[1:])
    named: dict[str, Any] = dict(node.kwargs)
    name = str(getattr(node.target, "__name__", node.target))
    if name == "getitem" and given[0] in SPREAD.values():
        return nn.Unflatten(1, (1, 1, -1) if given[0] == SPREAD[True] else (-1, 1, 1))
    if name == "flatten" and [*given, *named.values()] in ([1], [1, -1]):
        return nn.Flatten(1)
    if name == "dropout" and node.target is functional.dropout:
        rate = given[0] if given else named.get("p", 0.5)
        follows = given[1] if len(given) > 1 else named.get("training")
        return nn.Dropout(float(rate)) if isinstance(follows, fx.Node) else None
    if name in ("log_softmax", "softmax") and named.get("dtype") is None:
        dim = given[0] if given else named.get("dim")
        return (
            (nn.LogSoftmax if name == "log_softmax" else nn.Softmax)(1) if dim in (1, -1) else None
        )
    plain = not any(given) and not any(value for key, value in named.items() if key != "inplace")
    return PLAIN[name]() if name in PLAIN and plain else None


def _short(names: list[str]) -> list[str]:
    """Names for the children of a sequence, each once, as short as they can be."""
    last = [name.rpartition(".")[2] for name in names]
    if len(set(last)) == len(last):
        return last
    found: list[str] = []
    for name in names:
        name = name.removeprefix(PREFIX).replace(".", "_")
        found.append(f"{name}_{len(found)}" if name in found else name)
    return found


def _take_out(
    module: nn.Module, path: str, used: set[str], graph: bool, shapes: dict[str, tuple[int, ...]]
) -> None:
    """Puts `Gone` in place of the children with parameters that are not `used`.

    Args:
        used: paths of modules; in a recorded graph, also of parameters.
        shapes: outputs of the modules for one image, by their paths.
    """
    if path in used and (graph or not any(module.children())):
        return
    for name in [name for name, _ in module.named_parameters(recurse=False)]:
        if f"{path}.{name}" not in used and graph:
            module.register_parameter(name, None)
    for name, child in list(module.named_children()):
        at = f"{path}.{name}"
        if any(one == at or one.startswith(f"{at}.") for one in used):
            _take_out(child, at, used, graph, shapes)
        elif any(True for _ in child.parameters()):
            setattr(module, name, Gone(shapes.get(at, ())))
