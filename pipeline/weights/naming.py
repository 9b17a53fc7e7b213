"""Names of tensors: how the keys of a file become those of a network."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from kd3_pipeline.weights.candidates import AVERAGED

# parts of names that come of wrapping a module, wherever it stands
WRAPPING = frozenset(
    (
        *("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module"),
        *("_checkpoint_wrapped_module", "wrapped_module"),
    )
)
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
OTHER_NAMES = {"shortcut": "downsample", "downsample": "shortcut"}  # of a layer
COUNTER = ".num_batches_tracked"
PROBES = 4  # names of a network at each end by which a prefix is looked for
TRIED = 6  # namings that fit best

Names = dict[str, str]  # a network's name of each key of a file; others are not the network's


@dataclass(frozen=True)
class Naming:
    """One way to read a file's keys.

    Attributes:
        names: by key of the file the name in the network's terms, for keys under `prefix`.
        prefix: that the file's keys have before the network's.
        told: what is unusual about it; empty if nothing.
    """

    names: Names
    prefix: str = ""
    told: str = ""


def counted(name: str) -> bool:
    """Tells whether a key is a counter of batches, which no answer depends on."""
    return name.endswith(COUNTER) or name == COUNTER[1:]


def namings(trunk: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[Naming]:
    """Ways to read the keys of `state`, the one that finds most of `trunk` first.

    Args:
        trunk: the network's tensors without its last layers, by name and in order.
    """
    wanted = [name for name in trunk if not counted(name)]
    found: list[tuple[int, Naming]] = []
    for cleaned in _cleaned(wanted, state):
        for prefix, added in _prefixes(wanted, cleaned.values()):
            names = {
                key: added + name.removeprefix(prefix)
                for key, name in cleaned.items()
                if name.startswith(prefix)
            }
            have = set(names.values())
            score = sum(name in have for name in wanted)
            found.append((score, Naming(names, prefix)))
    found.sort(key=lambda one: (-one[0], bool(AVERAGED.search(one[1].prefix))))
    if not found or found[0][0] < len(wanted):
        plain = _clean(state)
        found[:0] = [(0, naming) for naming in _numbered(trunk, plain, state)]
    return [naming for _, naming in found[:TRIED]]


def _clean(state: Iterable[str]) -> Names:
    names = {}
    for key in state:
        parts = [part for part in key.split(".") if part not in WRAPPING]
        names[key] = OLD_DENSENET.sub(r"\1\2.", ".".join(parts))
    return names


def _cleaned(wanted: list[str], state: Mapping[str, Tensor]) -> list[Names]:
    """Names as they are, without what wrapping adds, and with the other usual names of layers."""
    as_they_are = {key: key for key in state}
    plain = _clean(state)
    parts = {part for name in wanted for part in name.split(".")}
    others = {old: new for old, new in OTHER_NAMES.items() if new in parts and old not in parts}
    renamed = {
        key: ".".join(others.get(part, part) for part in name.split("."))
        for key, name in plain.items()
    }
    found = [as_they_are]
    found += [names for names in (plain, renamed) if names not in found]
    return found


def _prefixes(wanted: list[str], names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of a prefix to take off and one to put before: the file's, and the network's."""
    names = list(names)
    parts = wanted[0].split(".") if wanted else []
    dotted = ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts))]
    own = [prefix for prefix in dotted if all(name.startswith(prefix) for name in wanted)]
    found = dict.fromkeys([("", "")])
    for added in own:
        for probe in (*wanted[:PROBES], *wanted[-PROBES:]):
            rest = probe.removeprefix(added)
            for name in names:
                if name == rest or name.endswith(f".{rest}"):
                    found[name[: len(name) - len(rest)], added] = None
    return list(found)


def _numbered(
    trunk: Mapping[str, Tensor], cleaned: Names, state: Mapping[str, Tensor]
) -> Iterator[Naming]:
    """Children of the network under the numbers of `nn.Sequential(*network.children())`."""
    own = _groups(trunk)
    for prefix in dict.fromkeys(_before_numbers(cleaned.values())):
        under = {key: name for key, name in cleaned.items() if name.startswith(prefix)}
        inner = {name.removeprefix(prefix): state[key] for key, name in under.items()}
        groups = {number: group for number, group in _groups(inner).items() if number.isdigit()}
        order = sorted(groups, key=int)[: len(own)]
        if len(order) < max(2, len(own)):
            continue
        pairs = dict(zip(order, own, strict=True))
        if any(groups[number] != own[child] for number, child in pairs.items()):
            continue
        names = {}
        for key, name in under.items():
            number, _, rest = name.removeprefix(prefix).partition(".")
            if number in pairs:
                names[key] = f"{pairs[number]}.{rest}"
        told = ", ".join(f"{prefix}{number} = {child}" for number, child in pairs.items())
        yield Naming(names, prefix, f"its layers have numbers, in the network's order: {told}")


def _groups(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, tuple[int, ...]]]:
    """By first part of the name the rest of the names with their shapes, counters left out."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        if rest and not counted(name):
            found.setdefault(first, {})[rest] = tuple(tensor.shape)
    return found


def _before_numbers(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts):
            if part.isdigit():
                yield "".join(f"{one}." for one in parts[:place])
