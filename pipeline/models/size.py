"""Parameters of a library's network, counted without one of them being made."""

from typing import Any

import torch

from kd3_pipeline.models import TIMM, TORCHVISION


def library_parameters(name: str, num_classes: int, options: dict[str, Any]) -> int:
    """How many parameters `torchvision/NAME` or `timm/NAME` has; 0 for a network of anything else,
    or one that cannot be built, which `build` says."""
    try:
        with torch.device("meta"):
            if name.startswith(TORCHVISION):
                from torchvision.models import get_model  # late: takes longer than all else here

                known = name.removeprefix(TORCHVISION)
                network = get_model(known, weights=None, num_classes=num_classes, **options)
            elif name.startswith(TIMM):
                from timm import create_model

                known = name.removeprefix(TIMM)
                network = create_model(known, num_classes=num_classes, **options)
            else:
                return 0
    except (ImportError, TypeError, ValueError, LookupError, RuntimeError, NotImplementedError):
        return 0
    return sum(one.numel() for one in network.parameters())
