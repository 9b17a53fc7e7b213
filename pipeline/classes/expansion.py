"""Expansion of a class: other queries that bring images of it, when its own bring no more."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from kd3_pipeline.classes.wording import same, subject

Expand = Literal["none", "listed", "all"]

# what holds for an animal, an object, a scene and a person alike, the likeliest to bring photos
# first. None names another thing, as "with a dog" would, or makes the subject another one, as "old"
# does of a baby; and none is a word by which people search for pornography.
TEMPLATES = (
    "{} photo",
    "{} outdoors",
    "{} close up",
    "{} side view",
    "{} front view",
    "{} in daylight",
    "small {}",
    "large {}",
    "{} in nature",
    "{} in winter",
    "{} in summer",
    "{} in the rain",
    "{} at night",
    "{} from above",
    "{} from a distance",
    "{} wallpaper",
)


def expanded(
    queries: Sequence[str], synonyms: Sequence[str], contexts: Sequence[str], expand: Expand
) -> tuple[tuple[str, str], ...]:
    """(name of the variant, query) in the order to ask, without those that `queries` has.

    Contexts are words behind the subject, that of the first query, or around it where `{}` stands.
    """
    if expand not in ("none", "listed", "all"):
        raise ValueError(f"expand: {expand!r} is none of none, listed, all")
    if expand == "none":
        return ()
    asked = {same(query) for query in queries}
    found = []
    for variant, query in _all(subject(queries[0]), synonyms, contexts, expand):
        if same(query) not in asked:
            asked.add(same(query))
            found.append((variant, query))
    return tuple(found)


def _all(
    about: str, synonyms: Sequence[str], contexts: Sequence[str], expand: Expand
) -> Iterator[tuple[str, str]]:
    for synonym in synonyms:
        yield "synonym", synonym
    for context in [*contexts, *(TEMPLATES if expand == "all" else ())]:
        words = " ".join(re.sub(r"\{\}", " ", context).split())
        query = context.replace("{}", about) if "{}" in context else f"{about} {context}"
        slug = re.sub(r"[\W_]+", "-", words.casefold()).strip("-")
        yield f"context-{slug}" if slug else "context", query
