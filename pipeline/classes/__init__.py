"""Class sets: what the teacher can tell apart, and what to ask a search engine for it."""

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kd3_pipeline.classes import wording
from kd3_pipeline.classes.entries import KEYS, problems
from kd3_pipeline.classes.expansion import Expand, expanded
from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import load_yaml

HERE = Path(__file__).parent
DEMO_SETS = ("shapes10",)  # only the demo's search engine knows these
MOST_SHOWN = 20  # names in one line


@dataclass(frozen=True)
class ImageClass:
    """One class: its name and the search queries that bring images of it.

    Attributes:
        synonyms: queries for when those bring no more.
        contexts: words that vary the first query then, as `expansion.expanded` reads them.
        derived: the query is made from the name, since none was given.
    """

    name: str
    queries: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    derived: bool = False

    def expansions(self, expand: Expand) -> tuple[tuple[str, str], ...]:
        """What else to ask: (name of the variant, query), none of them one of `queries`.

        Args:
            expand: "none", "listed" for the class set's synonyms and contexts, "all" also for
                contexts that suit most things.
        """
        return expanded(self.queries, self.synonyms, self.contexts, expand)


@dataclass(frozen=True)
class ClassSet:
    """Classes in the order of the teacher's outputs. `name` is "" for a list without one."""

    name: str
    classes: tuple[ImageClass, ...]


def set_names() -> list[str]:
    """The named sets that come with the project."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def load_classes(spec: str | Sequence[str] | Mapping[str, Any]) -> ClassSet:
    """The set that `spec` means. A name without queries is searched for in readable words.

    Args:
        spec: the name of a set, the path of a YAML file (`.yaml`, `.yml`), names separated by
            commas, a list of names, or a mapping from a name to its queries: a list, or a mapping
            of lists with the keys `queries`, `synonyms` and `contexts`.

    Raises:
        UserError: no such set or file, an empty set, an unknown key, or a name given twice.
    """
    if isinstance(spec, str):
        if spec in set_names():
            return replace(_read(HERE / f"{spec}.yaml"), name=spec)
        if spec.endswith((".yaml", ".yml")):
            return _read(Path(spec))
        if "," not in spec:
            near = difflib.get_close_matches(spec, set_names(), n=1)
            meant = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(
                f"no class set named '{spec}'",
                f"{meant}known sets: {', '.join(set_names())}; a single class is '{spec},'",
            )
        spec = [name for name in (part.strip() for part in spec.split(",")) if name]
    return _class_set(spec, "crawl.classes", {})


def _read(path: Path) -> ClassSet:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(f"class file {path} not found") from None
    except (OSError, ValueError) as error:
        raise UserError(f"class file {path} cannot be read: {error}") from None
    entries, where = load_yaml(text, str(path))
    return _class_set(entries, f"class file {path}", where)


def _class_set(entries: Any, place: str, where: Mapping[str, str]) -> ClassSet:
    """The classes of `entries`; `place` is where these stand, and `where` its keys, by key path."""
    if isinstance(entries, Sequence) and not isinstance(entries, str):
        if wrong := [one for one in entries if not isinstance(one, str) or not one.strip()]:
            raise UserError(f"{place}: expected a name, got {wrong[0]!r:.60}")
        pairs: list[tuple[str, Any]] = [(name, None) for name in entries]
    elif isinstance(entries, Mapping):
        for path, what in problems(entries):
            raise UserError(f"{where.get(path, place)}: {path}: {what}")
        pairs = list(entries.items())
    else:
        raise UserError(f"{place}: expected a list of names, or names with lists of queries")
    classes = tuple(_image_class(name.strip(), words) for name, words in pairs)
    names = [one.name for one in classes]
    if not names:
        raise UserError(f"{place}: no names given")
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise UserError(f"{place}: given twice: {', '.join(twice)}")
    return ClassSet("", classes)


def _image_class(name: str, words: Any) -> ImageClass:
    given = words if isinstance(words, Mapping) else {"queries": words}
    queries, synonyms, contexts = (_texts(given.get(key)) for key in KEYS)
    if queries:
        return ImageClass(name, queries, synonyms, contexts)
    others = tuple(wording.readable(one) for one in wording.synonyms(name)[1:])
    return ImageClass(name, (wording.readable(name),), others + synonyms, contexts, derived=True)


def _texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value or []
    return tuple(dict.fromkeys(text.strip() for text in texts))


def renamed(classes: ClassSet) -> list[str]:
    """What a person has to know of the queries that are made from names, in lines."""
    made = [one for one in classes.classes if one.derived]
    lines = []
    if other := [f"{one.name} → {one.queries[0]}" for one in made if one.queries[0] != one.name]:
        lines.append(
            f"searched for by readable names: {_shown(other)}; queries that crawl.classes gives are"
            " sent as written"
        )
    doubts, askers = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for one in made:
        doubts[wording.doubt(one.name)].append(one.name)
    for one in classes.classes:
        for query in {wording.same(query) for query in one.queries}:
            askers[query].append(one.name)
    lines += [
        f"crawl.classes: {_shown(names)}: such a name {why}; give queries, as {{{names[0]}: [cat]}}"
        for why, names in doubts.items()
        if why
    ]
    lines += [
        f"crawl.classes: {_shown(names)} ask for the same, '{query}', and so for the same images:"
        " give them queries of their own"
        for query, names in askers.items()
        if len(names) > 1
    ]
    return lines


def _shown(texts: Sequence[str]) -> str:
    left = len(texts) - MOST_SHOWN
    return ", ".join(texts[:MOST_SHOWN]) + (f" and {left:,} more" if left > 0 else "")
