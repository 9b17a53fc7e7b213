"""Interface of every network: features, and a classifier on what is pooled of them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

Cut = Literal["map", "vector", "logits"]


class Network(nn.Module):
    """An image classifier in two parts: logits = classify(pool(features(images))).

    Attributes:
        cut: where the parts meet. `map`: at the last feature map before global pooling, as KD3
            has it; `vector`: at a vector, where the classifier does not follow a global average
            pooling (flattened maps, a class token, what an MLP hides); `logits`: nowhere, the
            features are the logits and the classifier does nothing.
        runs_elsewhere: its work is done by others, where it cannot be counted.
        own_input: it normalises its images itself: another mean and std change nothing.
        parameters_elsewhere: numbers that were learnt and are not in this process.
        features: [B, 3, S, S] → [B, C, H, W] of a `map`, else [B, C]; a method, or a module where
            the published state dict calls it so.
        feature_channels: C.
        classifier_name: name of the child that is the tail: all layers after the pooling.
        widening: names of the layers that only widen the last stage's map for the tail.
        stage_channels: channels of the last stage, where there is such a widening.
        cut_reason: why the cut is no better one; empty for a map.
        map_shape: of the features of one image, as [512, 7, 7]; empty where it was not looked at.
        told: what else the user should know of how the network was taken; mostly empty.
        remembered: options of `kd3_pipeline.models.build` that a model's config.json has to have
            beside those that were given, such as the hash of the code.
    """

    cut: Cut = "map"
    runs_elsewhere: bool = False
    own_input: bool = False
    parameters_elsewhere: int = 0
    features: Callable[[Tensor], Tensor]
    feature_channels: int
    classifier_name: str = "fc"
    widening: tuple[str, ...] = ()
    stage_channels: int
    cut_reason: str = ""
    map_shape: tuple[int, ...] = ()
    told: str = ""
    remembered: Mapping[str, Any] = MappingProxyType({})

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

    def drop(self) -> None:
        """Puts `nn.Identity()` in place of what only serves the logits; see `drop_classifier`."""
        for name in (self.classifier_name, *self.widening):
            setattr(self, name, nn.Identity())
        if self.widening:
            self.feature_channels = self.stage_channels

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        # not `pool`, which asks for a shape: `fuse` records this with stand-ins for tensors
        return self.classify(features.mean(dim=(2, 3)) if self.cut == "map" else features)


def drop_classifier(network: Network) -> None:
    """Puts `nn.Identity()` in place of what only serves the network's own logits.

    That is the tail, which an aligned student does not use, and in MobileNetV2 and ShuffleNetV2
    the 1×1 convolution before the pooling: KD3 and SimKD align the map of the last stage. So it
    has to come before anything that depends on `feature_channels`.
    """
    network.drop()


def pool(features: Tensor) -> Tensor:
    """Global average pooling: [B, C, H, W] → [B, C]; a vector [B, C] stays as it is."""
    return features if features.ndim == 2 else features.mean(dim=(2, 3))


def device_of(network: nn.Module) -> torch.device:
    """Where a network takes its images; the CPU for one without parameters."""
    return next((one.device for one in network.parameters()), torch.device("cpu"))


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers in a network."""
    elsewhere = getattr(network, "parameters_elsewhere", 0)
    return elsewhere + sum(parameter.numel() for parameter in network.parameters())
