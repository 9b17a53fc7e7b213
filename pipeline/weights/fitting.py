"""Weights fitted to a network: every tensor under its name there, and what is left over told."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kd3_pipeline.console import listed, printable
from kd3_pipeline.models.heads import Slot
from kd3_pipeline.models.layers import build_layers
from kd3_pipeline.weights.chains import BESIDE, Layer, chains, described, head_spec, layers_in
from kd3_pipeline.weights.naming import Naming, counted, namings

SHOWN = 10  # of each kind of key that does not fit
LEFT_SHOWN = 5  # groups of keys that are left out
SET_HEAD = "teacher.options: {head: …} sets it"


@dataclass(frozen=True)
class Fit:
    """A state dict that fits a network whole.

    Attributes:
        state: by the network's names; those of the last layers are of `head` if there is one.
        outputs: of the last layer; 0 if the network has none that is known.
        head: for `put_head`, if the file has other last layers than the network.
        left: keys of the file that are left out.
        notes: what was read in an unusual way, or assumed.
    """

    state: dict[str, Tensor]
    outputs: int
    head: dict[str, Any] | None = None
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class NoFit(Exception):
    """The tensors do not fit: `problems`, one a kind, and what does not and why."""

    def __init__(self, problems: Sequence[str], misfits: int) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)
        self.misfits = misfits


@dataclass
class _Reading:
    """A file's tensors in a network's terms, and what remains of them."""

    used: dict[str, str]  # the file's key by the network's name
    rest: dict[str, str]  # other names in the network's terms, or of the file, by the file's key
    naming: Naming
    problems: list[str] = field(default_factory=list)
    misfits: int = 0


def fit(
    own: Mapping[str, Tensor],
    slots: Sequence[Slot],
    state: Mapping[str, Tensor],
    *,
    ordered: bool = True,
    head: str | Sequence[Any] = "ReLU",
    classes: int = 0,
) -> Fit:
    """The tensors of `state` for the network with the tensors `own`.

    Args:
        own: may be on the meta device: only shapes are looked at.
        slots: places of the network's last layers, of `slots_of`.
        ordered: the state dict is in the order of the layers.
        head: of several layers, the activation between those that have tensors (a type of
            `build_layers`), or all layers as `build_layers` takes them.
        classes: outputs that the last layer has to have; 0: any.

    Raises:
        NoFit: with what is missing, left over or of another shape in the way that fits best.
    """
    best: NoFit | None = None
    places: Sequence[Slot | None] = slots or [None]
    for slot in places:
        under = "" if slot is None else slot.at
        trunk = {name: one for name, one in own.items() if not _under(name, under)}
        for naming in namings(trunk or own, state):
            reading = _read(trunk, under, naming, state)
            try:
                return _with_head(own, slot, reading, state, ordered, head, classes)
            except NoFit as error:
                if best is None or error.misfits < best.misfits:
                    best = error
    raise best or NoFit(["it has no tensors"], len(own))


def fit_trunk(
    own: Mapping[str, Tensor], slot: Slot, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of `state` for all of a network but its last layers, and what to tell.

    Raises:
        NoFit: as `fit`.
    """
    trunk = {name: one for name, one in own.items() if not _under(name, slot.at)}
    best: NoFit | None = None
    for naming in namings(trunk, state):
        reading = _read(trunk, slot.at, naming, state)
        if reading.problems:
            if best is None or reading.misfits < best.misfits:
                best = NoFit(reading.problems, reading.misfits)
            continue
        found = {name: state[key] for name, key in reading.used.items()}
        left = [key for key in reading.rest if not counted(key)]
        notes = [naming.told] if naming.told else []
        if left:
            notes.append(f"left out: {_grouped(left, state)}")
        return found, notes
    raise best or NoFit(["it has no tensors"], len(own))


def _under(name: str, at: str) -> bool:
    return bool(at) and (name == at or name.startswith(f"{at}."))


def _read(
    trunk: Mapping[str, Tensor], at: str, naming: Naming, state: Mapping[str, Tensor]
) -> _Reading:
    """The trunk's tensors by this naming: what fits, what does not, and what remains."""
    by_name = {name: key for key, name in naming.names.items()}
    used = {name: by_name[name] for name in trunk if name in by_name}
    wrong = [name for name, key in used.items() if state[key].shape != trunk[name].shape]
    missing = [name for name in trunk if name not in used and not counted(name)]
    taken = set(used.values())
    inside = {name for key, name in naming.names.items() if key not in taken}
    rest = {
        key: naming.names.get(key, f"_.{key}" if key in inside else key)
        for key in state
        if key not in taken
    }
    children = {name.partition(".")[0] for name in trunk}
    unexpected = [
        name
        for key, name in rest.items()
        if key in naming.names
        and name.partition(".")[0] in children
        and not _under(name, at)
        and not counted(name)
    ]
    shapes = [
        f"{name} {list(state[used[name]].shape)} for {list(trunk[name].shape)}" for name in wrong
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    problems = [f"{kind} {listed(names, SHOWN)}" for kind, names in kinds.items() if names]
    misfits = len(missing) + len(unexpected) + len(wrong)
    return _Reading(used, rest, naming, problems, misfits)


def _with_head(
    own: Mapping[str, Tensor],
    slot: Slot | None,
    reading: _Reading,
    state: Mapping[str, Tensor],
    ordered: bool,
    wanted: str | Sequence[Any],
    classes: int,
) -> Fit:
    """
    Raises:
        NoFit: the trunk does not fit, or there are no last layers, or they cannot be told.
    """
    notes = [reading.naming.told] if reading.naming.told else []
    if slot is None:
        if reading.problems:
            raise NoFit(reading.problems, reading.misfits)
        return _finished(own, reading, state, {}, None, 0, notes)
    exact = _own_head(own, slot, reading, state)
    tensors = {reading.rest[key]: state[key] for key in reading.rest}
    layers, _ = layers_in(tensors)
    found = [] if exact else chains(layers, slot.inputs, ordered)
    problems = []
    if not exact and len(found) != 1:
        problems = [_no_head(found, layers, slot)]
        outputs = classes
    else:
        outputs = len(state[exact[f"{slot.last}.weight"]]) if exact else found[0][-1].outputs
    if classes not in (0, outputs):
        problems = [f"{classes} class names for {outputs} outputs (teacher.class_names)"]
    if problems or reading.problems:
        raise NoFit([*problems, *reading.problems], reading.misfits + bool(problems))
    if exact:
        _refuse_more(reading, exact, state, slot, outputs)
        return _finished(own, reading, state, exact, None, outputs, notes)
    (chain,) = found
    spec, renamed, told = _head(chain, slot, own, wanted)
    keys = {name: key for key, name in reading.rest.items()}
    head_keys = {f"{slot.at}.{inner}": keys[name] for name, inner in renamed.items()}
    if told:
        notes.append(told)
    plain = spec is None
    head = None if plain else {"at": slot.at, "layers": spec}
    return _finished(own, reading, state, head_keys, head, chain[-1].outputs, notes)


def _own_head(
    own: Mapping[str, Tensor], slot: Slot, reading: _Reading, state: Mapping[str, Tensor]
) -> dict[str, str]:
    """The file's keys of the network's own last layers; empty if it has not exactly these."""
    by_name = {name: key for key, name in reading.rest.items() if key in reading.naming.names}
    wanted = [name for name in own if _under(name, slot.at) and not counted(name)]
    there = [name for name in by_name if _under(name, slot.at) and not counted(name)]
    if sorted(wanted) != sorted(there):
        return {}
    for name in wanted:
        found, expected = state[by_name[name]].shape, own[name].shape
        last = name.rpartition(".")[0] == slot.last  # its outputs are the classes, however many
        if (
            (found[1:] != expected[1:] or len(found) != len(expected))
            if last
            else found != expected
        ):
            return {}
    return {name: by_name[name] for name in wanted}


def _refuse_more(
    reading: _Reading,
    exact: Mapping[str, str],
    state: Mapping[str, Tensor],
    slot: Slot,
    outputs: int,
) -> None:
    """
    Raises:
        NoFit: beside the network's own last layer the file has another that takes its outputs.
    """
    taken = set(exact.values())
    others = {name: state[key] for key, name in reading.rest.items() if key not in taken}
    for layer in layers_in(others)[0]:
        if layer.kind == "Linear" and layer.follows(outputs):
            shape = list(layer.tensors["weight"].shape)
            raise NoFit(
                [
                    f"{layer.name} {shape} may follow {slot.last}, which has {outputs} outputs too,"
                    " and what is between them cannot be told"
                ],
                1,
            )


def _no_head(found: Sequence[Sequence[Layer]], layers: Sequence[Layer], slot: Slot) -> str:
    if found:
        chains_found = " or ".join(", ".join(layer.name for layer in chain) for chain in found)
        return f"its last layers cannot be told ({printable(chains_found)}): {SET_HEAD}"
    linear = [
        f"{layer.name} {list(layer.tensors['weight'].shape)}"
        for layer in layers
        if layer.kind == "Linear"
    ]
    what = f" ({listed(linear, SHOWN)})" if linear else ""
    return f"no last layers that take {slot.inputs} features, as {slot.last} does{what}"


def _head(
    chain: Sequence[Layer], slot: Slot, own: Mapping[str, Tensor], wanted: str | Sequence[Any]
) -> tuple[list[dict[str, Any]] | None, dict[str, str], str]:
    """Layers for the network, the names of the chain's tensors in them, and what to tell.

    The layers are None if the network's own last layer does, with other names.
    """
    first = chain[0]
    as_own = slot.at == slot.last and ("bias" in first.tensors) == (f"{slot.at}.bias" in own)
    if not isinstance(wanted, str):
        layers = build_layers(wanted)
        spec, names = list(wanted), _in_order(layers.state_dict(), chain)
        return spec, names, ""
    if len(chain) == 1 and first.kind == "Linear":
        names = {f"{first.name}.{part}": part for part in first.tensors}
        told = "" if first.name == slot.at else f"its last layer is {first.name}"
        return None if as_own else [{"name": ""} | first.spec], names, told
    spec, names = head_spec(chain, wanted)
    where = " and ".join(dict.fromkeys(layer.name.partition(".")[0] for layer in chain))
    told = f"its head ({where}) is rebuilt from names and shapes as {described(spec)}"
    if any(one["type"] == wanted for one in spec):
        told += f"; {wanted} is assumed, as it has no weights: {SET_HEAD}"
    elif sum(layer.kind == "Linear" for layer in chain) > 1:
        told += f"; nothing is between its linear layers: {SET_HEAD}"
    return spec, names, f"{told}; a softmax at its end would not be seen, and changes no class"


def _in_order(own: Mapping[str, Tensor], chain: Sequence[Layer]) -> dict[str, str]:
    """Names in layers that were given, of the file's tensors one after the other.

    Raises:
        NoFit: they are not as many, or have other shapes.
    """
    theirs = [
        (f"{layer.name}.{part}", tensor)
        for layer in chain
        for part, tensor in layer.tensors.items()
    ]
    pairs = list(itertools.zip_longest(own.items(), theirs))
    for mine, other in pairs:
        if mine is None or other is None or mine[1].shape != other[1].shape:
            name, tensor = other or mine
            raise NoFit(
                [f"{name} {list(tensor.shape)} does not fit the layers of teacher.options"], 1
            )
    return {name: inner for (inner, _), (name, _) in pairs}


def _finished(
    own: Mapping[str, Tensor],
    reading: _Reading,
    state: Mapping[str, Tensor],
    head_keys: Mapping[str, str],
    head: dict[str, Any] | None,
    outputs: int,
    notes: list[str],
) -> Fit:
    """
    Raises:
        NoFit: what remains may be part of the network.
    """
    keys = reading.used | dict(head_keys)
    taken = set(keys.values())
    left = [key for key in state if key not in taken and not counted(key)]
    wrong = [key for key in left if not _may_be_left(key, reading, state[key])]
    if wrong:
        raise NoFit([f"unexpected {listed(wrong, SHOWN)}"], len(wrong))
    fitted = {name: state[key] for name, key in keys.items()}
    for name in own:
        if counted(name) and name not in fitted and not _under(name, head["at"] if head else ""):
            fitted[name] = torch.tensor(0)  # files of old releases lack them
    if left:
        others = _other_networks(own, left)
        if others:
            named = " and ".join(f"'{prefix.rstrip('.')}'" for prefix in others)
            which = (
                f"of '{taken_from}'" if (taken_from := reading.naming.prefix.rstrip(".")) else ""
            )
            told = f"its weights are those {which or 'without a prefix'}; those of {named} would"
            notes = [*notes, f"{told} fit as well (teacher.weights chooses, by this name)"]
        unlike = [key for key in left if not key.startswith(tuple(others))]
        if unlike:
            told = f"left out, as the network has no such tensors: {_grouped(unlike, state)}"
            notes = [*notes, told]
    return Fit(fitted, outputs, head, tuple(left), tuple(notes))


def _other_networks(own: Mapping[str, Tensor], left: Sequence[str]) -> list[str]:
    """Prefixes under which the keys that are left are another such network."""
    names = [name for name in own if not counted(name)]
    there = set(left)
    prefixes = [key.removesuffix(names[0]) for key in left if key.endswith(f".{names[0]}")]
    return [one for one in prefixes if all(f"{one}{name}" in there for name in names)]


def _may_be_left(key: str, reading: _Reading, tensor: Tensor) -> bool:
    """Tells whether a tensor is beside the network, and not of a layer that it lacks."""
    outside = bool(reading.naming.prefix) and key not in reading.naming.names
    if outside or BESIDE.search(key):
        return True
    siblings = {other.rpartition(".")[0] for other in reading.rest if other != key}
    return tensor.ndim < 2 and key.rpartition(".")[0] not in siblings - {""}


def _grouped(keys: Sequence[str], state: Mapping[str, Tensor]) -> str:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.partition(".")[0], []).append(key)
    words = [
        f"{found[0]} {list(state[found[0]].shape)}"
        if len(found) == 1
        else f"{first}.* ({len(found)})"
        for first, found in groups.items()
    ]
    return listed(words, LEFT_SHOWN)
