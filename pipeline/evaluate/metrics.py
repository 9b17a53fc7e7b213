"""How good a student is beside its teacher, on the same labelled images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.console import Advance
from pipeline.models.network import Network, parameter_count
from pipeline.pixels import normalise

Z95 = 1.959963984540054  # two-sided 95% of the normal distribution


@torch.inference_mode()
def predictions(
    network: Network,
    pixels: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
    advance: Advance,
) -> np.ndarray:
    """Predicted class of each image: pixels uint8 [N, S, S, 3] → int64 [N]."""
    parts = []
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(pixels[start : start + batch_size]).to(device)
        parts.append(network(normalise(batch, mean, std)).argmax(dim=1).cpu().numpy())
        advance(len(batch))
    return np.concatenate(parts)


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927)."""
    share = right / total
    centre = share + Z95**2 / (2 * total)
    spread = Z95 * np.sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2))
    scale = 1 + Z95**2 / total
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return max(0.0, float(low)), min(1.0, float(high))  # rounding errors leave 0 to 1


def score(labels: np.ndarray, predicted: np.ndarray, network: Network) -> dict[str, Any]:
    """Accuracy with its 95% interval, and the size of the network."""
    right = int((labels == predicted).sum())
    low, high = wilson_interval(right, len(labels))
    return {
        "accuracy": round(right / len(labels), 4),
        "accuracy_low": round(low, 4),
        "accuracy_high": round(high, 4),
        "parameters": parameter_count(network),
    }


def per_class(
    labels: np.ndarray, teacher: np.ndarray, student: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Name, images and both accuracies of each class; None for a class without images.

    A list, because `dvc metrics` would show a mapping as columns, hundreds of them.
    """
    rows = []
    for label, name in enumerate(class_names):
        of_class = labels == label
        row = {"name": name, "images": int(of_class.sum())}
        for who, predicted in (("teacher", teacher), ("student", student)):
            right = predicted[of_class] == label
            row[who] = round(float(right.mean()), 4) if len(right) else None
        rows.append(row)
    return rows
