"""Checkpoints of an interrupted distillation: the last two states, named by their step."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from kd3_pipeline.errors import ExternalError
from kd3_pipeline.store import remove, replacing

KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Writes tensors and plain values in one move, and removes all but the last two states."""
    with replacing(folder / f"step-{step:09d}.pt") as temporary:
        torch.save(state, temporary)
    for path in saved(folder)[:-KEPT]:
        remove(path)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest state that can be read, or None when nothing was saved.

    Raises:
        ExternalError: states were saved and none can be read.
    """
    paths = saved(folder)
    for path in reversed(paths):
        try:
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()  # torch.load takes damaged weights for good ones
            if damaged is None:
                return torch.load(path, map_location=device, weights_only=True)
            reason = f"{path}: {damaged} is damaged"
        except Exception as error:  # a damaged file may fail in any way
            reason = f"{path}: {type(error).__name__}"
    if paths:
        raise ExternalError(
            f"distill: no checkpoint can be read ({reason})", f"remove {folder} to start again"
        )
    return None


def saved(folder: Path) -> list[Path]:
    """The states in `folder`, oldest first."""
    return sorted(folder.glob("step-*.pt"))
