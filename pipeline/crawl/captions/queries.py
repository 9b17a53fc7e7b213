"""Queries of classes as captions are asked for them.

A word is a run of letters, digits and marks (Unicode); upper and lower case are the same. A query
of words matches a caption that has these words in a row, whatever stands between them. Plurals are
words of their own. Queries with other signs (C++, AT&T, .NET) and in scripts that put no space
between words are looked for as they are written.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.classes import ImageClass

GAP = r"[^\pL\pN\pM]+"
BETWEEN = frozenset(" \t-_'’‘.,/:;()‐‑–—")  # signs that may stand between words as well as not
AROUND = " \t\"“”'()"
PICTURE = frozenset({"photo", "photos", "photograph", "picture", "image"})  # every row is one
UNSPACED = (  # first and last letter of scripts
    *((0x0E00, 0x0EFF), (0x1000, 0x11FF), (0x1780, 0x17FF)),  # Thai, Lao, Burmese, Korean, Khmer
    *((0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF)),  # Chinese, Japanese, Korean
    *((0xFF66, 0xFF9F), (0x20000, 0x3FFFF)),
)


@dataclass(frozen=True)
class CaptionQuery:
    """A query of a class as captions are asked for it."""

    label: int
    query: str  # as the class set has it
    variant: str  # "synonym", or "" for one of the class's own
    words: tuple[str, ...]
    literal: str  # what to look for as it is written; "" for a query of words

    @property
    def length(self) -> int:
        """Letters, by which of two queries the one that says more is known."""
        return len(self.written)

    @property
    def written(self) -> str:
        """What is looked for, in small letters."""
        return self.literal or " ".join(self.words)


def normal(captions: pa.Array) -> pa.Array:
    """Text in small letters, with composed accents."""
    return pc.utf8_lower(pc.utf8_normalize(captions, "NFC"))


def words_of(plain: pa.Array) -> pa.Array:
    """Lists of words, of which the first and the last may be empty."""
    return pc.split_pattern(pc.replace_substring_regex(plain, GAP, " "), " ")


def asked_of(one: ImageClass, synonyms: bool) -> list[tuple[str, str]]:
    """Queries of a class and its synonyms, each behind its variant ("" or "synonym").

    Its contexts are left out: what they find, the queries find.
    """
    listed = one.expansions("listed" if synonyms else "none")
    more = [(variant, query) for variant, query in listed if variant == "synonym"]
    return [*(("", query) for query in dict.fromkeys(one.queries)), *more]


def read_queries(asked: Sequence[tuple[int, str, str]]) -> list[CaptionQuery]:
    """Labels with queries and variants, as captions are asked for them."""
    texts = [query.encode("utf-8", "replace").decode() for _, query, _ in asked]
    plain = [_shortened(text) for text in normal(pa.array(texts, pa.large_string())).to_pylist()]
    every = words_of(pa.array(plain, pa.large_string())).to_pylist()
    queries = []
    for one, text, words in zip(asked, plain, every, strict=True):
        literal = "" if _of_words(text) else text
        queries.append(CaptionQuery(*one, tuple(word for word in words if word), literal))
    return queries


def _shortened(text: str) -> str:
    """A query without words at its ends that only say that it is a picture, unless all do."""
    parts = text.split()
    while len(parts) > 1 and parts[-1] in PICTURE:
        parts.pop()
    while len(parts) > 1 and parts[0] in PICTURE:
        parts.pop(0)
    return " ".join(parts).strip(AROUND) or text.strip()


def _of_words(text: str) -> bool:
    """Tells whether a query is words, and signs between them that say nothing."""
    inner = all(_in_word(letter) or letter in BETWEEN for letter in text)
    return inner and _in_word(text[0]) and _in_word(text[-1]) and not any(map(unspaced, text))


def _in_word(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "LNM"


def unspaced(letter: str) -> bool:
    """Tells whether a letter is of a script without spaces, or that joins words to others."""
    return any(first <= ord(letter) <= last for first, last in UNSPACED)
