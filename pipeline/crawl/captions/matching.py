"""Whole-word match of captions with the queries of classes, many rows at a time."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.classes import ImageClass
from kd3_pipeline.crawl.captions.queries import (
    CaptionQuery,
    asked_of,
    normal,
    read_queries,
    unspaced,
    words_of,
)

EDGE = {"left": r"(?:^|[^\pL\pN\pM])", "right": r"(?:$|[^\pL\pN\pM])"}
AT_ONCE = 200  # patterns in one regular expression: RE2 runs out of states on many more
FILTERED_BY = 3 * AT_ONCE  # patterns; with more, looking up every word is faster

Pairs = tuple[np.ndarray, np.ndarray]  # rows, and the query that each of them matches


@dataclass(frozen=True)
class Hits:
    """Rows that match, in order, each with the query that it goes to.

    `several` tells which of them name other classes too.
    """

    rows: np.ndarray
    queries: np.ndarray
    several: np.ndarray


class CaptionMatcher:
    """Finds captions that name a class.

    Attributes:
        queries: those of all classes, in order.
        shared: queries that several classes have: all captions of one go to its first class.
    """

    def __init__(self, classes: Sequence[ImageClass], synonyms: bool = True) -> None:
        self.queries = read_queries(
            [
                (label, query, variant)
                for label, one in enumerate(classes)
                for variant, query in asked_of(one, synonyms)
            ]
        )
        self.varied = np.array([bool(one.variant) for one in self.queries], bool)
        self.labels = np.array([one.label for one in self.queries], np.int64)
        self._lengths = np.array([one.length for one in self.queries], np.int64)
        self._words = Trie([() if one.literal else one.words for one in self.queries])
        self._literals = [index for index, one in enumerate(self.queries) if one.literal]
        self._patterns = [_pattern(one.literal) for one in self.queries]
        self._filters = _filters(self.queries)
        self._covered, self._covered_from = _covered(self.queries)
        self.shared = _shared(self.queries)

    def hits(self, captions: pa.Array) -> Hits:
        """The rows of a column of captions (text) that name a class."""
        near = self._near(captions)
        plain = normal(captions.take(pa.array(near)))
        rows, queries = self._words.pairs(plain)
        if self._literals:
            more = self._literal_pairs(plain)
            rows, queries = np.concatenate([rows, more[0]]), np.concatenate([queries, more[1]])
        found = self._decided(rows, queries)
        return Hits(near[found.rows], found.queries, found.several)

    def _near(self, captions: pa.Array) -> np.ndarray:
        """The rows that may match: a fast look at all, where there are few queries."""
        near = np.zeros(len(captions), bool)
        for some in self._filters:
            near |= _mask(pc.match_substring_regex(captions, some, ignore_case=True))
        return np.flatnonzero(near if self._filters else _mask(captions.is_valid()))

    def _literal_pairs(self, plain: pa.Array) -> Pairs:
        rows, queries = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(self._literals), AT_ONCE):
            some = self._literals[start : start + AT_ONCE]
            any_of = "|".join(_body(self.queries[index].literal) for index in some)
            near = _true(pc.match_substring_regex(plain, any_of))
            few = plain.take(near)
            for index in some if len(near) else ():
                there = near[_true(pc.match_substring_regex(few, self._patterns[index]))]
                rows.append(there)
                queries.append(np.full(len(there), index))
        return np.concatenate(rows), np.concatenate(queries)

    def _decided(self, rows: np.ndarray, queries: np.ndarray) -> Hits:
        """One query a row: a class's own before synonyms, then the longest.

        A match within one of another class counts for nothing: a hot dog is no dog.
        """
        count = len(self.queries)
        keys = np.unique(rows * count + queries)
        rows, queries = keys // count, keys % count
        inner = np.diff(self._covered_from)[queries]
        if inner.any():
            ends = np.cumsum(inner)
            places = np.arange(inner.sum()) + np.repeat(
                self._covered_from[queries] - (ends - inner), inner
            )
            within = np.repeat(rows, inner) * count + self._covered[places]
            keys = keys[~np.isin(keys, within)]
            rows, queries = keys // count, keys % count
        order = np.lexsort((queries, -self._lengths[queries], self.varied[queries], rows))
        rows, queries = rows[order], queries[order]
        first = np.ones(len(rows), bool)
        first[1:] = rows[1:] != rows[:-1]
        row_of = np.cumsum(first) - 1
        labels = self.labels[queries]
        other = labels != labels[first][row_of]
        several = np.bincount(row_of[other], minlength=first.sum()) > 0
        return Hits(rows[first], queries[first], several)


class Trie:
    """Finds all phrases in many texts at once; a step of it is a few array operations."""

    def __init__(self, phrases: Sequence[Sequence[str]]) -> None:
        words = sorted({word for phrase in phrases for word in phrase})
        self._vocabulary = pa.array(words, pa.large_string())
        numbers = {word: number for number, word in enumerate(words)}
        self._width = max(len(words), 1)
        nodes: dict[tuple[int, int], int] = {}  # parent and word -> node; 0 is the root
        ending: dict[int, list[int]] = defaultdict(list)  # node -> phrases
        for index, phrase in enumerate(phrases):
            node = 0
            for word in phrase:
                node = nodes.setdefault((node, numbers[word]), len(nodes) + 1)
            if phrase:
                ending[node].append(index)
        width = self._width
        edges = sorted((parent * width + word, node) for (parent, word), node in nodes.items())
        self._edges = np.array([key for key, _ in edges], np.int64)
        self._nodes = np.array([node for _, node in edges], np.int64)
        most = max(map(len, ending.values()), default=0)
        self._ending = np.full((len(nodes) + 1, most), -1, np.int64)
        for node, indices in ending.items():
            self._ending[node, : len(indices)] = indices

    def pairs(self, plain: pa.Array) -> Pairs:
        """Texts and the phrases in them; `plain` is what `normal` gives."""
        lists = words_of(plain)
        ids = pc.index_in(lists.flatten(), value_set=self._vocabulary)
        words = pc.fill_null(ids, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        places = np.flatnonzero(words >= 0)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        ends = np.cumsum(lengths)
        texts = np.searchsorted(ends, places, "right")
        ends, nodes = ends[texts], np.zeros(len(places), np.int64)
        rows, found = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        while len(places):
            keys = nodes * self._width + words[places]
            edges = np.minimum(np.searchsorted(self._edges, keys), len(self._edges) - 1)
            on = (self._edges[edges] == keys) & (words[places] >= 0)
            texts, ends, places, nodes = texts[on], ends[on], places[on], self._nodes[edges[on]]
            for phrases in self._ending[nodes].T:
                rows.append(texts[phrases >= 0])
                found.append(phrases[phrases >= 0])
            places = places + 1
            on = places < ends
            texts, ends, places, nodes = texts[on], ends[on], places[on], nodes[on]
        return np.concatenate(rows), np.concatenate(found)


def _pattern(literal: str) -> str:
    """A regular expression (RE2) for a text, neither side of which touches a letter or digit."""
    if not literal:
        return ""
    left = "" if unspaced(literal[0]) else EDGE["left"]
    right = "" if unspaced(literal[-1]) else EDGE["right"]
    return left + _body(literal) + right


def _body(literal: str) -> str:
    return "".join("\\s+" if letter == " " else f"\\x{{{ord(letter):x}}}" for letter in literal)


def _covered(queries: Sequence[CaptionQuery]) -> tuple[np.ndarray, np.ndarray]:
    """For each query, those of other classes that are a part of it, one after another; and where
    each begins: "dog" is a part of "hot dog"."""
    with_word: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(queries):
        for word in set(one.words):
            with_word[word].append(index)
    inner: list[list[int]] = [[] for _ in queries]
    for index, one in enumerate(queries):
        by_letters = bool(one.literal)
        others = range(len(queries)) if by_letters else with_word[one.words[0]]
        for other in others:
            longer = queries[other]
            if longer.label != one.label and longer.length > one.length:
                inside = one.literal in longer.written if by_letters else _is_part(one, longer)
                if inside:
                    inner[other].append(index)
    starts = np.cumsum([0, *map(len, inner)])
    return np.array([index for some in inner for index in some], np.int64), starts


def _is_part(one: CaptionQuery, longer: CaptionQuery) -> bool:
    return f" {' '.join(one.words)} " in f" {' '.join(longer.words)} "


def _shared(queries: Sequence[CaptionQuery]) -> list[tuple[str, list[int]]]:
    by_text: dict[str, list[int]] = defaultdict(list)
    for one in queries:
        by_text[one.written].append(one.label)
    return [(text, labels) for text, labels in by_text.items() if len(set(labels)) > 1]


def _filters(queries: Sequence[CaptionQuery]) -> list[str]:
    """Expressions of which one is in every caption that matches; none if that would not pay.

    They are for text as it was written: an accent may be a letter and a mark there, so that
    queries with accents have none.
    """
    if len(queries) > FILTERED_BY or not all(one.written.isascii() for one in queries):
        return []
    # signs and letters of ASCII alone, because RE2 has too many states with those of Unicode
    bodies = [_body(one.literal) or r"[^0-9A-Za-z]+".join(one.words) for one in queries]
    return [
        rf"(?:^|[^0-9A-Za-z])(?:{'|'.join(bodies[at : at + AT_ONCE])})(?:$|[^0-9A-Za-z])"
        for at in range(0, len(bodies), AT_ONCE)
    ]


def _mask(truths: pa.Array) -> np.ndarray:
    return pc.fill_null(truths, False).to_numpy(zero_copy_only=False)


def _true(truths: pa.Array) -> np.ndarray:
    return np.flatnonzero(_mask(truths))
