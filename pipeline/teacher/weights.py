"""Weights of a teacher: read from a file, and fitted to a network."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.finite import check_weights
from pipeline.models.network import Network

WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "backbone.")
RENAMINGS = (("linear.", "fc."), ("shortcut.", "downsample."))
AVERAGING_COUNTER = "n_averaged"  # of torch's AveragedModel, beside the averaged weights
LAST_NUMBER = re.compile(r"(.*?)(\d+)\.weight")
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
SHOWN = 10  # of each kind of key that does not fit


@dataclass(frozen=True)
class Weights:
    """A teacher's weights and where they come from.

    Attributes:
        origin: a file, or a repository, for errors.
        sha256: of the file; of a network that a repository built, of its state dict as
            safetensors.
        ordered: the state dict is in the order of the layers.
        class_names: of the outputs, where the source knows them.
        reference: the source's own network with these weights, where it comes with one.
    """

    state: dict[str, Tensor]
    origin: str
    sha256: str
    ordered: bool = True
    class_names: list[str] = field(default_factory=list)
    reference: nn.Module | None = None


def read_weights(path: Path, sha256: str = "", key: str = "teacher.path") -> Weights:
    """The weights in a file.

    Args:
        sha256: of the file, or its first 8 digits or more; empty if not known.
        key: the parameter to name in errors.

    Raises:
        UserError: the file is missing, unreadable, not the one meant, or holds no state dict.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{key}: {path} not found") from None
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read: {error.strerror}") from None
    check_sha256(digest, sha256, str(path))
    return Weights(read_state(path, key), str(path), digest, path.suffix != ".safetensors")


def check_sha256(found: str, wanted: str, origin: str) -> None:
    """
    Raises:
        UserError: `found` does not start with `wanted`.
    """
    if not found.startswith(wanted.lower()):
        raise UserError(
            f"teacher.sha256: {origin} has {found}, not {wanted}",
            "it is another file than the one meant: get it again, or correct the parameter",
        )


def read_state(path: Path, key: str = "teacher.path") -> dict[str, Tensor]:
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
        raise UserError(f"{key}: {path} not found") from None
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError) as error:
        raise UserError(f"{key}: {path} cannot be read: {first_line(error)}") from None
    except Exception:  # weights_only refuses with pickle's own error, broken pickles raise any
        raise UserError(
            f"{key}: {path} is not a file of tensors alone, and others could run code",
            "save its state_dict as .safetensors",
        ) from None
    while isinstance(value, dict) and (inner := [name for name in WRAPPERS if name in value]):
        value = value[inner[0]]
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    ):
        raise UserError(f"{key}: {path} holds no state dict of tensors")
    return undo_prefixes(value)


def undo_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the prefixes that all of its keys have, in any order and nesting."""
    state = {name: tensor for name, tensor in state.items() if name != AVERAGING_COUNTER}
    while state and (prefix := _common_prefix(state)):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def class_count(weights: Weights) -> int:
    """Outputs of the last linear layer.

    Linear layers are the matrices, in the networks known here. The last of several is that with
    the highest number (`classifier.6` after `classifier.3`), else the last in the file, if the
    format keeps their order: safetensors does not.

    Raises:
        UserError: there is no linear layer, or the last cannot be told.
    """
    names = [name for name, tensor in weights.state.items() if tensor.ndim == 2]
    places = {name: LAST_NUMBER.fullmatch(name) for name in names}
    matches = {name: match for name, match in places.items() if match}
    numbered = len(matches) == len(names) and len({match[1] for match in matches.values()}) == 1
    if numbered:
        names.sort(key=lambda name: int(matches[name][2]))
    ordered = numbered or len(names) == 1 or weights.ordered
    if not names or not ordered:
        raise UserError(
            f"{weights.origin} has {len(names)} linear layers, and which is the last cannot be"
            " told",
            "set teacher.class_names",
        )
    return len(weights.state[names[-1]])


def load_teacher(network: Network, weights: Weights, input_size: int) -> None:
    """Loads weights into `network`, strictly, under either of the usual names of a layer.

    Args:
        input_size: side in pixels of the images that the network is meant for.

    Raises:
        UserError: lists all that does not fit: the number of classes, keys that are missing or
            unexpected, shapes, the input size; or some are not finite; or the source's own network
            has other logits.
    """
    own = network.state_dict()
    state = rename(weights.state, own, getattr(network, "own_names", {}))
    problems = [*_class_problem(network, state, own), *_key_problems(state, own)]
    problems += _size_problem(network, input_size)
    if problems:
        listed = "; ".join(problems)
        raise UserError(f"{weights.origin} does not fit the architecture: {listed}")
    check_weights(weights.state, weights.origin)
    network.load_state_dict(state)
    if weights.reference is not None:
        _compare(network, weights.reference, weights.origin, input_size)


def rename(
    state: dict[str, Tensor], own: Iterable[str], own_names: dict[str, str]
) -> dict[str, Tensor]:
    """`state` with the keys `own` of a network, as far as they have other usual names.

    Args:
        own_names: as in `CutNetwork`.
    """
    state = {OLD_DENSENET.sub(r"\1\2.", name): value for name, value in state.items()}
    own = dict.fromkeys(own)
    for one, other in RENAMINGS:
        for old, new in ((one, other), (other, one)):
            if any(new in name for name in own) and not any(old in name for name in own):
                state = {name.replace(old, new): tensor for name, tensor in state.items()}
    if not state.keys() <= own.keys():  # else it was saved from such a network
        state = {_own_name(name, own_names): tensor for name, tensor in state.items()}
    for name in own:
        if name.endswith(".num_batches_tracked"):  # a counter that files of old releases lack
            state.setdefault(name, torch.tensor(0))
    return state


def _own_name(name: str, own_names: dict[str, str]) -> str:
    for theirs, ours in own_names.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _class_problem(network: Network, state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Where the last layer alone shows it: other outputs, from as many inputs."""
    matrices = [name for name in own if own[name].ndim == 2]
    if not matrices or matrices[-1] not in state:
        return []
    found, wanted = state[matrices[-1]].shape, own[matrices[-1]].shape
    if found == wanted or found[1:] != wanted[1:]:
        return []
    return [f"{network.num_classes} class names for {found[0]} outputs (teacher.class_names)"]


def _key_problems(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    shapes = [
        f"{name} {list(state[name].shape)} for {list(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    kinds = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    return [f"{kind} {_listed(names)}" for kind, names in kinds.items() if names]


def _size_problem(network: Network, input_size: int) -> list[str]:
    training = network.training
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, input_size, input_size, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:
        return [f"images of {input_size} pixels (teacher.input_size): {first_line(error)}"]
    finally:
        network.train(training)
    return []


def _compare(network: Network, reference: nn.Module, origin: str, input_size: int) -> None:
    """The source's own network, which runs its code, and ours have to agree."""
    training = network.training
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, input_size, input_size, generator=draw)
    with torch.no_grad():
        logits, expected = network.eval()(images), reference.eval()(images)
    network.train(training)
    if logits.shape != expected.shape or not torch.allclose(logits, expected, 1e-3, 1e-3):
        raise UserError(
            f"teacher.architecture: {origin} has other logits than this architecture with"
            " its weights",
            "choose the architecture that the source describes",
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _common_prefix(names: Iterable[str]) -> str:
    found = [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in names)]
    return found[0] if found else ""


def first_line(error: Exception) -> str:
    """The first line of an error's text, cut at 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
