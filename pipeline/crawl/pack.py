"""Outputs of a crawl: shards of images, the manifest, and a summary."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from yarl import URL

from kd3_pipeline.colour import COLOURS_UNREAD, RECOLOURED
from kd3_pipeline.console import printable
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.optouts.counts import signal_counts
from kd3_pipeline.crawl.outcomes import remedy
from kd3_pipeline.crawl.placeholders import MANY, given_for_many
from kd3_pipeline.crawl.shortfall import add_shortfall, when_again
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import (
    BLOCKED,
    FORBIDDEN_DNS,
    FORGOTTEN,
    NOT_NOW,
    OPTED_OUT,
    STORED,
    Fetched,
    in_blocks,
    manifest,
    signed,
    tally,
)
from kd3_pipeline.store import (
    StoredImage,
    in_shards,
    shard_path,
    shard_schema,
    write_shard,
    write_table,
)

MOST_HOSTS = 20  # in the summary
# outcomes that say nothing of a file: what is wrong with the first one helps no further
BY_RULE = {BLOCKED, FORGOTTEN, OPTED_OUT, "robots", FORBIDDEN_DNS, "forbidden_address"}


def pack(
    folder: Path,
    gathered: Gathered,
    journal: Journal,
    class_names: Sequence[str],
    made: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Writes `images-*.parquet` and `manifest.parquet`, and returns the summary.

    An image that several candidates brought is stored once, with the label of the first.

    Args:
        made: how the manifest is to say that it was made.

    Raises:
        ExternalError: no candidate gave an image.
    """
    table = manifest(gathered.candidates, gathered.found, gathered.refused)
    outcomes = tally(table["outcome"])
    if not outcomes[STORED]:
        reasons = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common(4))
        raise ExternalError(
            f"none of {len(table):,} candidates gave an image ({reasons})",
            _advice(table, outcomes, gathered),
        )
    _write_images(folder, _stored(table, gathered), journal, class_names)
    write_table(folder / "manifest.parquet", signed(table, made))
    counted = summary(table, class_names)
    add_shortfall(counted, table, gathered)
    return counted


def _advice(table: pa.Table, outcomes: Counter[str], gathered: Gathered) -> str:
    if not outcomes:
        return ""
    if outcomes[NOT_NOW]:
        when = when_again(gathered.later)
        return (
            f"{outcomes[NOT_NOW]:,} are put off by their hosts: run the same command again {when}"
        )
    most = outcomes.most_common(1)[0][0]
    if most not in BY_RULE and table["engine"].unique().to_pylist() == ["files"]:
        first = table.slice(0, 1).to_pylist()[0]
        return f"{printable(first['url'])}: {printable(first['detail']) or first['outcome']}"
    return remedy(most)


def summary(table: pa.Table, class_names: Sequence[str]) -> dict[str, Any]:
    """Counts of the candidates by outcome and class, and of what the stored images are.

    `brightened` counts images of 16 bits that are read as the fewer bits that they use,
    `recoloured` those whose colours are brought to sRGB, and `colours_unread` those whose profile
    is broken.
    `with_location` counts images whose metadata says where they were taken; they are stored as
    they came, metadata and all. `one_for_many` has the hosts that gave one image for many
    addresses, each with the most. `signals` counts what owners say of such use: docs/opt-outs.md.
    """
    # a column at a time, in Arrow or in blocks: as Python's, a row would be half a kilobyte
    is_stored = pc.equal(table["outcome"], STORED)

    def stored(name: str) -> pa.ChunkedArray:
        return table[name].filter(is_stored)

    outcomes = tally(table["outcome"])
    by_class: dict[str, Counter[str]] = {name: Counter() for name in class_names}
    pairs = table.select(["class", "outcome"]).group_by(["class", "outcome"])
    for row in pairs.aggregate([([], "count_all")]).to_pylist():
        if row["class"] in by_class:
            by_class[row["class"]][row["outcome"]] = row["count_all"]
    sizes = stored("size").to_numpy()
    details = stored("detail")
    licences = Counter[str]()
    for name, count in tally(stored("licence")).items():
        licences[name or "not stated"] += count
    return {
        "candidates": len(table),
        "stored": len(sizes),
        "outcomes": dict(sorted(outcomes.items())),
        "bytes": {
            "total": int(sizes.sum()),
            **{
                f"p{share}": int(np.percentile(sizes, share)) for share in (5, 50, 95) if len(sizes)
            },
        },
        "formats": _counted(tally(stored("format"))),
        "licences": _counted(licences),
        "brightened": _saying(details, "brightened"),
        "recoloured": _saying(details, RECOLOURED),
        "colours_unread": _saying(details, COLOURS_UNREAD),
        "with_location": pc.sum(stored("has_gps")).as_py() or 0,
        "signals": signal_counts(table),
        "hosts": _counted(Counter(map(_host, in_blocks(stored("url"))))),
        "one_for_many": _one_for_many(table),
        "blocked": outcomes[BLOCKED],
        "classes": [
            {"name": name, "stored": counts[STORED], "outcomes": dict(sorted(counts.items()))}
            for name, counts in by_class.items()
        ],
    }


def _one_for_many(table: pa.Table) -> dict[str, int]:
    # what came often is stored once at most, and so has many rows that are not
    again = table["id"].filter(pc.not_equal(table["outcome"], STORED)).drop_null()
    often = pc.value_counts(again)
    often = often.filter(pc.greater_equal(often.field("counts"), MANY - 1)).field("values")
    given = table.select(["url", "id"]).filter(pc.is_in(table["id"], often))
    pairs = zip(in_blocks(given["url"]), in_blocks(given["id"]), strict=True)
    most: dict[str, int] = {}
    for hosts in given_for_many(pairs).values():
        most |= {host: max(count, most.get(host, 0)) for host, count in hosts.items()}
    return dict(sorted(most.items(), key=lambda pair: (-pair[1], pair[0])))


def _host(url: str) -> str:
    try:
        return URL(url).host or "none"
    except ValueError:  # the name of a file
        return "none"


def _saying(details: pa.ChunkedArray, what: str) -> int:
    return pc.sum(pc.match_substring(details, what)).as_py() or 0


def _counted(values: Counter[str]) -> dict[str, int]:
    """The most frequent values first; equal counts by name, the rest together."""
    ranked = sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = dict(ranked[:MOST_HOSTS])
    if len(ranked) > MOST_HOSTS:
        counts["others"] = sum(count for _, count in ranked[MOST_HOSTS:])
    return counts


def _stored(table: pa.Table, gathered: Gathered) -> Iterator[tuple[int, Fetched]]:
    """The label and the record of each image that is stored, in order."""
    for row in pc.indices_nonzero(pc.equal(table["outcome"], STORED)).to_numpy():
        candidate = gathered.candidates[row]
        yield candidate.label, gathered.found[candidate]


def _write_images(
    folder: Path,
    images: Iterator[tuple[int, Fetched]],
    journal: Journal,
    class_names: Sequence[str],
) -> None:
    """Writes the shards, but for those that the last crawl wrote: these are linked.

    Each takes its images over from the journal as it is written, so that no more of them are on the
    disk twice than one shard has.
    """
    schema = shard_schema(class_names)
    folder.mkdir(parents=True, exist_ok=True)
    for number, some in in_shards(images, lambda one: _size(one[1], journal)):
        path = shard_path(folder, number)
        rows = [  # whose bytes are read as they are written
            StoredImage(image.id or "", b"", label, image.width, image.height, image.format)
            for label, image in some
        ]
        if not journal.link_same(path, rows, schema):
            write_shard(path, (replace(row, data=journal.read(row.id)) for row in rows), schema)
            journal.take(path)


def _size(image: Fetched, journal: Journal) -> int:
    return image.size or len(journal.read(image.id or ""))  # early crawls did not record it
