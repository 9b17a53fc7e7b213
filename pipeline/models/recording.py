"""Record of what a network does with images, from which its parts are cut.

The forward pass is recorded with torch.fx: calls of modules as they are, and what the code between
them does with tensors. A module is entered only where the cut may lie inside it. Where code cannot
be recorded (it asks for the values or sizes of tensors), it runs on real images up to a layer whose
output is recorded from then on.
"""

import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from kd3_pipeline.errors import first_line


@dataclass(frozen=True)
class Call:
    """One call of a module in a forward pass.

    Attributes:
        path: of the module in the model, as `layer4.1`; empty for the model itself.
        inside: paths of the modules whose forward called it, the outermost first.
        shape: of the output; empty if that is no tensor.
        begun, ended: place in the order of all calls' begins and ends.
        own: the module itself has parameters, not only its children.
    """

    path: str
    inside: tuple[str, ...]
    shape: tuple[int, ...]
    begun: int
    ended: int
    own: bool


@dataclass
class _Log:
    calls: list[Call] = field(default_factory=list)
    open: list[tuple[str, int]] = field(default_factory=list)
    clock: int = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock


def watched(model: nn.Module, images: Tensor) -> tuple[list[Call], Any]:
    """The calls of a forward pass in the order in which they end, and the model's output."""
    log = _Log()

    def begin(path: str) -> Callable[..., None]:
        return lambda module, inputs: log.open.append((path, log.tick()))

    def end(path: str, own: bool) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            begun = log.open.pop()[1]
            inside = tuple(outer for outer, _ in log.open)
            shape = tuple(output.shape) if isinstance(output, Tensor) else ()
            log.calls.append(Call(path, inside, shape, begun, log.tick(), own))

        return hook

    hooks = []
    for path, module in model.named_modules():
        if path and isinstance(module, torch.jit.ScriptModule):  # it takes no hooks
            continue
        own = any(True for _ in module.parameters(recurse=False))
        hooks.append(module.register_forward_pre_hook(begin(path)))
        hooks.append(module.register_forward_hook(end(path, own)))
    try:
        return log.calls, model(images)
    finally:
        for hook in hooks:
            hook.remove()


STAND_IN = re.compile(r"Proxy\([^)]*\)")  # a value in the text of a check, at the time of recording


class Unrecordable(Exception):
    """Reason why a forward pass cannot be recorded."""


class Recorder(fx.Tracer):
    """Records `whole(images)` of a network, with the paths of modules as they are in it.

    Args:
        entered: paths of the modules whose own code is recorded, not their call.
        start: path of the module from whose output the record goes on: all before it runs on
            `network.sample`. None: a record of the whole pass.
        before: the record goes on from the input of `start` instead.
    """

    proxy_buffer_attributes = True

    def __init__(self, entered: set[str], start: str | None = None, before: bool = False) -> None:
        super().__init__()
        self.entered = entered
        self.start = start
        self.before = before
        self.started = start is None
        self.traced_func_name = "whole" if start is None else "whole_of_sample"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.entered

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self.started:
            return super().call_module(m, forward, args, kwargs)
        if self.path_of_module(m) != self.start:
            return forward(*args, **kwargs)
        if not self.before:
            forward(*args, **kwargs)
        self.started = True
        start = self.create_proxy("placeholder", "start", (), {})
        return super().call_module(m, forward, (start,), {}) if self.before else start

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if not self.started:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def record(network: nn.Module, recorder: Recorder) -> fx.Graph:
    """The graph of `network.whole`, that is what training and evaluation have in common.

    Raises:
        Unrecordable: the code asks for what only a real tensor has, or does one thing in training
            and another in evaluation.
    """
    known = set(vars(network))
    try:
        graphs = []
        for mode in (False, True):
            with _undone(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
                network.train(mode)
                recorder.started = recorder.start is None
                graphs.append(recorder.trace(network))
    except Exception as error:  # stand-ins for tensors go through any code, which may fail anyhow
        raise Unrecordable(first_line(error)) from None
    finally:
        for name in set(vars(network)) - known:  # constants become buffers: they follow the device
            value = vars(network).pop(name)
            if isinstance(value, Tensor):
                network.register_buffer(name, value, persistent=False)
    if not isinstance(answer(graphs[0]), fx.Node):
        raise Unrecordable("its answer does not come from what is recorded")
    _follow_training(network, *graphs)
    return graphs[0]


@contextmanager
def _undone(network: nn.Module) -> Iterator[None]:
    """Takes back what is done to a network's modules: modes, buffers, attributes that are set."""
    modes = [(module, module.training) for module in network.modules()]
    kept = [
        (module, dict(vars(module)), dict(module.named_buffers(recurse=False)))
        for module in network.modules()
        if module is not network and not isinstance(module, torch.jit.ScriptModule)
    ]
    values = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for module, attributes, buffers in kept:
            vars(module).clear()
            vars(module).update(attributes)
            for name, _ in list(module.named_buffers(recurse=False)):
                if name not in buffers:
                    delattr(module, name)
            for name, buffer in buffers.items():
                setattr(module, name, buffer)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


def answer(graph: fx.Graph) -> fx.Node:
    """The node of the logits."""
    return next(iter(reversed(graph.nodes))).args[0]


class _Flag:
    """Stands for an argument that is the training mode."""


FLAG = _Flag()


def _follow_training(network: nn.Module, evaluation: fx.Graph, training: fx.Graph) -> None:
    """Makes `evaluation` right for both modes: an argument that is the mode becomes a lookup.

    Raises:
        Unrecordable: what the answer comes from differs in more.
    """
    pairs: dict[fx.Node, fx.Node] = {}
    found: dict[fx.Node, tuple[Any, Any]] = {}
    waiting = [(answer(evaluation), answer(training))]

    def both(one: Any, other: Any) -> Any:
        if isinstance(one, fx.Node) and isinstance(other, fx.Node):
            waiting.append((one, other))
            return one
        if isinstance(one, list | tuple) and isinstance(other, list | tuple):
            if len(one) == len(other):
                values = [both(*pair) for pair in zip(one, other, strict=True)]
                return tuple(values) if isinstance(one, tuple) else values
        elif isinstance(one, Mapping) and isinstance(other, Mapping):
            if one.keys() == other.keys():
                return {key: both(value, other[key]) for key, value in one.items()}
        elif isinstance(one, slice) and isinstance(other, slice):
            parts = both((one.start, one.stop, one.step), (other.start, other.stop, other.step))
            return slice(*parts)
        elif one is False and other is True:
            return FLAG
        elif type(one) is type(other) and one == other:
            return one
        raise Unrecordable("it does another thing in training than in evaluation")

    while waiting:
        one, other = waiting.pop()
        if pairs.setdefault(one, other) is not other:
            raise Unrecordable("it does another thing in training than in evaluation")
        if one in found:
            continue
        same = one.op == other.op and one.target == other.target
        if not same and not _same_constant(network, one, other):
            raise Unrecordable("it does another thing in training than in evaluation")
        found[one] = (both(one.args, other.args), both(one.kwargs, other.kwargs))
    for node, (args, kwargs) in found.items():
        node.args, node.kwargs = _with_flags(evaluation, node, args, kwargs)


def _same_constant(network: nn.Module, one: fx.Node, other: fx.Node) -> bool:
    """Tells whether both records made a tensor of their own, of the same values."""
    if (one.op, other.op) != ("get_attr", "get_attr"):
        return False
    values = vars(network) | dict(network.named_buffers())
    mine, theirs = (values.get(str(node.target)) for node in (one, other))
    return isinstance(mine, Tensor) and isinstance(theirs, Tensor) and torch.equal(mine, theirs)


def _with_flags(graph: fx.Graph, node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, Any]:
    def put(value: Any) -> Any:
        if value is FLAG:
            with graph.inserting_before(node):
                return graph.create_node("get_attr", "training")
        if isinstance(value, tuple):
            return tuple(put(one) for one in value)
        if isinstance(value, list):
            return [put(one) for one in value]
        return {key: put(one) for key, one in value.items()} if isinstance(value, dict) else value

    return put(args), put(kwargs)


def part(graph: fx.Graph, last: fx.Node, first: fx.Node | None = None) -> fx.Graph | None:
    """The graph of `last` as a function of `first` alone; None if it depends on more.

    Args:
        first: None for what the graph itself takes.
    """
    counts: set[fx.Node] = set()
    needed = _needed(last, first, counts)
    inputs = {node for node in needed if node.op == "placeholder"}
    if first is not None and (inputs - {first} or first not in needed):
        return None
    if first is None:  # checks of sizes are no part of any result
        for node in graph.nodes:
            if node is last:
                break
            needed |= _needed(node, None, set()) if _checks(node) else set()
    new = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    if first is not None:
        values[first] = new.placeholder("x")
        values |= {node: new.call_method("size", (values[first], 0)) for node in counts}
    for node in graph.nodes:
        if node in needed and node not in values:
            values[node] = new.node_copy(node, values.__getitem__)
            if _checks(node) and isinstance(text := node.args[-1], str):
                values[node].update_arg(1, STAND_IN.sub("another", text))
            if node.op == "call_method" and node.target == "view" and _sizes(node.args[1:]):
                values[node].target = "reshape"  # the same, for any layout in memory
    if first is None and not any(node.op == "placeholder" for node in new.nodes):
        return None
    new.output(values[last])
    return new


def _needed(last: fx.Node, first: fx.Node | None, counts: set[fx.Node]) -> set[fx.Node]:
    """Nodes that `last` is computed from, back to `first`.

    Args:
        counts: gets those that are no more than the number of images, which `first` has too.
    """
    needed: set[fx.Node] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node in needed:
            continue
        needed.add(node)
        if first is not None and node is not first and _counts_images(node):
            counts.add(node)
        elif node is not first:
            waiting += node.all_input_nodes
    return needed


def _counts_images(node: fx.Node) -> bool:
    """Tells whether a node is the first size of a tensor: `x.size(0)`, `x.shape[0]`."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    if node.target is not operator.getitem or node.args[1] != 0:
        return False
    of = node.args[0]
    shape = isinstance(of, fx.Node) and of.target is getattr and of.args[1] == "shape"
    whole = isinstance(of, fx.Node) and of.target == "size" and len(of.args) == 1
    return bool(shape or whole)


def _checks(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "_assert"


def _sizes(args: Sequence[Any]) -> bool:
    return not any(isinstance(arg, torch.dtype) for arg in args)


class Steps:
    """A graph as code that runs on a network, whose modules it finds by their names."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        self.graph = graph
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `training` is neither a module nor a parameter
            self.run = type(fx.GraphModule(network, graph)).forward

    def __deepcopy__(self, memo: dict) -> "Steps":
        return self


class Values(fx.Interpreter):
    """Runs a graph, and keeps of each node's tensor what `keep` makes of it."""

    def __init__(self, network: nn.Module, graph: fx.Graph, keep: Callable[[Tensor], Any]) -> None:
        super().__init__(network, graph=graph)
        self.keep = keep
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = self.keep(value)
        return value
