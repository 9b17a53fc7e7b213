"""Tail of a network as a function of the average of its last map, where it is one."""

import copy
import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from kd3_pipeline.models.cut_check import close
from kd3_pipeline.models.cut_network import DROPOUTS, SPREAD, CutNetwork
from kd3_pipeline.models.recording import Values, answer, part

OTHER_SIDES = (1, 3, 4, 7)  # of random maps


def pooled_tail(
    network: CutNetwork, tail: fx.Graph, shape: tuple[int, ...], last_axis: bool
) -> fx.Graph | None:
    """`tail` as a function of the average of its map, [B, C]; None if it is none of it.

    Args:
        shape: of the map in the network.
        last_axis: the map is [B, H, W, C].
    """
    area = shape[1:3] if last_axis else shape[2:]
    channels = shape[3] if last_axis else shape[1]
    weights = _drawn(network, tail)
    several = False
    for height, width in dict.fromkeys([tuple(area), *((side, side) for side in OTHER_SIDES)]):
        draw = torch.Generator().manual_seed(height)
        maps = torch.randn(1, channels, height, width, generator=draw) + 0.3
        level = maps.mean((2, 3), keepdim=True).expand_as(maps).contiguous()
        if last_axis:
            maps, level = (value.permute(0, 2, 3, 1).contiguous() for value in (maps, level))
        try:
            one, other = (weights.run(value.clone()) for value in (maps, level))
        except Exception:  # the tail takes no maps of this size
            if (height, width) == tuple(area):
                return None
            continue
        if one.shape != (1, network.num_classes):
            if (height, width) == tuple(area):
                return None
            continue
        if not close(one, other):
            return None
        several = several or height * width > 1
    if not several:
        return None
    return _from_pooled(network, tail, weights, channels, area, last_axis)


class _Drawn:
    """A tail with weights of its own where those of the network would hide what it does."""

    def __init__(self, network: CutNetwork, tail: fx.Graph) -> None:
        self.network, self.graph = network, tail
        self.module: nn.Module = network

    def run(self, value: Tensor) -> Tensor:
        return Values(self.module, self.graph, lambda one: None).run(value)


def _drawn(network: CutNetwork, tail: fx.Graph) -> _Drawn:
    """The tail with weights that all matter: those that it starts with may be zero, or so small
    (a scale of layers of 1e-5) that what a layer does would not show in the logits."""
    drawn = _Drawn(network, tail)
    drawn.module = copy.deepcopy(fx.GraphModule(network, tail))
    draw = torch.Generator().manual_seed(1)
    for one in drawn.module.parameters():
        values = torch.randn(one.shape, generator=draw)
        matrix = one.ndim > 1 and one.numel() > max(one.shape)
        one.copy_(values / math.sqrt(one[0].numel()) if matrix else 1 + 0.3 * values)
    return drawn


def _from_pooled(
    network: CutNetwork,
    tail: fx.Graph,
    drawn: _Drawn,
    channels: int,
    area: Sequence[int],
    last_axis: bool,
) -> fx.Graph:
    """The tail as a function of the average of its map, [B, C].

    It starts from the first value that is the average, as a vector, else as a map of one position;
    else from a map that is the average everywhere.
    """
    maps = torch.randn(2, channels, *area, generator=torch.Generator().manual_seed(2)) + 0.3
    pooled = maps.mean((2, 3))
    run = Values(drawn.module, tail, torch.clone)
    run.run((maps.permute(0, 2, 3, 1).contiguous() if last_axis else maps).clone())
    one_place = (2, 1, 1, channels) if last_axis else (2, channels, 1, 1)
    for shape in (pooled.shape, one_place):
        for node, value in run.found.items():
            if value.shape != shape or not close(value, pooled.view(shape)):
                continue
            after = part(tail, answer(tail), node)
            if after is not None:
                dropouts = _dropouts_to(network, node, run.found)
                return _behind(after, None if len(shape) == 2 else last_axis, (), dropouts)
    return _behind(tail, last_axis, (-1, *area, -1) if last_axis else (-1, -1, *area), [])


def _behind(
    after: fx.Graph, last_axis: bool | None, sizes: Sequence[int], dropouts: list[fx.Node]
) -> fx.Graph:
    """`after` as a function of vectors, after `dropouts` on them.

    Args:
        last_axis: as what it takes them: maps of one position, [B, C, 1, 1] or [B, 1, 1, C]; None:
            as vectors.
        sizes: that these maps are expanded to; empty: they are not.
    """
    new = fx.Graph()
    x = new.placeholder("pooled")
    for node in dropouts:
        if node.op == "call_module":
            x = new.call_module(str(node.target), (x,))
        else:
            values = {one: x for one in node.all_input_nodes}
            values |= {
                one: new.create_node("get_attr", "training")
                for one in node.all_input_nodes
                if one.target == "training"
            }
            x = new.node_copy(node, values.__getitem__)
    if last_axis is not None:
        x = new.create_node("call_function", operator.getitem, (x, SPREAD[last_axis]), name="map")
    if sizes:
        x = new.call_method("expand", (x, *sizes))
    new.output(new.graph_copy(after, {next(iter(after.nodes)): x}))
    return new


def _dropouts_to(
    network: CutNetwork, node: fx.Node, values: dict[fx.Node, Tensor]
) -> list[fx.Node]:
    """Dropouts between the pooling and `node`, in their order."""
    found: list[fx.Node] = []
    while node.op != "placeholder":
        inputs = [one for one in node.all_input_nodes if one.op != "get_attr"]
        if len(inputs) != 1 and node.op != "call_method":
            break
        positions = values[node].shape[2:] if node in values else ()
        if is_dropout(network, node) and math.prod(positions) == 1:
            found.append(node)
        node = inputs[0]
    return found[::-1]


def is_dropout(network: CutNetwork, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), DROPOUTS)
    return node.target in (functional.dropout, functional.dropout2d, functional.alpha_dropout)
