"""Optimizer of a training: SGD with momentum, or AdamW."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kd3_pipeline.distill.learning_rate import peak
from kd3_pipeline.params import Distill


def make_optimizer(
    module: nn.Module, section: Distill, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of all parameters of `module`.

    SGD decays them all, as published. AdamW spares what is usually spared with it: biases, norms,
    scales of channels, and embeddings of positions and classes.

    Args:
        section: with a number as learning rate.
    """
    fused = device.type != "mps"
    if section.optimizer == "sgd":
        return torch.optim.SGD(
            module.parameters(),
            peak(section),
            momentum=section.momentum,
            weight_decay=section.weight_decay,
            fused=fused,
        )
    return torch.optim.AdamW(
        decay_groups(module.named_parameters(), section.weight_decay), peak(section), fused=fused
    )


def decay_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Groups of an optimizer: kernels and matrices with weight decay, all else without."""
    groups: dict[float, list[nn.Parameter]] = {weight_decay: [], 0.0: []}
    for name, parameter in parameters:
        groups[weight_decay if _is_kernel(name, parameter) else 0.0].append(parameter)
    return [{"params": found, "weight_decay": decay} for decay, found in groups.items() if found]


def _is_kernel(name: str, parameter: Tensor) -> bool:
    """Tells the weights of convolutions and linear layers from vectors and embeddings.

    Scales of channels have one long dimension ([C] or [C, 1, 1]); embeddings begin with one
    [1, N, C] for all images; tables of relative positions are called biases.
    """
    long = sum(size > 1 for size in parameter.shape)
    return long > 1 and parameter.shape[0] > 1 and "bias" not in name.rpartition(".")[2]
