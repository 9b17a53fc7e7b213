"""Checkpoints of an interrupted distillation: the last two states, named by their step.

What each epoch selected is in a file of its own beside them, written once: of 240 epochs the 240th
state would else hold, and write anew, the selections of all before it.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.errors import ExternalError
from kd3_pipeline.store import remove, replacing

KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Writes tensors and plain values in one move, and removes all but the last two states.

    Where `state["progress"]` has `kept` (bool [epochs, N], what each epoch up to now selected) with
    `digests` of its rows, only the last row is written: the earlier ones were, each as it was the
    last. It comes before the state, so that a state never speaks of what is not there yet.
    """
    progress = dict(state.get("progress", {}))
    if "kept" in progress:
        kept, digests = progress.pop("kept"), progress.pop("digests")
        assert len(kept) == len(digests)
        if len(kept):
            with replacing(_selected_path(folder, len(kept))) as temporary:
                temporary.write_bytes(_packed(kept[-1]))
        of = {"images": kept.shape[1], "digests": digests}
        state = state | {"progress": progress, "selected": of}
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
                state = torch.load(path, map_location=device, weights_only=True)
                return _with_selected(folder, state)
            reason = f"{path}: {damaged} is damaged"
        except _Unfit as error:
            reason = str(error)
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


def clear(folder: Path) -> None:
    """Removes all that `save` has written to `folder`."""
    for path in [*saved(folder), *folder.glob("selected-*.bits")]:
        remove(path)


def digest(row: Tensor) -> int:
    """Checksum of what an epoch selected, bool [N]."""
    return zlib.crc32(_packed(row))


class _Unfit(Exception):
    """What an epoch selected is not as a state says."""


def _with_selected(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The state as it was given to `save`.

    A file of another life of the run, that had to go on from an earlier state, is not of this one:
    hence the digests.
    """
    if "selected" not in state:
        return state
    of = state.pop("selected")
    kept = torch.zeros(len(of["digests"]), of["images"], dtype=torch.bool)
    for epoch, wanted in enumerate(of["digests"], 1):
        path = _selected_path(folder, epoch)
        bits = path.read_bytes() if path.is_file() else b""
        if zlib.crc32(bits) != wanted or len(bits) != -(-of["images"] // 8):
            raise _Unfit(f"{path} is {'damaged' if bits else 'missing'}")
        unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), count=of["images"])
        kept[epoch - 1] = torch.from_numpy(unpacked.astype(bool))
    state["progress"] |= {"kept": kept, "digests": of["digests"]}
    return state


def _packed(row: Tensor) -> bytes:
    return np.packbits(row.numpy()).tobytes()


def _selected_path(folder: Path, epoch: int) -> Path:
    return folder / f"selected-{epoch:06d}.bits"
