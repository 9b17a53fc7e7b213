"""The end of a crawl: downloads become shards, a manifest and a summary."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from yarl import URL

from pipeline.console import text_table
from pipeline.crawl.gather import Gathered
from pipeline.crawl.journal import Journal
from pipeline.errors import ExternalError
from pipeline.manifest import STORED, manifest
from pipeline.store import StoredImage, write_shards, write_table

MOST_HOSTS = 20  # in the summary


def pack(
    folder: Path, gathered: Gathered, journal: Journal, class_names: Sequence[str]
) -> dict[str, Any]:
    """Writes `images-*.parquet` and `manifest.parquet`, and returns the summary.

    An image that several candidates brought is stored once, with the label of the first.

    Raises:
        ExternalError: no candidate gave an image.
    """
    table = manifest(gathered.candidates, gathered.found, gathered.refused)
    outcomes = Counter(table["outcome"].to_pylist())
    if not outcomes[STORED]:
        reasons = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common(4))
        raise ExternalError(
            f"none of {len(table):,} candidates gave an image ({reasons})",
            "see the network and crawl.* in params.yaml, then try them again with"
            f" `pipeline crawl --retry-failed {outcomes.most_common(1)[0][0]}`"
            if outcomes
            else "",
        )
    write_shards(folder, _stored(table, gathered, journal), class_names)
    write_table(folder / "manifest.parquet", table)
    return summary(table, class_names)


def summary(table: pa.Table, class_names: Sequence[str]) -> dict[str, Any]:
    """What became of the candidates, by outcome and class, and what the stored images are."""
    rows = table.select(["class", "url", "outcome", "format", "size", "licence", "has_gps"])
    rows = rows.to_pylist()
    stored = [row for row in rows if row["outcome"] == STORED]
    by_class: dict[str, Counter[str]] = {name: Counter() for name in class_names}
    for row in rows:
        if row["class"] in by_class:
            by_class[row["class"]][row["outcome"]] += 1
    sizes = np.array([row["size"] for row in stored])
    return {
        "candidates": len(rows),
        "stored": len(stored),
        "outcomes": dict(sorted(Counter(row["outcome"] for row in rows).items())),
        "bytes": {
            "total": int(sizes.sum()),
            **{f"p{share}": int(np.percentile(sizes, share)) for share in (5, 50, 95)},
        },
        "formats": _counted(row["format"] for row in stored),
        "licences": _counted(row["licence"] or "not stated" for row in stored),
        "with_location": sum(row["has_gps"] for row in stored),
        "hosts": _counted(_host(row["url"]) for row in stored),
        "classes": [
            {"name": name, "stored": counts[STORED], "outcomes": dict(sorted(counts.items()))}
            for name, counts in by_class.items()
        ],
    }


def summary_table(summary: dict[str, Any]) -> str:
    """The counts by class as text, for a person."""
    kinds = [STORED, *(kind for kind in summary["outcomes"] if kind != STORED)]
    named = [(one["name"], one["outcomes"]) for one in summary["classes"]]
    return text_table(
        [["class", *kinds]]
        + [
            [name, *(f"{counts.get(kind, 0):,}" for kind in kinds)]
            for name, counts in [*named, ("all", summary["outcomes"])]
        ]
    )


def _host(url: str) -> str:
    try:
        return URL(url).host or "none"
    except ValueError:  # the name of a file
        return "none"


def _counted(values: Iterator[str]) -> dict[str, int]:
    """The most frequent values first; equal counts by name, the rest together."""
    ranked = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    counts = dict(ranked[:MOST_HOSTS])
    if len(ranked) > MOST_HOSTS:
        counts["others"] = sum(count for _, count in ranked[MOST_HOSTS:])
    return counts


def _stored(table: pa.Table, gathered: Gathered, journal: Journal) -> Iterator[StoredImage]:
    outcomes = table["outcome"].to_pylist()
    for candidate, outcome in zip(gathered.candidates, outcomes, strict=True):
        if outcome == STORED:
            image = gathered.found[candidate]
            data = journal.read(image.id)
            yield StoredImage(
                image.id, data, candidate.label, image.width, image.height, image.format
            )
