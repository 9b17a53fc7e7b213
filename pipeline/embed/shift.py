"""Distribution shift between the web images and the teacher's training set, which nobody has.

The teacher tells of them: the weights of a class point to where its features were, and batch norms
remember the moments of what went through them (`kd3_pipeline.teacher.normalisation`).
"""

import numpy as np
from torch import nn

from kd3_pipeline.console import Advance
from kd3_pipeline.embed.predictions import Predictions, blocks
from kd3_pipeline.models.network import Network


def weight_cosines(
    features: np.ndarray, predictions: Predictions, network: Network, advance: Advance
) -> np.ndarray | None:
    """Cosine of the mean feature of the images predicted as a class and the class's weights.

    It has no scale of its own. A ResNet-20 of CIFAR-10 has 0.62 on average with CIFAR-10's test
    images and 0.46 with Tiny-ImageNet.

    Args:
        features: float [N, D], may be a memory map.

    Returns:
        float64 [C], nan for a class that is predicted nowhere; None where the classifier is not
        one linear layer, which has no such weights.
    """
    layers = [layer for layer in network.classifier.modules() if isinstance(layer, nn.Linear)]
    if len(layers) != 1 or layers[0].in_features != features.shape[1]:
        return None
    weights = layers[0].weight.detach().cpu().double().numpy()
    cosines = np.full(predictions.classes, np.nan)
    for label, rows in predictions.by_class():
        total = sum(features[some].sum(axis=0, dtype=np.float64) for some in blocks(rows))
        length = np.linalg.norm(total) * np.linalg.norm(weights[label])
        cosines[label] = total @ weights[label] / max(length, 1e-12)
        advance(len(rows))
    return cosines
