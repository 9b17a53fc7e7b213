"""Search of caption tables: the candidates of every class, and why there are no more."""

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.classes import ImageClass
from kd3_pipeline.console import Advance, printable
from kd3_pipeline.crawl.captions.cells import numbers, texts
from kd3_pipeline.crawl.captions.found import (
    LICENCE,
    MOST_NAMED,
    NO_ADDRESS,
    REPEATED,
    TOO_SMALL,
    UNSAFE,
    Found,
)
from kd3_pipeline.crawl.captions.licences import allowed
from kd3_pipeline.crawl.captions.matching import CaptionMatcher, Hits
from kd3_pipeline.crawl.captions.ranking import SCHEMA, Best
from kd3_pipeline.crawl.captions.tables import Batch, Remarks, batches, row_total, table_paths
from kd3_pipeline.crawl.engines.engine import MOST_CHARACTERS
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.params import Crawl

SURPLUS = 4  # rows to keep for each image wanted: of old tables half of the addresses are dead
TITLE = 300  # letters that are kept of a caption
MOST_WORKERS = 4  # threads that match; reading is one thread's, and feeds no more
ADDRESS = r"(?i)^https?://[^\s/][^\x00-\x1f]*$"
UNSAFE_TAGS = ("nsfw", "unsure", "likely", "very_likely", "true")
UNSAFE_ABOVE = 0.5


def search_captions(
    section: Crawl, classes: Sequence[ImageClass], advance: Advance, workers: int = 0
) -> Found:
    """Reads all tables of `crawl.source` once.

    Args:
        advance: called with the number of rows read.
        workers: threads that match; 0 is one for each core, and few.

    Raises:
        UserError: no table, none that can be read, or `crawl.licence` without a column of licences.
        ExternalError: no row names a class.
    """
    paths, remarks = table_paths(section.source), Remarks()
    matcher = CaptionMatcher(classes, section.expand != "none")
    best = Best(len(classes), SURPLUS * section.per_class)
    by_query = np.zeros(len(matcher.queries), np.int64)
    left_out: Counter[str] = Counter()
    several = 0
    work = Work(section, matcher)
    for found in _in_order(work, batches(paths, remarks), workers):
        best.add(found.rows)
        by_query += found.by_query
        left_out += found.left_out
        several += found.several
        advance(found.read)
    kept = best.table()
    if best.repeated:
        left_out[REPEATED] = best.repeated
    matched = np.bincount(matcher.labels, by_query, len(classes)).astype(int)
    result = Found(
        *(section, best.most, classes, matcher, matched.tolist(), by_query.tolist()),
        *(left_out, several, kept, remarks),
    )
    if not len(kept):
        raise _nothing(result)
    return result


def progress_total(section: Crawl) -> int | None:
    """Rows of all tables, None where only reading tells."""
    return row_total(table_paths(section.source))


@dataclass(frozen=True)
class Part:
    """What one batch gave."""

    read: int
    rows: pa.Table
    by_query: np.ndarray
    left_out: Counter[str]
    several: int


@dataclass(frozen=True)
class Work:
    """What is done to each batch."""

    section: Crawl
    matcher: CaptionMatcher

    def __call__(self, batch: Batch, before: int) -> Part:
        """The rows of a batch that match and are taken; `before` rows were read earlier."""
        captions = texts(batch["text"])
        if (pc.max(pc.binary_length(captions)).as_py() or 0) > MOST_CHARACTERS:
            captions = pc.utf8_slice_codeunits(captions, 0, MOST_CHARACTERS)
        hits = self.matcher.hits(captions)
        by_query = np.bincount(hits.queries, minlength=len(self.matcher.queries))
        at = pa.array(hits.rows)
        some = {name: column.take(at) for name, column in batch.items()}
        some["text"] = captions.take(at)
        urls = pc.utf8_trim(pc.fill_null(texts(some["url"]), ""), ' \t\r\n"')
        good = pc.and_(
            pc.match_substring_regex(urls, ADDRESS),
            pc.less_equal(pc.utf8_length(urls), MOST_CHARACTERS),
        )
        left_out: Counter[str] = Counter()
        taken = _and(np.ones(len(hits.rows), bool), good, NO_ADDRESS, left_out)
        for reason, fine in self._rules(some):
            taken = _and(taken, fine, reason, left_out)
        some["url"] = urls
        rows = self._rows(some, hits, before)
        return Part(
            *(len(captions), rows.filter(pa.array(taken)), by_query, left_out),
            int(hits.several[taken].sum()),
        )

    def _rules(self, some: Batch) -> Iterator[tuple[str, pa.Array]]:
        section = self.section
        for side in ("width", "height"):
            if side in some:
                large = pc.greater_equal(numbers(some[side]), section.min_side)
                yield TOO_SMALL, pc.fill_null(large, True)
        if section.unsafe == "refuse":
            for column in ("nsfw", "punsafe"):
                if column in some:
                    yield UNSAFE, pc.invert(unsafe(some[column]))
        if section.licence != "any":
            told = [texts(some[name]) for name in ("licence", "licence_url") if name in some]
            if not told:
                raise UserError(
                    f"crawl.licence: a table has no licences to tell '{section.licence}' by",
                    "set it to any, or take a table with a column 'license'",
                )
            yield LICENCE, allowed(told, section.licence)

    def _rows(self, some: Batch, hits: Hits, before: int) -> pa.Table:
        count = len(hits.rows)
        empty = pa.array([""] * count, pa.large_string())
        kept = {
            name: _short(texts(some[name]), MOST_CHARACTERS) if name in some else empty
            for name in ("licence", "licence_url", "page_url", "creator")
        }
        similarity = np.full(count, -np.inf)
        if "similarity" in some:
            similarity = pc.fill_null(numbers(some["similarity"]), -np.inf).to_numpy()
        return pa.table(
            {
                "label": self.matcher.labels[hits.queries],
                "query": hits.queries,
                "several": hits.several,
                "varied": self.matcher.varied[hits.queries],
                "similarity": similarity,
                "length": pc.utf8_length(some["text"]).cast(pa.int64()),
                "row": before + hits.rows,
                "url": some["url"],
                "title": _short(some["text"], TITLE),
                **kept,
            },
            schema=SCHEMA,
        )


def unsafe(column: pa.Array) -> pa.Array:
    """Which rows a table marks as unsafe: by a probability, or by a word as NSFW or UNSURE."""
    likely = pc.fill_null(pc.greater(numbers(column), UNSAFE_ABOVE), False)
    tags = pc.utf8_lower(pc.utf8_trim_whitespace(texts(column)))
    return pc.or_(likely, pc.is_in(tags, pa.array(UNSAFE_TAGS, pa.large_string())))


def _in_order(work: Work, parts: Iterator[Batch], workers: int) -> Iterator[Part]:
    """`work` on every batch by a few threads; results come in the order of the batches."""
    workers = workers or min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    before = 0
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Part]] = deque()
        try:
            for batch in parts:
                waiting.append(pool.submit(work, batch, before))
                before += len(batch["url"])
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _and(taken: np.ndarray, fine: pa.Array, reason: str, left_out: Counter[str]) -> np.ndarray:
    """`taken` where it is `fine`; counts what was and is no more."""
    both = taken & fine.to_numpy(zero_copy_only=False)
    if dropped := int(taken.sum() - both.sum()):
        left_out[reason] += dropped
    return both


def _short(column: pa.Array, letters: int) -> pa.Array:
    return pc.utf8_slice_codeunits(pc.fill_null(column, ""), 0, letters)


def _nothing(found: Found) -> ExternalError:
    matched, rows = sum(found.matched), found.remarks.rows
    if not rows:
        return ExternalError(f"captions: no rows in {found.section.source}")
    if matched:
        reasons = ", ".join(f"{count:,} {why}" for why, count in found.left_out.most_common())
        return ExternalError(
            f"captions: {matched:,} of {rows:,} rows match, and none can be taken ({reasons})",
            "see crawl.min_side, crawl.unsafe and crawl.licence",
        )
    every = found.matcher.queries
    queries = ", ".join(f"'{printable(one.query)}'" for one in every[:MOST_NAMED])
    queries += ", …" * (len(every) > MOST_NAMED)
    return ExternalError(
        f"captions: none of {rows:,} rows has a caption with a query of a class",
        f"the words of a query have to be in a caption in a row ({queries}): give shorter ones"
        " in crawl.classes, or another table",
    )
