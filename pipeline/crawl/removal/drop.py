"""Dropping of images that a crawl stored: out of its shards, its manifest, and its journal.

In this order, so that a process that dies at any moment leaves what the same command ends, and what
a crawl in its place ends, too: the journal's records, by which no later crawl brings the images
back; their bytes in the journal; last the crawl's folder, in one move.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.crawl.disk import writing
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.sealed import rewrite_shards, with_column
from kd3_pipeline.manifest import (
    ARRIVED,
    DUPLICATE,
    FORBIDDEN_DNS,
    FORGOTTEN,
    NOT_NEEDED,
    NOT_NOW,
    PLACEHOLDER,
    SCHEMA,
    STORED,
    Fetched,
    made_by,
    read_manifest,
    signed,
    without_addresses,
)
from kd3_pipeline.store import clear_leftovers, replacing, write_table

SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
FRAGMENT = r"(?is)^(https?://[^#]*)#.*"
# outcomes that gave an image, or may yet
MAY_CHANGE = (*ARRIVED, PLACEHOLDER, NOT_NEEDED, NOT_NOW, FORBIDDEN_DNS)
NO_IMAGE = {"id": None, "format": "", "size": 0, "has_gps": False}  # columns of a row without one


@dataclass(frozen=True)
class Removal:
    """Removal of the image of an address: why it has none any more."""

    outcome: str
    detail: str
    signals: str | None = None  # None leaves those that are on record


Removals = Mapping[str, Removal]  # address without fragment -> removal


@dataclass(frozen=True)
class Dropped:
    """What was dropped, or would be.

    Attributes:
        ids: images that no address gives any more: their bytes go.
        rows: candidates of the manifest that a removal changes.
        records: addresses that get a record in the journal.
        bytes: of the images in the crawl's shards.
    """

    ids: frozenset[str]
    rows: int
    records: int
    bytes: int
    manifest: pa.Table | None  # as it is to be; None where there is no crawl


def planned(crawl: Path, journal: Journal, removals: Removals) -> Dropped:
    """What follows from removals; nothing is changed yet.

    An image that other addresses gave as well stays, and counts for the first of these.

    Args:
        crawl: folder of the shards and the manifest; may be missing.

    Raises:
        UserError: the manifest cannot be read.
    """
    path = crawl / "manifest.parquet"
    before = read_manifest(path) if path.exists() else SCHEMA.empty_table()
    table, changed = _edited(before, removals)
    left = set(_arrived(table).to_pylist())
    left |= {
        one.id for one in journal.records.values() if one.id is not None and one.url not in removals
    }
    gone = set(_arrived(before).to_pylist())
    gone |= {one.id for url in removals if (one := journal.records.get(url)) is not None and one.id}
    ids = frozenset(gone - left)
    stored = before.filter(pc.field("outcome") == STORED)
    lost = stored.filter(pc.is_in(stored["id"], _strings(ids)))
    records = sum(_news(journal, url, removal) for url, removal in removals.items())
    size = pc.sum(lost["size"]).as_py() or 0
    return Dropped(ids, changed, records, size, table if path.exists() else None)


def drop(
    crawl: Path,
    journal: Journal,
    removals: Removals,
    dropped: Dropped,
    advance: Advance = no_progress,
) -> None:
    """Drops what was planned.

    Args:
        dropped: of `planned`.
        advance: called for each shard.

    Raises:
        ExternalError: the disk will not have it; the same command goes on.
    """
    clear_leftovers(crawl)
    journal.dooms(dropped.ids)
    for url, removal in removals.items():
        if _news(journal, url, removal):
            journal.add(_record(journal.records.get(url), url, removal))
    journal.sync()
    if dropped.manifest is None or not (dropped.rows or dropped.ids):
        journal.drop(dropped.ids)
        return
    with writing(crawl), replacing(crawl) as folder:
        rewrite_shards(crawl, folder, dropped.ids, _labels(dropped.manifest), advance)
        made = made_by(crawl / "manifest.parquet")
        write_table(folder / "manifest.parquet", signed(dropped.manifest, made))
        journal.drop(dropped.ids, folder)


def forgotten_ids(records: Collection[Fetched]) -> frozenset[str]:
    """Images that were dropped on request, by what the journal says of their addresses."""
    said = (one.detail for one in records if one.outcome == FORGOTTEN)
    return frozenset(id for detail in said for id in SHA256.findall(detail))


def _edited(before: pa.Table, removals: Removals) -> tuple[pa.Table, int]:
    """A manifest after removals, and how many rows they change."""
    place = pc.index_in(plain_addresses(before["url"]), _strings(removals))
    hit = pc.and_(pc.is_valid(place), pc.is_in(before["outcome"], pa.array(MAY_CHANGE)))
    if not pc.any(hit).as_py():
        return before, 0
    told = [removals[url] for url in sorted(removals)]
    texts = {
        "outcome": [one.outcome for one in told],
        "detail": [one.detail for one in told],
        "signals": [one.signals for one in told],
    }
    new = {name: pa.array(values, pa.string()).take(place) for name, values in texts.items()}
    new["signals"] = pc.coalesce(new["signals"], before["signals"].combine_chunks())
    for name, nothing in NO_IMAGE.items():
        new[name] = pa.scalar(nothing, SCHEMA.field(name).type)
    table = before
    for name, values in new.items():
        table = with_column(table, name, pc.if_else(hit, values, before[name]))
    return without_addresses(_promoted(table)), pc.sum(hit).as_py()


def _promoted(table: pa.Table) -> pa.Table:
    """The first of the addresses that are left of an image is the one it is stored from."""
    outcomes, ids = table["outcome"].to_pylist(), table["id"].to_pylist()
    stored = {id for id, outcome in zip(ids, outcomes, strict=True) if outcome == STORED}
    for row, (id, outcome) in enumerate(zip(ids, outcomes, strict=True)):
        if outcome == DUPLICATE and id not in stored:
            outcomes[row] = STORED
            stored.add(id)
    return with_column(table, "outcome", pa.array(outcomes, pa.string()))


def plain_addresses(urls: pa.ChunkedArray) -> pa.Array:
    """Addresses as the journal has them, without a fragment; names of files keep their `#`."""
    return pc.replace_substring_regex(urls, FRAGMENT, r"\1").combine_chunks()


def plain_address(url: str) -> str:
    """The same for one."""
    return re.sub(FRAGMENT, r"\1", url)


def _arrived(table: pa.Table) -> pa.ChunkedArray:
    return table.filter(pc.is_valid(pc.field("id")))["id"]


def _labels(table: pa.Table) -> dict[str, int]:
    stored = table.filter(pc.field("outcome") == STORED)
    return dict(zip(*(stored[name].to_pylist() for name in ("id", "label")), strict=True))


def _strings(values: Collection[str]) -> pa.Array:
    return pa.array(sorted(values), pa.string())


def _news(journal: Journal, url: str, removal: Removal) -> bool:
    """Whether the journal does not say so yet."""
    record = journal.records.get(url)
    return record is None or record.id is not None or record.outcome != removal.outcome


def _record(old: Fetched | None, url: str, removal: Removal) -> Fetched:
    """The record of an address by its removal."""
    old = old or Fetched(url, removal.outcome)
    signals = old.signals if removal.signals is None else removal.signals
    return Fetched(
        url,
        removal.outcome,
        removal.detail,
        final_url=old.final_url,
        status=old.status,
        signals=signals,
    )
