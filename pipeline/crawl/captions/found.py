"""What caption tables have for each class: candidates, counts, and what to tell of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from kd3_pipeline.classes import ImageClass
from kd3_pipeline.console import printable
from kd3_pipeline.crawl.captions.matching import CaptionMatcher
from kd3_pipeline.crawl.captions.tables import Remarks
from kd3_pipeline.crawl.columns import licence_of
from kd3_pipeline.crawl.search_account import ClassAccount, QueryAccount, SearchAccount
from kd3_pipeline.manifest import Candidate
from kd3_pipeline.params import Crawl

ENGINE = "captions"
ALL_READ = "all rows were read"
MOST_NAMED = 12  # files, classes or queries in a note
NO_ADDRESS, TOO_SMALL, UNSAFE, LICENCE = "no http address", "too small", "unsafe", "licence"
REPEATED = "repeated address"


@dataclass(frozen=True)
class Found:
    """What the tables have for each class.

    Attributes:
        most: candidates that are kept for a class.
        matched: rows with a caption of the class, by label; also those that are left out.
        by_query: the same by query, in the order of `CaptionMatcher.queries`.
        left_out: rows that match and are not taken, by reason.
        several: rows that match and name several classes: they come last.
        best: the rows that are kept (`ranking.SCHEMA`), class by class.
        remarks: what was seen on reading.
    """

    section: Crawl
    most: int
    classes: Sequence[ImageClass]
    matcher: CaptionMatcher
    matched: Sequence[int]
    by_query: Sequence[int]
    left_out: Counter[str]
    several: int
    best: pa.Table
    remarks: Remarks

    @property
    def kept(self) -> list[int]:
        """Candidates that there are for each class."""
        return np.bincount(self.best["label"].to_numpy(), minlength=len(self.classes)).tolist()

    def first(self, wanted: Sequence[int]) -> list[Candidate]:
        """The best candidates, at most `wanted` of each class."""
        licence = self.section.licence
        filtered = "" if licence == "any" else licence
        labels = self.best["label"].to_numpy()
        starts = np.searchsorted(labels, np.arange(len(self.classes) + 1)).tolist()
        candidates = []
        for label, (start, end) in enumerate(pairwise(starts)):
            ranks: Counter[int] = Counter()
            name = self.classes[label].name
            for row in self.best.slice(start, min(end - start, wanted[label])).to_pylist():
                query = row["query"]
                candidates.append(
                    Candidate(
                        label,
                        name,
                        ENGINE,
                        self.matcher.queries[query].query,
                        ranks[query],
                        row["url"],
                        row["page_url"],
                        row["title"],
                        **licence_of(
                            {key: _stated(row[key]) for key in ("licence", "licence_url")}
                        ),
                        creator=row["creator"],
                        licence_filter=filtered,
                        variant=self.matcher.queries[query].variant,
                    )
                )
                ranks[query] += 1
        return candidates

    def account(self) -> "CaptionAccount":
        """What every class and query gave."""
        classes = []
        for label, (one, kept) in enumerate(zip(self.classes, self.kept, strict=True)):
            asked = [
                QueryAccount(query.query, query.variant, count, count, ALL_READ, False)
                for query, count in zip(self.matcher.queries, self.by_query, strict=True)
                if query.label == label
            ]
            classes.append(ClassAccount(one.name, kept, tuple(asked)))
        matched = {one.name: count for one, count in zip(self.classes, self.matched, strict=True)}
        return CaptionAccount(
            ENGINE, "", tuple(classes), counts=self.summary(), matched=matched, most=self.most
        )

    def summary(self) -> dict[str, Any]:
        """The counts, for reports/crawl.json."""
        return {
            "files": self.remarks.files,
            "rows": self.remarks.rows,
            "matched": sum(self.matched),
            "kept": len(self.best),
            "several_classes": self.several,
            "left_out": dict(sorted(self.left_out.items())),
            "malformed_rows": self.remarks.malformed.total(),
            "broken_files": self.remarks.broken,
        }

    def notes(self) -> Iterator[str]:
        """What a person has to know."""
        remarks = self.remarks
        yield (
            f"captions: {remarks.rows:,} rows read, of which {sum(self.matched):,} name a class;"
            f" {len(self.best):,} are kept as candidates, at most {self.most:,} a class"
        )
        reasons = {
            NO_ADDRESS: "have no http address",
            TOO_SMALL: f"are smaller than crawl.min_side ({self.section.min_side})",
            UNSAFE: "are marked as unsafe (crawl.unsafe: keep takes them)",
            LICENCE: f"have no licence that crawl.licence ({self.section.licence}) allows",
            REPEATED: "repeat an address",
        }
        said = [f"{count:,} {reasons[why]}" for why, count in sorted(self.left_out.items())]
        if said:
            yield f"captions: left out of those that match: {', '.join(said)}"
        if self.several:
            rows = "1 row names" if self.several == 1 else f"{self.several:,} rows name"
            yield f"captions: {rows} several classes, and such are taken last"
        for text, labels in self.matcher.shared:
            names = ", ".join(printable(self.classes[label].name) for label in labels)
            what = f"classes {names} all ask for '{printable(text)}'"
            yield f"captions: {what}: its rows go to the first of them"
        yield from _some("; what comes before counts", remarks.broken)
        yield from _some("", remarks.headerless)
        if total := remarks.malformed.total():
            files = remarks.malformed.most_common(MOST_NAMED)
            where = ", ".join(f"{count:,} in {file}" for file, count in files)
            yield f"captions: {total:,} rows of another number of cells are skipped: {where}"


@dataclass(frozen=True)
class CaptionAccount(SearchAccount):
    """The same of caption tables.

    Attributes:
        counts: as `Found.summary`.
        matched: rows that name a class, also those that cannot be taken.
        most: rows that are kept of a class.
    """

    counts: Mapping[str, Any] = field(default_factory=dict)
    matched: Mapping[str, int] = field(default_factory=dict)
    most: int = 0

    def why(self, one: ClassAccount) -> str:
        """How many captions name the class, and how many of these can be taken."""
        matched, rows = self.matched[one.name], self.counts["rows"]
        said = f"captions: {matched:,} of {rows:,} rows name it"
        if one.results == self.most:
            return f"{said}, of which the best {self.most:,} were tried"
        if one.results < matched:
            said += f", of which {one.results:,} can be taken"
        return said


def _stated(text: str) -> str:
    return "" if text == "?" else text  # LAION's sign for none


def _some(what: str, lines: Sequence[str]) -> Iterator[str]:
    """The first of many lines, and how many more there are."""
    for line in lines[:MOST_NAMED]:
        yield f"captions: {line}{what}"
    if len(lines) > MOST_NAMED:
        yield f"captions: and {len(lines) - MOST_NAMED:,} more alike"
