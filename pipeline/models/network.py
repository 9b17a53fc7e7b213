"""The one interface of every network: a feature map, and a classifier on what is pooled of it."""

from torch import Tensor, nn


class Network(nn.Module):
    """An image classifier in two parts.

    Attributes:
        feature_channels: channels of the last feature map.
        classifier_name: name of the attribute that holds the final linear layer.
    """

    feature_channels: int
    classifier_name: str = "fc"

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, after its ReLU: [B, 3, S, S] → [B, C, H, W]."""
        raise TypeError(f"{type(self).__name__} defines no features")

    @property
    def classifier(self) -> nn.Linear:
        """The layer from pooled features to logits."""
        return getattr(self, self.classifier_name)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits [B, classes] of pooled features [B, C]."""
        return self.classifier(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(pool(self.features(images)))


def pool(feature_map: Tensor) -> Tensor:
    """Global average pooling: [B, C, H, W] → [B, C]."""
    return feature_map.mean(dim=(2, 3))


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers in a network."""
    return sum(parameter.numel() for parameter in network.parameters())
