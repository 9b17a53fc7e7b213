"""Where an interrupted distillation goes on: one file, replaced after every epoch."""

from pathlib import Path
from typing import Any

import torch

from pipeline.store import replacing


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values in one move."""
    with replacing(folder / "last.pt") as temporary:
        torch.save(state, temporary)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """What `save` wrote, or None when nothing was saved."""
    path = folder / "last.pt"
    if not path.exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)
