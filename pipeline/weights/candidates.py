"""State dicts in what a file holds, and the class names beside them."""

import re
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kd3_pipeline.console import printable
from kd3_pipeline.weights.pickles import ArrayStandIn

DEEPEST = 4  # wrappers in wrappers
AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow|momentum|target)($|[._])", re.I)
NAMES = (
    *("class_names", "classes", "class_to_idx", "idx_to_class", "id2label", "label2id"),
    *("categories", "labels", "label_names"),
)
SHOWN = 5  # keys of a file without weights


@dataclass(frozen=True)
class Candidate:
    """A dictionary of tensors and the keys that lead to it, joined by dots."""

    place: str
    state: dict[str, Tensor]
    beside: tuple[str, ...] = ()  # keys in it whose values are no tensors

    @property
    def averaged(self) -> bool:
        """Tells whether its name is one of averaged weights (EMA, SWA)."""
        return bool(AVERAGED.search(self.place))


def candidates(value: object) -> list[Candidate]:
    """All dictionaries of tensors by name in a file: averaged ones last, else as they come."""
    found = sorted(_walk(value, "", DEEPEST), key=lambda one: one.averaged)
    whole = [one for one in found if any(tensor.ndim > 1 for tensor in one.state.values())]
    return whole or found


def _walk(value: object, place: str, depth: int) -> Iterator[Candidate]:
    if not isinstance(value, Mapping):
        return
    state = {
        name: tensor
        for name, tensor in value.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    if any(tensor.ndim for tensor in state.values()):
        yield Candidate(place, state, tuple(str(name) for name in value if name not in state))
    for name, inner in value.items():
        if isinstance(name, str) and depth:
            yield from _walk(inner, f"{place}.{name}".lstrip("."), depth - 1)


def class_names_beside(value: object) -> tuple[str, list[str], str]:
    """Class names that a file has for its outputs.

    Returns:
        Where they are, and the names in the order of the outputs; empty if there are none. Beside
        them, if none could be read, what stands in their place and why it was not; else empty.
    """
    unread = ""
    for place, found in _values(value, "", 2):
        if isinstance(found, Tensor | int | float | None) or _is_empty(found):
            continue
        try:
            return place, _names(found), ""
        except ValueError as why:
            unread = unread or f"{printable(place)} of the file is not read as class names: {why}"
    return "", [], unread


def _values(value: object, place: str, depth: int) -> Iterator[tuple[str, Any]]:
    inner = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    for name in NAMES:
        if name in inner:
            yield f"{place}.{name}".lstrip("."), inner[name]
    for name, one in inner.items():
        if isinstance(name, str) and depth and not isinstance(one, Tensor):
            yield from _values(one, f"{place}.{name}".lstrip("."), depth - 1)


def _is_empty(found: object) -> bool:
    return isinstance(found, Sized) and not len(found)


def _names(found: object) -> list[str]:
    """
    Raises:
        ValueError: says why these are no names in the order of the outputs.
    """
    if isinstance(found, Mapping):
        found = _in_order(found)
    if isinstance(found, ArrayStandIn):
        found = found.values
    if isinstance(found, set | frozenset):
        raise ValueError("a set has no order")
    if not isinstance(found, list | tuple):
        raise ValueError("it is no list, no dictionary, and no row of texts")
    names = []
    for one in found:
        text = one.decode("utf-8") if isinstance(one, bytes) else one
        if not isinstance(text, str):
            raise ValueError("not all of its names are texts")
        names.append(printable(text))
    return names


def _in_order(found: Mapping) -> list[object]:
    """Names by number, or numbers by name, as a list.

    Raises:
        ValueError: the numbers are not those of the outputs.
    """
    pairs = list(found.items())
    if all(isinstance(number, int) for _, number in pairs):
        pairs = [(number, name) for name, number in pairs]
    numbered = {int(key): one for key, one in pairs if str(key).isdecimal()}
    if sorted(numbered) != list(range(len(pairs))):
        raise ValueError(f"its numbers are not 0 to {len(pairs) - 1}, each once")
    return [numbered[place] for place in range(len(pairs))]


def without_weights(value: object) -> tuple[str, str]:
    """Why a file has no candidate, and what to do: `holds …`."""
    save = "save model.state_dict() in a file of its own"
    if isinstance(value, Tensor):
        return f"holds one tensor, {list(value.shape)}, and not the weights of a network", save
    if isinstance(value, list | tuple):
        inside = any(candidates(one) for one in value)
        first = "save its item that is the state dict alone: torch.save(saved[0], …)"
        return f"holds a list of {len(value)}, and no state dict of tensors", (
            first if inside else save
        )
    if isinstance(value, Mapping) and not value:
        return "holds an empty state dict, no tensors", f"{save}, after the network was built"
    if isinstance(value, Mapping):
        keys = ", ".join(printable(str(key)) for key in list(value)[:SHOWN])
        return f"holds no state dict of tensors (its keys: {keys})"[:300], save
    return f"holds no state dict of tensors, but a {type(value).__name__}", save


def as_float32(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """`state` with float32 for other floating types, which are named beside it."""
    others = sorted(
        {
            str(tensor.dtype).removeprefix("torch.")
            for tensor in state.values()
            if tensor.is_floating_point() and tensor.dtype != torch.float32
        }
    )
    cast = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    return cast, others
