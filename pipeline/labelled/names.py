"""Names of classes as people keep them: a list, or one of the usual files."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError

MOST_BYTES = 2**24
# keys of files that say more than names: of Hugging Face, of this project, of YOLO, of ImageFolder
INSIDE = ("id2label", "class_names", "names", "classes", "idx_to_class", "class_to_idx", "label2id")
DIGITS = re.compile(r"[0-9]{1,9}")
NUMBERED = re.compile(r"([0-9]+)\s*[\s:,;]\s*(\S.*)")  # a line that begins with its number
SYNSET = re.compile(r"(n[0-9]{8})\s+(\S.*)")  # as ImageNet's synset_words.txt
FORMS = (
    'one name a line, a JSON or YAML list, {"0": "cat", …}, {"cat": 0, …}, or one of these as '
    f"{', '.join(INSIDE)}"
)


@dataclass(frozen=True)
class ClassNames:
    """Names that numbers of classes stand for, and names that other names stand for."""

    listed: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.listed or self.renamed)


def class_names_of(given: str | Sequence[str] | Mapping[Any, str], key: str) -> ClassNames:
    """The names that a parameter gives: its own, or those of the file that it names.

    Args:
        key: of the parameter, for messages.

    Raises:
        UserError: there is no such file, or no names can be made of it.
    """
    if not isinstance(given, str):
        return _names(given if isinstance(given, Mapping) else list(given), key)
    return _names(_read(Path(given), key), f"{key}: {given}") if given else ClassNames()


def listed_names(given: str | Sequence[str], key: str) -> list[str]:
    """Names in order of their numbers, as a network's outputs have them.

    Raises:
        UserError: as `class_names_of`, or the file only gives other names for names.
    """
    found = class_names_of(given, key)
    if found.renamed and not found.listed:
        missing = next(at for at in range(len(found.renamed) + 1) if str(at) not in found.renamed)
        raise UserError(f"{key}: {given} has no name for the number {missing}", f"expected {FORMS}")
    return found.listed


def unnamed(names: Sequence[str]) -> bool:
    """Whether these are the names of a teacher whose classes nothing names: class 0, class 1, …"""
    return bool(names) and list(names) == [f"class {number}" for number in range(len(names))]


def _read(path: Path, key: str) -> Any:
    try:
        if not path.is_file():
            raise UserError(f"{key}: {path} not found", f"expected names, or a file of {FORMS}")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{key}: {path} is too large for a file of names")
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() == ".json":
            return json.loads(text)
        if path.suffix.lower() in (".yaml", ".yml"):
            return yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{key}: {path} cannot be read: {printable(reason)}") from None
    return _lines(text)


def _lines(text: str) -> Any:
    lines = [line.strip() for line in text.strip().splitlines()]
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if all(one and int(one[1]) == number for number, one in enumerate(numbered)):
        return [one[2] for one in numbered if one]
    synsets = [SYNSET.fullmatch(line) for line in lines]
    return [list(one.groups()) for one in synsets if one] if all(synsets) else lines


def _names(values: Any, place: str, depth: int = 2) -> ClassNames:
    """Names of a list or a mapping, in any of the usual forms."""
    if isinstance(values, Mapping):
        inside = next((key for key in INSIDE if isinstance(values.get(key), Mapping | list)), "")
        if inside and depth:
            return _names(values[inside], f"{place}: {inside}", depth - 1)
        numbers = list(values.values())
        if numbers and all(type(one) is int for one in numbers):
            return _in_order({number: name for name, number in values.items()}, place, len(values))
        by_number = {int(one): name for one, name in values.items() if DIGITS.fullmatch(str(one))}
        if values and sorted(by_number) == list(range(len(values))):
            return _in_order(by_number, place, len(values))
        if values and all(isinstance(one, str) for one in values.values()):
            return ClassNames(renamed={str(one): name for one, name in values.items()})
    elif isinstance(values, list):
        return _in_order(dict(enumerate(values)), place, len(values)) if values else ClassNames()
    raise UserError(f"{place} holds no names of classes", f"expected {FORMS}")


def _in_order(by_number: Mapping[int, Any], place: str, count: int) -> ClassNames:
    if sorted(by_number) != list(range(count)):
        missing = next((one for one in range(count) if one not in by_number), count)
        raise UserError(f"{place}: {count} names, and none has the number {missing}")
    listed, renamed = list[str](), dict[str, str]()
    for number in range(count):
        # ImageNet's class index has each name behind its synset
        *others, name = of if isinstance(of := by_number[number], list) and of else [of]
        if not all(isinstance(one, str) and one.strip() for one in (*others, name)):
            raise UserError(f"{place}: class {number} has {name!r} for a name")
        listed.append(name)
        renamed |= dict.fromkeys(others, name)
    return ClassNames(listed, renamed)
