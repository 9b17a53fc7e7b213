"""Reading a teacher's weights from a file."""

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


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from a file of torch.save that holds tensors only.

    Wrappers such as `state_dict` and prefixes such as `module.` are undone. Pickled objects other
    than tensors are refused, because loading them would run code.

    Raises:
        UserError: the file is missing, unreadable, or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"teacher.path: {path} not found") from None
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError) as error:
        raise UserError(f"teacher.path: {path} cannot be read: {_first_line(error)}") from None
    except Exception as error:  # weights_only refuses with pickle's own error
        raise UserError(
            f"teacher.path: {path} holds more than tensors: {_first_line(error)}",
            "save its state_dict as .safetensors",
        ) from None
    while isinstance(value, dict) and (inner := [key for key in WRAPPERS if key in value]):
        value = value[inner[0]]
    if not isinstance(value, dict) or not all(isinstance(v, torch.Tensor) for v in value.values()):
        raise UserError(f"teacher.path: {path} holds no state dict of tensors")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in value):
            value = {name.removeprefix(prefix): tensor for name, tensor in value.items()}
    return value


def class_count(path: Path) -> int:
    """Outputs of the last layer in the file."""
    state = read_state(path)
    biases = [tensor for tensor in state.values() if tensor.ndim == 1]
    if not biases:
        raise UserError(f"teacher.path: {path} ends in no linear layer; set teacher.class_names")
    return len(biases[-1])


def load_teacher(network: Network, path: Path) -> None:
    """Loads weights into `network`, strictly, under either of the usual names of a layer.

    Raises:
        UserError: as `read_state`, or the keys that do not fit.
    """
    state = read_state(path)
    own = network.state_dict()
    for one, other in RENAMINGS:
        for old, new in ((one, other), (other, one)):
            if any(new in name for name in own) and not any(old in name for name in own):
                state = {name.replace(old, new): tensor for name, tensor in state.items()}
    load_state(network, state, str(path))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
