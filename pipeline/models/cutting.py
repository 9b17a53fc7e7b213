"""Cut of any classifier in two, found on a forward pass and verified on numbers.

The best of three that holds: at the last feature map before a global average pooling; at a vector,
the input of the last layer with a matrix; or nowhere, for the logits alone.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.models.cut_check import answers, close, holds, takes_channels_last
from kd3_pipeline.models.cut_network import ENDS, CutNetwork, how_told
from kd3_pipeline.models.heads import put_head
from kd3_pipeline.models.network import Cut
from kd3_pipeline.models.pooled_tail import is_dropout, pooled_tail
from kd3_pipeline.models.recording import (
    Call,
    Recorder,
    Steps,
    Unrecordable,
    Values,
    answer,
    part,
    record,
    watched,
)

SIDES = (224, 32, 64, 28, 96, 128, 160, 192, 256, 299, 320, 384, 448, 512, 48, 16)
SMALL = 96  # side that is tried first with networks for any: it leaves maps of 3×3 after 32-fold
MAPS = 3  # the last ones of a network that may be that before the pooling


@dataclass
class _Found:
    """A cut of a recorded graph: `place` is the features' node, `after` the tail's graph."""

    kind: Cut
    place: fx.Node
    last_axis: bool
    after: fx.Graph
    shape: tuple[int, ...]
    reason: str = ""


def cut(
    model: nn.Module,
    name: str,
    num_classes: int,
    sides: Sequence[int] = SIDES,
    described: Callable[[Exception], str] = first_line,
    head: Mapping[str, Any] | None = None,
) -> CutNetwork:
    """`model` in two parts, at the best place of it.

    Args:
        name: of the architecture, for errors.
        num_classes: outputs that it has to have.
        sides: of images in pixels to try, until the model takes them.
        described: of an error in the model's own code.
        head: layers in place of some of the model's, for `kd3_pipeline.models.heads.put_head`.

    Raises:
        UserError: it takes no images of these sides, or gives no logits of `num_classes` classes.
    """
    if head:
        put_head(model, head)
    training = model.training
    network = CutNetwork(model, name, num_classes).eval()
    try:
        with torch.no_grad():
            calls, logits, fixed = _pass_in_float32(network, sides, described)
            _find(network, calls, logits)
            if fixed and network.cut == "logits":
                network.cut_reason = f"its code computes in {fixed}, and features are float32"
            network.rows_only = not takes_channels_last(network, logits)
    finally:
        network.sample = torch.empty(0)
        network.train(training)
    return network


def _pass_in_float32(
    network: CutNetwork, sides: Sequence[int], described: Callable[[Exception], str]
) -> tuple[list[Call], Tensor, str]:
    """`_first_pass`, with weights in float32 if the code does not ask for those that it makes.

    Returns:
        Beside the calls and logits: the dtypes that the code asks for; empty if it does not.
    """
    others = [
        (one, one.dtype)
        for one in (*network.model.parameters(), *network.model.buffers())
        if one.is_floating_point() and one.dtype != torch.float32
    ]
    kinds = " and ".join(sorted({str(dtype).removeprefix("torch.") for _, dtype in others}))
    for one, _ in others:
        one.data = one.data.float()
    try:
        calls, logits = _first_pass(network, sides, described)
    except UserError:
        for one, dtype in others:
            one.data = one.data.to(dtype)
        with contextlib.suppress(UserError):
            if others:
                return *_first_pass(network, sides, described), kinds
        raise
    told = f"its weights are {kinds} as it is built, here float32" if others else ""
    network.told = "; ".join(filter(None, (network.told, told)))
    return calls, logits, ""


def _first_pass(
    network: CutNetwork, sides: Sequence[int], described: Callable[[Exception], str]
) -> tuple[list[Call], Tensor]:
    """Sets `sample` and `side`; the calls of modules for it, and the logits."""
    draw = torch.Generator().manual_seed(0)
    problems: dict[int, str] = {}
    for side in sides:
        images = torch.randn(2, 3, side, side, generator=draw)
        try:
            calls, output = watched(network.model, images)
        except UserError:
            raise
        except Exception as error:  # the model's own code can fail in any way
            problems[side] = described(error)
            continue
        network.sample, network.side = images, side
        network.told = how_told(output, network.name)
        logits = network.whole(images)
        if not isinstance(logits, Tensor) or logits.shape != (2, network.num_classes):
            shape = list(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"{network.name} gives {shape} for an image, not {network.num_classes} logits",
                (f"{network.told}; " if network.told else "")
                + "set the number of class names to the outputs that it has, or its options",
            )
        return calls, logits
    side, problem = next(iter(problems.items()))
    tried = f"{side} pixels" if len(problems) == 1 else f"{', '.join(map(str, problems))} pixels"
    raise UserError(
        f"{network.name} takes no images of 3 channels and {tried}: {problem}",
        "teacher.input_size is the side of the images, of a student's too",
    )


def _find(network: CutNetwork, calls: list[Call], logits: Tensor) -> None:
    """Cuts the network; it stays one of logits alone where nothing better holds."""
    reasons = []
    if not close(network.whole(network.sample), logits):
        network.cut_reason = "it gives the same images other logits each time"
        return
    known = answers(network, logits)
    for recorder in _recorders(calls):
        try:
            graph = record(network, recorder)
        except Unrecordable as reason:
            reasons.append(f"its code cannot be recorded: {reason}")
            continue
        start = _start(network, recorder)
        for found in _places(network, graph, start, recorder.start is not None):
            _apply(network, graph, found, recorder, calls)
            if holds(network, known):
                network.cut_reason = found.reason
                return
            _undo(network)
            reasons.append("its parts together are not the network")
    network.cut_reason = reasons[0] if reasons else "no vector in it carries its whole answer"


def _recorders(calls: list[Call]) -> Iterator[Recorder]:
    """Records to try: of the whole pass, then from a later and later place of it."""
    last = max((call for call in calls if call.own), key=lambda call: call.begun, default=None)
    maps = [call for call in calls if len(call.shape) == 4]
    wide = [call for call in maps if math.prod(call.shape[2:]) > 1] or maps
    into = _around(last)
    deep = into | _around(wide[-1] if wide else None)
    yield Recorder(deep)
    if into != deep:
        yield Recorder(into)
    once = {call.path for call in calls if sum(one.path == call.path for one in calls) == 1}
    if wide and wide[-1].path in once - {""}:
        yield Recorder(deep, f"model.{wide[-1].path}")
    if last is None:
        return
    earlier = [call for call in calls if call.ended < last.begun and call.shape]
    if earlier and earlier[-1].path in once - {""}:
        yield Recorder(into, f"model.{earlier[-1].path}")
    if last.path in once - {""}:
        yield Recorder(into, f"model.{last.path}", before=True)


def _around(call: Call | None) -> set[str]:
    return {f"model.{path}".rstrip(".") for path in call.inside} if call else set()


def _start(network: CutNetwork, recorder: Recorder) -> Tensor:
    """What the record starts from, for the sample."""
    if recorder.start is None:
        return network.sample
    found: list[Tensor] = []
    module = network.get_submodule(recorder.start)
    if recorder.before:
        hook = module.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    else:
        hook = module.register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        network.whole(network.sample)
    finally:
        hook.remove()
    return found[0].clone()


def _places(network: CutNetwork, graph: fx.Graph, start: Tensor, later: bool) -> Iterator[_Found]:
    """Cuts of a graph, the best first.

    Args:
        later: the graph starts from a value within the network.
    """
    run = Values(network, graph, lambda value: tuple(value.shape))
    try:
        run.run(*([start] * sum(node.op == "placeholder" for node in graph.nodes)))
    except Exception:  # the record fails on what it was made from: it is none
        return
    shapes, logits = run.found, answer(graph)
    nodes = [node for node in reversed(graph.nodes) if node in shapes and node.op != "get_attr"]
    why = ""
    maps = [
        node for node in nodes if len(shapes[node]) == 4 and (node.op != "placeholder" or later)
    ]
    wide = [node for node in maps if math.prod(shapes[node][2:]) > 1]
    for node in [*wide[:MAPS], *[node for node in maps if node not in wide][:MAPS]]:
        tail = part(graph, logits, node)
        if tail is None:
            continue
        for last_axis in _layouts(shapes[node]):
            after = pooled_tail(network, tail, shapes[node], last_axis)
            if after is not None:
                _, *size = shapes[node]
                channels, *area = size if not last_axis else (size[2], *size[:2])
                yield _Found("map", node, last_axis, after, (channels, *area))
        shape = "×".join(map(str, shapes[node][1:]))
        why = why or f"what follows its last map, of {shape}, takes more than the map's average"
    why = why or "no map of it carries its whole answer"
    for node in nodes:
        if len(shapes[node]) != 2 or node is logits:
            continue
        tail = part(graph, logits, node)
        if tail is None or not _has_matrix(network, tail):
            continue
        place = _before_dropout(network, node, shapes)
        tail = part(graph, logits, place)
        if tail is not None:
            yield _Found("vector", place, False, tail, shapes[place][1:], why)
            return


def _layouts(shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Whether the channels of a map are its last axis; both where its sizes do not tell.

    Images are square, and so are most maps of them.
    """
    first, last = shape[2] == shape[3], shape[1] == shape[2]
    return (False,) if first and not last else (True,) if last and not first else (False, True)


def _before_dropout(
    network: CutNetwork, node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]
) -> fx.Node:
    """`node`, or what it is made from by dropout and nothing else."""
    while True:
        same = node.op == "call_module" and isinstance(
            network.get_submodule(str(node.target)), nn.Identity
        )
        inputs = [one for one in node.all_input_nodes if one.op != "get_attr"]
        if not (same or is_dropout(network, node)) or len(inputs) != 1:
            return node
        if len(shapes.get(inputs[0], ())) != 2:
            return node
        node = inputs[0]


def _has_matrix(network: CutNetwork, tail: fx.Graph) -> bool:
    return any(one.ndim > 1 for one in fx.GraphModule(network, tail).parameters())


def _apply(
    network: CutNetwork, graph: fx.Graph, found: _Found, recorder: Recorder, calls: list[Call]
) -> None:
    network.cut = found.kind
    network.feature_channels, network.map_shape = found.shape[0], found.shape
    network.after = Steps(network, found.after)
    if recorder.start is not None:
        network.stop = (recorder.start, recorder.before)
        path = recorder.start.removeprefix("model.")
        call = next(one for one in calls if one.path == path)
        before = call.begun if recorder.before else call.ended + 1
        network.shapes = {f"model.{one.path}": one.shape[1:] for one in calls}
        network.reached = frozenset(f"model.{one.path}" for one in calls if one.begun < before)
    features = part(graph, found.place)
    if found.place.op == "placeholder":
        features = None
        if found.last_axis:
            features = fx.Graph()
            features.output(features.placeholder("x"))
    if features is not None and found.last_axis:
        output = next(iter(reversed(features.nodes)))
        with features.inserting_before(output):
            output.args = (features.call_method("permute", (output.args[0], 0, 3, 1, 2)),)
    network.before = Steps(network, features) if features is not None else None


def _undo(network: CutNetwork) -> None:
    if network.stop:
        vars(network.get_submodule(network.stop[0])).pop(ENDS, None)
    network.cut, network.before, network.after, network.stop = "logits", None, None, None
    network.feature_channels, network.map_shape = network.num_classes, (network.num_classes,)
