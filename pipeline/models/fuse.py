"""Batch norms folded into the convolutions before them, for a student that is deployed."""

import copy
from collections import Counter
from collections.abc import Iterator

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kd3_pipeline.models.network import Network


def fuse(network: Network) -> Network:
    """A copy in evaluation mode, in which convolutions do the work of the batch norms after them.

    A batch norm that has a convolution's output to itself is folded into that convolution, which
    gets a bias, and becomes `nn.Identity()`. All others stay: before a convolution, or where the
    convolution's output is used elsewhere too. Outputs are the same but for rounding.
    """
    fused = copy.deepcopy(network).eval()
    replaced: dict[nn.Module, nn.Module] = {}
    for convolution, norm in _pairs(fused):
        replaced[convolution] = fuse_conv_bn_eval(convolution, norm)
        replaced[norm] = nn.Identity()
    for parent in list(fused.modules()):
        for name, child in parent.named_children():
            if child in replaced:
                setattr(parent, name, replaced[child])
    return fused


def _pairs(network: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    calls: Counter[nn.Module] = Counter()
    pairs = []
    for graph, modules in _graphs(network):
        for node in graph.nodes:
            if node.op != "call_module" or not node.args:  # as a parametrization of weights
                continue
            module, source = modules[str(node.target)], node.args[0]
            calls[module] += 1
            if not isinstance(source, fx.Node) or source.op != "call_module":
                continue
            before = modules[str(source.target)]
            if (
                type(module) is nn.BatchNorm2d
                and module.running_mean is not None
                and type(before) is nn.Conv2d
                and len(source.users) == 1
            ):
                pairs.append((before, module))
    # a module that is called twice is not the same function after folding
    return [pair for pair in pairs if all(calls[module] == 1 for module in pair)]


def _graphs(module: nn.Module) -> Iterator[tuple[fx.Graph, dict[str, nn.Module]]]:
    """The data flow of a module, or of its children where its own cannot be recorded.

    A branch on the size of a map cannot: `Distilled` and `VGG` have one.
    """
    try:
        graph = fx.Tracer().trace(module)
    except Exception:  # stand-ins for tensors go through any code, which may fail in any way
        for child in module.children():
            yield from _graphs(child)
    else:
        yield graph, dict(module.named_modules())
