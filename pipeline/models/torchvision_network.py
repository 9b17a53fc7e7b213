"""Classifiers of torchvision, cut in two at their global average pooling."""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torchvision import models

from pipeline.errors import UserError
from pipeline.models.network import Network

INSTEAD = "choose one like torchvision/resnet18, where layers follow a global average pooling"


def torchvision_network(name: str, num_classes: int, **options: Any) -> Network:
    """A classifier of torchvision with random weights and torchvision's state-dict keys.

    Args:
        name: as in `torchvision.models`.
        options: of the model's constructor, such as `width_mult`.

    Raises:
        UserError: no such classifier, or it has no feature map that global average pooling and
            then a classifier follow.
        TypeError: an option is unknown.
    """
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        meant = " or ".join(f"'torchvision/{other}'" for other in near)
        hint = f"did you mean {meant}?" if near else "see torchvision.models.list_models()"
        raise UserError(f"no architecture named 'torchvision/{name}'", hint)
    model = models.get_model(name, weights=None, num_classes=num_classes, **options)
    try:
        return _cut(model)
    except _NoCut as reason:
        what = f"torchvision/{name} has no feature map to use: {reason}"
        raise UserError(what, INSTEAD) from None


class TorchvisionNetwork(Network):
    """A model whose child `features` gives the last feature map."""

    def __init__(self, model: nn.Module, classifier_name: str, dropout: float) -> None:
        super().__init__()
        for name, child in model.named_children():
            setattr(self, name, child)
        self.classifier_name = classifier_name
        self.dropout_rate = dropout
        layers = [layer for layer in self.classifier.modules() if isinstance(layer, nn.Linear)]
        self.feature_channels = layers[0].in_features

    def classify(self, pooled: Tensor) -> Tensor:
        pooled = functional.dropout(pooled, self.dropout_rate, self.training)
        return self.classifier(pooled)


class ChainedNetwork(TorchvisionNetwork):
    """A model whose `steps`, one after the other, give the last feature map."""

    def __init__(
        self,
        model: nn.Module,
        classifier_name: str,
        dropout: float,
        steps: Sequence[str | Callable[[Tensor], Tensor]],
    ) -> None:
        super().__init__(model, classifier_name, dropout)
        self.steps = tuple(steps)

    def features(self, images: Tensor) -> Tensor:
        x = images
        for step in self.steps:
            # by name, so that a child can be replaced
            x = self.get_submodule(step)(x) if isinstance(step, str) else step(x)
        return x


class Unregistered(nn.Module):
    """A step with no keys of its own in the state dict."""

    def __init__(self, step: Callable[..., Tensor], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.call = (step, args, kwargs)  # in a tuple, because modules as attributes have keys

    def forward(self, x: Tensor) -> Tensor:
        step, args, kwargs = self.call
        return step(x, *args, **kwargs)


class _NoCut(Exception):
    """Reason why a model cannot be cut."""


class _Outline(fx.Tracer):
    """Records a model's own forward pass; its children are not entered."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def _cut(model: nn.Module) -> Network:
    training = model.training
    graph = _Outline().trace(model.eval())  # auxiliary classifiers are of the training mode only
    model.train(training)
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    sizes = [_pooled_to(node, _module(model, node)) for node in nodes]
    if (1, 1) not in sizes:
        raise _NoCut(_instead_of_pooling(model, nodes, sizes))
    for earlier, later in pairwise(nodes):
        if later.all_input_nodes != [earlier]:
            raise _NoCut(f"its parts do not follow one another at '{later.name}'")
    place = max(place for place, size in enumerate(sizes) if size == (1, 1))
    name, dropout = _tail(model, nodes[place:])
    if nodes[0].target != "features":
        steps = [
            str(node.target) if node.op == "call_module" else _function(node)
            for node in nodes[:place]
        ]
        return ChainedNetwork(model, name, dropout, steps)
    # the child `features` has to go all the way to the map: no method can be called the same
    features = cast(nn.Sequential, model.get_submodule("features"))
    for node in nodes[1:place]:
        features.append(Unregistered(_module(model, node) or _function(node)))
    return TorchvisionNetwork(model, name, dropout)


def _tail(model: nn.Module, nodes: list[fx.Node]) -> tuple[str, float]:
    """Name of the classifier that follows the pooling, and the dropout between them."""
    pooling, *between, last = nodes
    classifier, name, dropout = _module(model, last), str(last.target), 0.0
    flat = pooling.target == "mean"
    for node in between:
        module = _module(model, node)
        if isinstance(module, nn.Dropout):
            dropout = module.p
        elif node.target in (torch.flatten, "flatten") or isinstance(module, nn.Flatten):
            flat = True
        else:
            raise _NoCut(f"'{node.name}' stands between its pooling and its classifier")
    if classifier is None or not any(isinstance(m, nn.Linear) for m in classifier.modules()):
        raise _NoCut("no linear layer follows its global average pooling")
    if not flat:  # the classifier itself flattens, after a norm for maps
        linear = next(one for one in classifier.children() if isinstance(one, nn.Linear))
        unflatten = nn.Unflatten(1, (linear.in_features, 1, 1))
        children = OrderedDict(unflatten=unflatten, **dict(classifier.named_children()))
        setattr(model, name, nn.Sequential(children))
    return name, dropout


def _pooled_to(node: fx.Node, module: nn.Module | None) -> tuple[int, int] | None:
    """Height and width that a pooling leaves; None for all else."""
    if node.op == "call_method" and node.target == "mean" and list(node.args[1:]) == [[2, 3]]:
        return 1, 1
    size: Any
    if isinstance(module, nn.AdaptiveAvgPool2d):
        size = module.output_size
    elif node.target is functional.adaptive_avg_pool2d:
        size = node.args[1]
    else:
        return None
    return (size, size) if isinstance(size, int) else tuple(size)


def _instead_of_pooling(
    model: nn.Module, nodes: list[fx.Node], sizes: list[tuple[int, int] | None]
) -> str:
    """What a model without a global average pooling of its own has instead."""
    left = [size for size in sizes if size]
    if left:
        return "its last pooling leaves {}×{} positions".format(*left[-1])
    last = [node for node in nodes if node.op == "call_module"][-1]
    layers = list(model.get_submodule(str(last.target)).children())
    if isinstance(layers[-1], nn.AdaptiveAvgPool2d):
        return f"it pools after its last convolution, at the end of '{last.target}'"
    if any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in layers):
        return f"it pools inside '{last.target}'"
    return "it pools none"


def _module(model: nn.Module, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _function(node: fx.Node) -> Unregistered:
    if node.op != "call_function" or not callable(node.target):
        raise _NoCut(f"'{node.name}' is no layer")
    return Unregistered(node.target, *node.args[1:], **node.kwargs)
