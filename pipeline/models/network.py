"""Interface of every network: a feature map, and a classifier on what is pooled of it."""

from collections.abc import Callable

from torch import Tensor, nn


class Network(nn.Module):
    """An image classifier in two parts: logits = classify(pool(features(images))).

    Attributes:
        features: the last feature map before global pooling, [B, 3, S, S] → [B, C, H, W]; a
            method, or a module where the published state dict calls it so.
        feature_channels: C.
        classifier_name: name of the child that is the tail: all layers after the pooling.
        widening: names of the layers that only widen the last stage's map for the tail.
        stage_channels: channels of the last stage, where there is such a widening.
    """

    features: Callable[[Tensor], Tensor]
    feature_channels: int
    classifier_name: str = "fc"
    widening: tuple[str, ...] = ()
    stage_channels: int

    @property
    def classifier(self) -> nn.Module:
        """The tail, from pooled features [B, C] to logits: a linear layer, or several layers."""
        # not getattr: where the child itself is called `classifier`, that is this property
        return dict(self.named_children())[self.classifier_name]

    @property
    def num_classes(self) -> int:
        """Outputs of the last linear layer of the tail.

        Raises:
            TypeError: the tail was dropped.
        """
        layers = [layer for layer in self.classifier.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise TypeError(f"this {type(self).__name__} has no classifier")
        return layers[-1].out_features

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits [B, classes] of pooled features [B, C]."""
        return self.classifier(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(pool(self.features(images)))


def drop_classifier(network: Network) -> None:
    """Puts `nn.Identity()` in place of what only serves the network's own logits.

    That is the tail, which an aligned student does not use, and in MobileNetV2 and ShuffleNetV2
    the 1×1 convolution before the pooling: KD3 and SimKD align the map of the last stage. So it
    has to come before anything that depends on `feature_channels`.
    """
    for name in (network.classifier_name, *network.widening):
        setattr(network, name, nn.Identity())
    if network.widening:
        network.feature_channels = network.stage_channels


def pool(feature_map: Tensor) -> Tensor:
    """Global average pooling: [B, C, H, W] → [B, C]."""
    return feature_map.mean(dim=(2, 3))


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers in a network."""
    return sum(parameter.numel() for parameter in network.parameters())
