"""Reading a teacher's weights from a file."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.errors import UserError
from pipeline.models.checkpoint import load_state
from pipeline.models.network import Network

WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "backbone.")
RENAMINGS = (("linear.", "fc."), ("shortcut.", "downsample."))
LAST_NUMBER = re.compile(r"(.*?)(\d+)\.weight")
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from a file of torch.save that holds tensors only.

    Wrappers such as `state_dict` and prefixes such as `module.` are undone. Pickled objects other
    than tensors are refused, because loading them would run code.

    Raises:
        UserError: the file is missing, unreadable, or holds no state dict.
    """
    try:
        value: Any
        if path.suffix == ".safetensors":
            value = load_file(path)
        else:
            value = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"teacher.path: {path} not found") from None
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError) as error:
        raise UserError(f"teacher.path: {path} cannot be read: {_first_line(error)}") from None
    except Exception:  # weights_only refuses with pickle's own error, broken pickles raise any
        raise UserError(
            f"teacher.path: {path} is not a file of tensors alone, and others could run code",
            "save its state_dict as .safetensors",
        ) from None
    while isinstance(value, dict) and (inner := [key for key in WRAPPERS if key in value]):
        value = value[inner[0]]
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    ):
        raise UserError(f"teacher.path: {path} holds no state dict of tensors")
    while value and (prefix := _common_prefix(value)):
        value = {name.removeprefix(prefix): tensor for name, tensor in value.items()}
    return value


def class_count(path: Path) -> int:
    """Outputs of the last linear layer in the file.

    Linear layers are the matrices, in the networks known here. The last of several is that with
    the highest number (`classifier.6` after `classifier.3`), else the last in the file, if the
    format keeps their order: safetensors does not.

    Raises:
        UserError: as `read_state`, or there is no linear layer, or the last cannot be told.
    """
    state = read_state(path)
    names = [name for name, tensor in state.items() if tensor.ndim == 2]
    places = {name: LAST_NUMBER.fullmatch(name) for name in names}
    numbered = all(places.values()) and len({place[1] for place in places.values()}) == 1
    if numbered:
        names.sort(key=lambda name: int(places[name][2]))
    ordered = numbered or len(names) == 1 or path.suffix != ".safetensors"
    if not names or not ordered:
        raise UserError(
            f"teacher.path: {path} has {len(names)} linear layers, and which is the last cannot be"
            " told",
            "set teacher.class_names",
        )
    return len(state[names[-1]])


def load_teacher(network: Network, path: Path) -> None:
    """Loads weights into `network`, strictly, under either of the usual names of a layer.

    Raises:
        UserError: as `read_state`, or the keys that do not fit.
    """
    state = {OLD_DENSENET.sub(r"\1\2.", name): value for name, value in read_state(path).items()}
    own = network.state_dict()
    for one, other in RENAMINGS:
        for old, new in ((one, other), (other, one)):
            if any(new in name for name in own) and not any(old in name for name in own):
                state = {name.replace(old, new): tensor for name, tensor in state.items()}
    for name, value in own.items():
        if name.endswith(".num_batches_tracked"):  # a counter that files of old releases lack
            state.setdefault(name, value)
    load_state(network, state, str(path))


def _common_prefix(names: Iterable[str]) -> str:
    found = [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in names)]
    return found[0] if found else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
