"""Class sets: what the teacher can tell apart, and what to ask a search engine for it."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.paramfile import load_yaml

HERE = Path(__file__).parent
DEMO_SETS = ("shapes10",)  # only the demo's search engine knows these


@dataclass(frozen=True)
class ImageClass:
    """One class: its name and the search queries that bring images of it."""

    name: str
    queries: tuple[str, ...]


@dataclass(frozen=True)
class ClassSet:
    """Classes in the order of the teacher's outputs. `name` is "" for a list without one."""

    name: str
    classes: tuple[ImageClass, ...]


def set_names() -> list[str]:
    """The named sets that come with the project."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def load_classes(spec: str | Sequence[str] | Mapping[str, Sequence[str]]) -> ClassSet:
    """The set that `spec` means.

    Args:
        spec: the name of a set, the path of a YAML file (`.yaml`, `.yml`), names separated by
            commas, a list of names, or a mapping from a name to its queries.

    Raises:
        UserError: no such set or file, an empty set, or a name given twice.
    """
    if isinstance(spec, str):
        if spec in set_names():
            return _class_set(spec, _read(HERE / f"{spec}.yaml"))
        if spec.endswith((".yaml", ".yml")):
            return _class_set("", _read(Path(spec)))
        if "," not in spec:
            near = difflib.get_close_matches(spec, set_names(), n=1)
            meant = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(
                f"no class set named '{spec}'",
                f"{meant}known sets: {', '.join(set_names())}; a single class is '{spec},'",
            )
        spec = [name for name in (part.strip() for part in spec.split(",")) if name]
    return _class_set("", spec)


def _read(path: Path) -> Any:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(f"class file {path} not found") from None
    except (OSError, ValueError) as error:
        raise UserError(f"class file {path} cannot be read: {error}") from None
    return load_yaml(text, str(path))[0]


def _class_set(name: str, entries: Any) -> ClassSet:
    if isinstance(entries, Mapping):
        pairs = [
            (key, [key] if queries in (None, []) else queries) for key, queries in entries.items()
        ]
    elif isinstance(entries, Sequence) and not isinstance(entries, str):
        pairs = [(entry, [entry]) for entry in entries]
    else:
        raise UserError("classes: expected a list of names, or names with lists of queries")
    classes = []
    for key, queries in pairs:
        queries = [queries] if isinstance(queries, str) else queries
        texts = [key, *queries] if isinstance(queries, Sequence) else [None]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"classes: {key!r}: expected a name with a list of queries")
        classes.append(ImageClass(key.strip(), tuple(query.strip() for query in queries)))
    names = [one.name for one in classes]
    if not names:
        raise UserError("classes: no names given")
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise UserError(f"classes: given twice: {', '.join(twice)}")
    return ClassSet(name, tuple(classes))
