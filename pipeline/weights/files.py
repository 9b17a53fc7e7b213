"""Weights of a teacher: read from a file, and fitted to a network."""

import contextlib
import hashlib
import json
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.unpacked import SMALL, TIMES
from kd3_pipeline.weights.candidates import (
    Candidate,
    as_float32,
    candidates,
    class_names_beside,
    without_weights,
)
from kd3_pipeline.weights.otherfiles import other_kind, part_of_several
from kd3_pipeline.weights.pickles import read_pickle


@dataclass(frozen=True)
class Weights:
    """A teacher's weights and where they come from.

    Attributes:
        state: the first of `candidates`, which no averaged one is if there are others.
        origin: a file, or a repository, for errors.
        sha256: of the file; of a network that a repository built, of its state dict as
            safetensors.
        ordered: the state dict is in the order of the layers.
        class_names: of the outputs, where the source knows them.
        reference: the source's own network with these weights, where it comes with one.
        candidates: all state dicts that the file holds; floating tensors are float32.
        named_at: where in the file the class names are.
        names_unread: what seems to name the classes and could not be read, and why.
        notes: what was read in an unusual way.
    """

    state: dict[str, Tensor]
    origin: str
    sha256: str
    ordered: bool = True
    class_names: list[str] = field(default_factory=list)
    reference: nn.Module | None = None
    candidates: tuple[Candidate, ...] = ()
    named_at: str = ""
    names_unread: str = ""
    notes: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[Candidate, ...]:
        """All state dicts that may be meant, the most likely first."""
        return self.candidates or (Candidate("", self.state),)


def read_weights(
    path: Path, sha256: str = "", key: str = "teacher.path", choice: str = ""
) -> Weights:
    """The weights in a file.

    Args:
        sha256: of the file, or its first 8 digits or more; empty if not known.
        key: the parameter to name in errors.
        choice: name of one state dict of several in the file, or of the part of its keys, as
            `ema`; empty: all are candidates.

    Raises:
        UserError: the file is missing, unreadable, not the one meant, or holds no state dict, or
            none of this name.
    """
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # a pipe or a device may have no end
            raise UserError(f"{key}: {path} is no regular file", "copy what it gives into one")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{key}: {path} not found") from None
    except IsADirectoryError:
        inside = sorted(one.name for one in path.iterdir() if one.suffix in SUFFIXES)
        hint = f"name a file: {', '.join(inside)}" if inside else "name a file; it has no weights"
        raise UserError(f"{key}: {path} is a folder", hint) from None
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read: {error.strerror}") from None
    check_sha256(digest, sha256, str(path))
    value = _read(path, key)
    chosen = _chosen(candidates(value), choice, path, key)
    for one in chosen:
        _check_stored(one, path, key)
    found = [_with_float32(one) for one in chosen]
    if not found:
        what, hint = without_weights(value)
        raise UserError(f"{key}: {path} {what}", hint)
    notes = [f"{path.name}: {told}" for told in found[0][1][:1]]
    place, names, names_unread = class_names_beside(_metadata(path) or value)
    states = tuple(one for one, _ in found)
    return Weights(
        states[0].state,
        str(path),
        digest,
        not _is_safetensors(path),
        names,
        candidates=states,
        named_at=place,
        names_unread=names_unread,
        notes=tuple(notes),
    )


SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".th", ".tar")


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


def _read(path: Path, key: str) -> Any:
    try:
        if part := part_of_several(path):
            raise UserError(f"{key}: {path} is {part[0]}", part[1])
        if _is_safetensors(path):
            return load_file(path)
        if other := other_kind(path):
            raise UserError(f"{key}: {path} is {other[0]}", other[1])
        return read_pickle(path, key)
    except FileNotFoundError:
        raise UserError(f"{key}: {path} not found") from None
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError) as error:
        raise UserError(
            f"{key}: {path} cannot be read: {first_line(error)}",
            "if it is cut short, get it again; else save its state_dict anew",
        ) from None


def _is_safetensors(path: Path) -> bool:
    """Tells it by the content: a length of 8 bytes, and JSON; else by the name."""
    with path.open("rb") as stream:
        start = stream.read(9)
    pickle_or_zip = start[:2] in (b"PK", b"\x80\x02")
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not pickle_or_zip)


def _metadata(path: Path) -> dict[str, Any]:
    """What is written in the header of a file of safetensors, as JSON or else as text."""
    if not _is_safetensors(path):
        return {}
    with safe_open(path, "pt") as file:
        written = file.metadata() or {}
    found: dict[str, Any] = dict(written)
    for name, text in written.items():
        with contextlib.suppress(ValueError, RecursionError):
            found[name] = json.loads(text)
    return found


def _chosen(found: list[Candidate], choice: str, path: Path, key: str) -> list[Candidate]:
    """
    Raises:
        UserError: a choice is given, and nothing in the file has this name.
    """
    if not choice:
        return found
    named = [one for one in found if one.place == choice]
    prefix = f"{choice.rstrip('.')}."
    for one in found:
        part = {name: value for name, value in one.state.items() if name.startswith(prefix)}
        named += [Candidate(f"{one.place}.{choice}".lstrip("."), part)] * bool(part)
    if found and not named:
        known = ", ".join(one.place for one in found if one.place) or "none"
        raise UserError(
            f"teacher.weights: {path} has no state dict named '{choice}'", f"its own: {known}"
        )
    return named


def _check_stored(one: Candidate, path: Path, key: str) -> None:
    """
    Raises:
        UserError: tensors are no plain numbers; or far larger than the file, as views that repeat
            a value.
    """
    for name, value in one.state.items():
        if told := _not_plain(value):
            raise UserError(
                f"{key}: {path}: {printable(name)} is {told}",
                "save it again as ordinary tensors, as of the network before that was done to it",
            )
    larger = {name: value for name, value in one.state.items() if value.numel() > SMALL}
    numbers = sum(value.numel() for value in larger.values())
    if numbers > TIMES * path.stat().st_size:
        name, value = max(larger.items(), key=lambda item: item[1].numel())
        raise UserError(
            f"{key}: {path}: {printable(name)} is {list(value.shape)}, which the file has no room"
            " for",
            "save it again with tensors that are stored in full: {k: v.clone() for k, v in …}",
        )


def _not_plain(value: Tensor) -> str:
    """What is unusual about a tensor, in a word; empty for one of ordinary numbers."""
    kinds = {
        "without values (of the device 'meta')": value.is_meta,
        "sparse": not value.is_meta and value.layout != torch.strided,
        "quantised": value.is_quantized,
    }
    return next((kind for kind, is_so in kinds.items() if is_so), "")


def _with_float32(one: Candidate) -> tuple[Candidate, list[str]]:
    state, others = as_float32(one.state)
    told = [f"its weights are {' and '.join(others)}, here float32"] if others else []
    if one.beside and one.place == "" and len(one.beside) < len(one.state):
        told.append(f"beside its tensors: {', '.join(one.beside[:5])}, which are not read")
    return replace(one, state=state), told


def undo_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the prefixes that wrapping a network puts before all of its keys."""
    while state and (prefix := _common_prefix(state)):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _common_prefix(names: Iterable[str]) -> str:
    prefixes = ("module.", "_orig_mod.", "backbone.")
    found = [prefix for prefix in prefixes if all(name.startswith(prefix) for name in names)]
    return found[0] if found else ""
