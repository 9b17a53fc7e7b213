"""Cut of a program of torch at the input of its last linear layer, where its graph shows that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

LOGITS, FEATURES = "logits", "features"
SOFTMAX = ("softmax", "_softmax", "log_softmax", "_log_softmax")
SAME = ("dropout", "dropout_", "feature_dropout", "identity", "alias", "detach", "clone")
FLAT = ("flatten", "reshape", "view", "squeeze", "_unsafe_view")


@dataclass(frozen=True)
class CutProgram:
    """A program that answers with its logits and with what its last linear layer is given.

    Attributes:
        run: images → logits, features.
        softmax: a softmax behind the logits is left out.
    """

    run: Callable[[Tensor], tuple[Tensor, Tensor]]
    weight: Tensor
    bias: Tensor | None
    softmax: bool


def cut_exported(module: fx.GraphModule) -> CutProgram | None:
    """Cuts the module of an exported program; None where its graph does not end as it should."""
    end = next(node for node in module.graph.nodes if node.op == "output")
    given: Any = end.args[0]
    while isinstance(given, tuple | list) and len(given) == 1:
        given = given[0]
    if not isinstance(given, fx.Node):
        return None
    logits = _same(given)
    softmax = _name(logits) in SOFTMAX and logits.args[1] in (-1, 1)
    logits = _same(logits.args[0]) if softmax else logits
    if _name(logits) == "linear":
        features, weight, bias = (*logits.args, None)[:3]
    elif _name(logits) == "addmm" and _name(logits.args[2]) in ("t", "permute", "transpose"):
        bias, features, turned = logits.args[:3]
        weight = turned.args[0]
    else:
        return None
    parts = [_stored(module, weight), None if bias is None else _stored(module, bias)]
    if parts[0] is None or (bias is not None and parts[1] is None):
        return None
    features = _same(features)
    place = _same(features)
    while _name(place) in FLAT:
        place = _same(place.args[0])
    pooled = _name(place) == "adaptive_avg_pool2d" and list(place.args[1]) == [1, 1]
    pooled = pooled or (_name(place) == "mean" and sorted(place.args[1]) in ([2, 3], [-2, -1]))
    wanted = [logits, place.args[0] if pooled else features]

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        seen = _Watched(module, wanted)
        seen.run(images)
        return seen.values[wanted[0]], seen.values[wanted[1]]

    return CutProgram(run, parts[0], parts[1], softmax)


def cut_script(module: Any) -> CutProgram | None:
    """Cuts a TorchScript module; None where its graph does not end as it should."""
    try:
        graph = torch.jit.freeze(module).graph.copy()
    except RuntimeError:  # freezing refuses what writes to its own attributes
        return None
    torch._C._jit_pass_inline(graph)
    inputs, outputs = list(graph.inputs()), list(graph.outputs())
    if len(inputs) != 2 or list(inputs[0].uses()) or len(outputs) != 1:
        return None
    logits = _same_value(outputs[0])
    softmax = _kind(logits) in SOFTMAX and _constant(logits, 1) in (-1, 1)
    logits = _same_value(_given(logits)) if softmax else logits
    if _kind(logits) != "linear":
        return None
    features, weight, bias = list(logits.node().inputs())
    stored = weight.toIValue(), bias.toIValue()
    if not isinstance(stored[0], Tensor):
        return None
    features = place = _same_value(features)
    while _kind(place) in FLAT:
        place = _same_value(_given(place))
    pooled = _kind(place) == "adaptive_avg_pool2d" and _constant(place, 1) == [1, 1]
    if _kind(place) == "mean":
        pooled = sorted(_constant(place, 1) or []) in ([2, 3], [-2, -1])
    features = _given(place) if pooled else features
    both = graph.create("prim::TupleConstruct", [logits, features], 1)
    graph.appendNode(both)
    both.output().setType(torch._C.TupleType([logits.type(), features.type()]))
    graph.eraseOutput(0)
    graph.registerOutput(both.output())
    graph.eraseInput(0)
    run = torch._C._create_function_from_graph("cut", graph)
    return CutProgram(run, stored[0], stored[1], softmax)


class _Watched(fx.Interpreter):
    """A pass through a graph that keeps the values of some of its nodes."""

    def __init__(self, module: fx.GraphModule, nodes: list[fx.Node]) -> None:
        super().__init__(module)
        self._wanted, self.values = nodes, dict[fx.Node, Tensor]()

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if node in self._wanted:
            self.values[node] = value
        return value


def _name(node: Any) -> str:
    """Name of the operation of a node, without its overload."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return ""
    return getattr(getattr(node.target, "overloadpacket", None), "__name__", "")


def _same(node: Any) -> Any:
    while _name(node) in SAME:
        node = node.args[0]
    return node


def _stored(module: fx.GraphModule, node: Any) -> Tensor | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value.detach()


def _kind(value: Any) -> str:
    return value.node().kind().removeprefix("aten::")


def _given(value: Any) -> Any:
    return next(iter(value.node().inputs()))


def _constant(value: Any, place: int) -> Any:
    return list(value.node().inputs())[place].toIValue()


def _same_value(value: Any) -> Any:
    while _kind(value) in SAME:
        value = _given(value)
    return value
