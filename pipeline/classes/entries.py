"""Entries of a class set as they are written: names, and what is searched for."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

KEYS = ("queries", "synonyms", "contexts")  # of a class that is a mapping


def problems(entries: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong in a mapping from names to words: (key path within it, what)."""
    for name, words in entries.items():
        if not isinstance(name, str) or not name.strip():
            yield str(name), f"expected the name of a class, got {name!r:.60}"
            continue
        for key, value in words.items() if isinstance(words, Mapping) else [("", words)]:
            path = f"{name}.{key}" if key else name
            texts = [value] if isinstance(value, str) else [] if value is None else value
            if key and key not in KEYS:
                near = difflib.get_close_matches(str(key), KEYS, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(KEYS)}"
                yield path, f"unknown key '{key}'; {hint}"
            elif not isinstance(texts, Sequence) or not all(
                isinstance(text, str) and text.strip() for text in texts
            ):
                yield path, f"expected a list of words to search for, got {value!r:.60}"
