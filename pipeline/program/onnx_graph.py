"""ONNX graph of a classifier: its output, its last linear layer, and what that is given."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.extras import ONNX, install

LIBRARIES = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # whose operations onnxruntime has
LARGEST = 2**31 - 1  # bytes of one message of protocol buffers
MOST_NODES = 1_000_000  # of a graph, once all of its functions are written out


@dataclass(frozen=True)
class Tail:
    """The last linear layer: weight float32 [classes, C] and bias [classes]."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class OnnxGraph:
    """A graph that answers with logits, and with features where it has a last linear layer.

    Attributes:
        data: the file anew, with all of its weights inside.
        outputs: the logits, and the features if there is a tail.
        pooled: the features are a map that a global average pooling follows.
        about: what `pipeline export` has written into it, as JSON; empty: nothing.
        notes: what was left out or cut off, for the user.
    """

    data: bytes
    outputs: list[str]
    tail: Tail | None
    pooled: bool
    about: str
    parameters: int
    notes: list[str] = field(default_factory=list)


def read_onnx(path: Path, output: str = "") -> OnnxGraph:
    """Reads a graph without running it.

    Args:
        output: name of the logits; empty: the only output, or that called logits.

    Raises:
        UserError: it is damaged, or reads files elsewhere, or needs a library of its own, or which
            output is meant cannot be told; or the package onnx is not installed.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError:
        raise UserError(f"{path}: the package onnx is not installed", install(*ONNX)) from None
    try:
        model = onnx.load(path, load_external_data=False)
        _take_in(model, path)
        _check_calls(model, path)
        model = inliner.inline_local_functions(model)
        _check_libraries(model.graph, path)
        return _read(model, output)
    except UserError:
        raise
    except Exception as error:  # protocol buffers, checks of onnx in C++, and what they let pass
        raise UserError(f"teacher.path: {path} is no ONNX graph: {first_line(error)}") from None


def _read(model: Any, output: str) -> OnnxGraph:
    from onnx import TensorProto, helper

    notes: list[str] = []
    graph = model.graph
    logits = chosen_output([one.name for one in graph.output], _ranks(graph.output), output)
    search = _Search(graph)
    before = search.before_softmax(logits)
    if before != logits:
        notes.append(f"its softmax is cut off: '{before}' are the logits, not '{logits}'")
    found = search.last_linear(before)
    outputs, tail, pooled = [before], None, False
    if found:
        features, tail = found
        place = search.before_pooling(features)
        pooled = place is not None
        outputs.append(place or features)
    del graph.output[:]
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    about = {one.key: one.value for one in model.metadata_props}.get("about", "")
    kinds = _numbers(TensorProto)
    sizes = [int(np.prod(one.dims)) for one in graph.initializer if one.data_type in kinds]
    data = model.SerializeToString(deterministic=True)
    return OnnxGraph(data, outputs, tail, pooled, about, sum(sizes), notes)


def chosen_output(names: Sequence[str], ranks: Sequence[int | None], wanted: str) -> str:
    """The output that holds the logits.

    Args:
        ranks: dimensions of each; None where they are not known.

    Raises:
        UserError: it is not there, or several could be meant.
    """
    listed = ", ".join(names[:10])
    if wanted:
        if wanted not in names:
            raise UserError(f"teacher.output: no output '{wanted}'", f"it has {listed}")
        return wanted
    fitting = [name for name, rank in zip(names, ranks, strict=True) if rank in (2, None)]
    if len(names) == 1:
        return names[0]
    if "logits" in names:
        return "logits"
    if len(fitting) == 1:
        return fitting[0]
    raise UserError(
        f"teacher.output: the program has {len(names)} outputs ({listed})",
        "set it to the name of the logits",
    )


class _Search:
    """Walks back through a graph from its output."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._made = {name: node for node in graph.node for name in node.output}
        self._known = {one.name: one for one in graph.initializer}
        self._array = numpy_helper.to_array

    def before_softmax(self, name: str) -> str:
        """The name of what a last softmax, or its logarithm, is given; `name` without one."""
        node = self._node(name)
        softmax = node is not None and node.op_type in ("Softmax", "LogSoftmax")
        if not softmax or _attribute(node, "axis", -1) not in (-1, 1):
            return name
        return self._same(node.input[0])

    def last_linear(self, logits: str) -> tuple[str, Tail] | None:
        """Input and weights of the linear layer that gives the logits."""
        node = self._node(logits)
        if node is None:
            return None
        if node.op_type == "Gemm":
            plain = all(_attribute(node, key, 1.0) == 1.0 for key in ("alpha", "beta"))
            weight = self._constant(node.input[1])
            bias = self._constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
            if not plain or _attribute(node, "transA", 0) or weight is None or bias is None:
                return None
            weight = weight if _attribute(node, "transB", 0) else weight.T
            return self._tail(node.input[0], weight, bias)
        bias = np.zeros(1)
        if node.op_type == "Add":
            sides = [(a, self._constant(b)) for a, b in (node.input, node.input[::-1])]
            inner = [(name, value) for name, value in sides if value is not None]
            if len(inner) != 1:
                return None
            node, bias = self._node(inner[0][0]), inner[0][1]
        if node is None or node.op_type != "MatMul":
            return None
        weight = self._constant(node.input[1])
        return None if weight is None else self._tail(node.input[0], weight.T, bias)

    def before_pooling(self, features: str) -> str | None:
        """The map of which the features are the mean over its places, if the graph has one."""
        node = self._node(features)
        for _ in self._made:  # and no further, as a graph that is damaged may go in a circle
            if node is None or node.op_type not in ("Flatten", "Reshape", "Squeeze"):
                break
            node = self._node(node.input[0])
        if node is None:
            return None
        if node.op_type == "GlobalAveragePool":
            return node.input[0]
        if node.op_type == "ReduceMean":
            axes = _attribute(node, "axes", None)
            if axes is None and len(node.input) > 1:
                value = self._constant(node.input[1])
                axes = None if value is None else value.tolist()
            if axes is not None and sorted(axes) in ([2, 3], [-2, -1]):
                return node.input[0]
        return None

    def _tail(self, name: str, weight: np.ndarray, bias: np.ndarray) -> tuple[str, Tail] | None:
        if weight.ndim != 2 or bias.size not in (1, len(weight)):
            return None
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),))
        return self._same(name), Tail(weight.astype(np.float32), bias.astype(np.float32))

    def _same(self, name: str) -> str:
        for _ in self._made:
            node = self._made.get(name)
            if node is None or node.op_type not in ("Identity", "Dropout"):
                break
            name = node.input[0]
        return name

    def _node(self, name: str) -> Any:
        return self._made.get(self._same(name))

    def _constant(self, name: str) -> np.ndarray | None:
        name = self._same(name)
        if name in self._known:
            return self._array(self._known[name])
        node = self._made.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            values = [one.t for one in node.attribute if one.name == "value"]
            return self._array(values[0]) if values else None
        if node.op_type == "Transpose" and list(_attribute(node, "perm", [1, 0])) == [1, 0]:
            inner = self._constant(node.input[0])
            return None if inner is None else inner.T
        return None


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx.helper import get_attribute_value

    found = [get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


def _numbers(kinds: Any) -> tuple[int, ...]:
    return kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE, kinds.INT8, kinds.UINT8


def _ranks(values: Any) -> list[int | None]:
    types = [one.type.tensor_type for one in values]
    return [len(one.shape.dim) if one.HasField("shape") else None for one in types]


def _take_in(model: Any, path: Path) -> None:
    """Reads weights that lie in files beside the graph, which have to be in its own folder."""
    from onnx import external_data_helper as helper

    total = path.stat().st_size
    for tensor in _tensors(model.graph):
        if not helper.uses_external_data(tensor):
            continue
        told = {one.key: one.value for one in tensor.external_data}
        location = told.get("location", "")
        name = PurePosixPath(location)
        beside = path.parent / name
        if name.is_absolute() or ".." in name.parts or "\\" in location or ":" in location:
            raise UserError(
                f"teacher.path: {path} reads its weights from {location!r}, outside of its folder",
                "it is not opened: export it again, with its weights inside",
            )
        inside = path.parent.resolve() in beside.resolve().parents
        own = inside and not beside.is_symlink() and beside.is_file()
        if not own or beside.stat().st_nlink > 1:
            raise UserError(
                f"teacher.path: {path} has weights in {location[:80]!r}, which is"
                f" {'a link' if own else 'not'} beside it",
                "put that file there, as a file and no link (`cp --remove-destination`)",
            )
        total += int(told.get("length") or beside.stat().st_size)
        if total > LARGEST:
            raise UserError(
                f"teacher.path: {path} and the files beside it have more than 2 GB, which one ONNX"
                " file cannot hold",
                "export it in float16, or by torch.export.save",
            )
    helper.load_external_data_for_model(model, str(path.parent))


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that is stored in a graph and in the graphs of its branches."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                if inner.node or inner.initializer:
                    yield from _tensors(inner)


def _check_calls(model: Any, path: Path) -> None:
    """Raises a UserError where functions that call each other would fill the memory."""
    bodies = {(one.domain, one.name, one.overload): one.node for one in model.functions}
    sizes: dict[tuple[str, str, str], float] = {}

    def size(nodes: Any) -> float:
        return sum(map(cost, nodes))

    def cost(node: Any) -> float:
        called = node.domain, node.op_type, node.overload
        if called in bodies and called not in sizes:
            sizes[called] = math.inf  # of one that calls itself
            sizes[called] = size(bodies[called])
        inside = (g for one in node.attribute for g in [one.g, *one.graphs])
        return sizes.get(called, 1) + sum(size(graph.node) for graph in inside)

    if size(model.graph.node) > MOST_NODES:
        raise UserError(
            f"teacher.path: {path} calls functions within functions until they are more than"
            f" {MOST_NODES:,} operations",
            "it is not opened: export it again without functions",
        )


def _check_libraries(graph: Any, path: Path) -> None:
    for node in graph.node:
        if node.domain not in LIBRARIES:
            raise UserError(
                f"teacher.path: {path} calls {node.op_type} of the library '{node.domain}', and"
                " libraries of operations are not opened",
                "export it again in ONNX's own operations",
            )
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                _check_libraries(inner, path)
