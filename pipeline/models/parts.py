"""Networks of torchvision's layers whose parts are known by name."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.models.network import Network


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
