"""Identity of a run: what the page is a report of, and with which parameters it was made."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_NAMES = 12  # classes named at the top


@dataclass(frozen=True)
class Parameter:
    """A parameter whose value is not the default."""

    key: str
    value: str
    default: str


@dataclass(frozen=True)
class Identity:
    """What is known of a run beside its files.

    Attributes:
        project: name of its folder.
        made: when the page was written, in ISO form.
        version: of the software.
        command: that wrote the page.
        parameters: those that are not the defaults.
        seeds: each seed with the sections that have it.
    """

    project: str = ""
    made: str = ""
    version: str = ""
    command: str = ""
    parameters: tuple[Parameter, ...] = ()
    seeds: tuple[tuple[int, tuple[str, ...]], ...] = ()

    @property
    def seed(self) -> str:
        """The seeds in one line."""
        if len(self.seeds) == 1:
            return str(self.seeds[0][0])
        return "; ".join(f"{seed} ({', '.join(where)})" for seed, where in self.seeds)


def parameters_of(
    values: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Mapping[str, Any]]
) -> tuple[Parameter, ...]:
    """Parameters by section whose value is not the default, in the order of the sections."""
    return tuple(
        Parameter(f"{section}.{key}", _written(value), _written(defaults[section][key]))
        for section, keys in values.items()
        for key, value in keys.items()
        if value != defaults[section][key]
    )


def seeds_of(
    values: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Each seed with its sections, that of the most sections first."""
    found = {section: keys["seed"] for section, keys in values.items() if "seed" in keys}
    return tuple(
        (seed, tuple(section for section, one in found.items() if one == seed))
        for seed, _ in Counter(found.values()).most_common()
    )


def classes_told(names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The first classes, and how many there are beside them."""
    return tuple(names[:MOST_NAMES]), max(0, len(names) - MOST_NAMES)


def _written(value: Any) -> str:
    """A value as params.yaml may have it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
