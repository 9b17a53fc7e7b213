"""Provenance of the images that a student learnt from. All text in it is from the web."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import (
    ARRIVED,
    class_names,
    count_candidates,
    host_of,
    made_by,
    scan_manifest,
    signed,
)
from kd3_pipeline.selections import read_selection
from kd3_pipeline.verdicts import read_verdicts

MOST = 20  # licences, and hosts, that are counted by name
# column of sources.parquet -> column of the manifest; one value an address, "" where not known
TOLD = {
    "urls": "url",
    "page_urls": "page_url",
    "titles": "title",
    "creators": "creator",
    "licences": "licence",
    "licence_urls": "licence_url",
    "fetched_at": "fetched_at",
}
FREE = re.compile(r"\b(cc0|pdm|public domain|no (known )?copyright|us government)", re.IGNORECASE)


@dataclass(frozen=True)
class History:
    """Counts of images on the way from the search to the student.

    Attributes:
        dropped: images that dedup did not keep, by reason.
        used: images that were selected in an epoch or more.
    """

    candidates: int
    stored: int
    dropped: dict[str, int]
    kept: int
    held_out: int
    used: int


def read_history(manifest: Path, dedup: Path, selection: Path) -> History:
    """Counts from the three tables.

    Raises:
        UserError: one is missing, or not what its stage writes.
    """
    judged = read_verdicts(dedup, ["kept", "reason"])
    lost = judged.filter(pc.invert(judged["kept"]))["reason"]
    chosen = read_selection(selection, ["held_out", "times_kept"])
    return History(
        candidates=count_candidates(manifest),
        stored=judged.num_rows,
        dropped=dict(Counter(lost.to_pylist()).most_common()),
        kept=judged.num_rows - len(lost),
        held_out=pc.sum(chosen["held_out"]).as_py() or 0,
        used=_selected(chosen).num_rows,
    )


def provenance_table(
    manifest: Path, dedup: Path, selection: Path, advance: Advance = no_progress
) -> pa.Table:
    """One row an image that was selected in an epoch or more, in the order of `selection`.

    Columns: `id`; `class`, for which it was found, as dedup settled it; `epochs`, in how many it
    was selected; and lists with a value for each address that gave it, the one that it was stored
    from first: `urls`, `page_urls`, `titles`, `creators`, `licences`, `licence_urls`, and
    `fetched_at` in UTC. The schema's metadata says how the crawl was made, as the manifest's does.

    Args:
        advance: called with the rows of the manifest that were read.

    Raises:
        UserError: a table is missing, or they are of different runs.
    """
    used = _selected(read_selection(selection, ["id", "times_kept"]))
    ids = used["id"].combine_chunks()
    names = class_names(manifest)
    rows = _arrived(manifest, ids, advance)
    place = pc.index_in(rows["id"], ids).to_numpy()
    counts = np.bincount(place, minlength=len(ids))
    judged = read_verdicts(dedup, ["id", "label"])
    judgement = pc.index_in(ids, judged["id"].combine_chunks())
    lost = int((counts == 0).sum()) + judgement.null_count
    if lost:
        raise UserError(
            f"{selection} has images that are not in {manifest} and {dedup}",
            "they are of different runs: run `dvc repro`",
        )
    labels = judged["label"].take(judgement).to_pylist()
    rows = rows.take(np.argsort(place, kind="stable"))
    starts = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    table = pa.table(
        {
            "id": ids,
            "class": pa.array([names.get(label, "") for label in labels], pa.string()),
            "epochs": used["times_kept"].cast(pa.int32()),
            **{
                name: pa.ListArray.from_arrays(starts, rows[of].combine_chunks())
                for name, of in TOLD.items()
            },
        }
    )
    return signed(table, made_by(manifest))


def by_licence(table: pa.Table) -> list[tuple[str, int]]:
    """Images of a provenance table by the first licence that an address of theirs states."""
    return _counted(next(filter(None, told), "") for told in _lists(table, "licences"))


def by_host(table: pa.Table) -> list[tuple[str, int]]:
    """Images of a provenance table by the host that they were stored from."""
    return _counted(host_of(urls[0]) for urls in _lists(table, "urls"))


def creators_to_credit(table: pa.Table) -> tuple[list[tuple[str, str, int]], int]:
    """Creators of images whose licence is stated and not free of conditions, with it and a count.

    Returns:
        Creator, licence and images, the most first; and images of such a licence whose creator is
        not known.
    """
    counts: Counter[tuple[str, str]] = Counter()
    told = zip(_lists(table, "creators"), _lists(table, "licences"), strict=True)
    for creators, licences in told:
        pairs = {
            (creator, licence)
            for creator, licence in zip(creators, licences, strict=True)
            if licence and not FREE.search(licence)
        }
        known = sorted(pair for pair in pairs if pair[0])
        counts.update(known[:1] or ([("", "")] if pairs else []))
    unknown = counts.pop(("", ""), 0)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(*pair, count) for pair, count in ranked], unknown


def fetched_between(table: pa.Table) -> tuple[str, str]:
    """The first and the last day on which an image was fetched, of those that say; "" for none."""
    days = sorted({at[:10] for times in _lists(table, "fetched_at") for at in times if at})
    return (days[0], days[-1]) if days else ("", "")


def _selected(selection: pa.Table) -> pa.Table:
    return selection.filter(pc.greater(selection["times_kept"], 0))


def _arrived(manifest: Path, ids: pa.Array, advance: Advance) -> pa.Table:
    """The manifest's rows of `ids`, in its order; text that is not known is ""."""
    columns = ["id", "outcome", *TOLD.values()]
    schema = pa.schema([(name, pa.string()) for name in ("id", *TOLD.values())])
    parts = []
    for batch in scan_manifest(manifest, columns):
        arrived = pc.is_in(batch["outcome"], pa.array(ARRIVED))
        rows = batch.filter(pc.and_(arrived, pc.is_in(batch["id"], ids)))
        told = [pc.fill_null(rows[name], "") for name in TOLD.values()]
        parts.append(pa.RecordBatch.from_arrays([rows["id"], *told], schema=schema))
        advance(len(batch))
    return pa.Table.from_batches(parts, schema).combine_chunks()


def _lists(table: pa.Table, name: str) -> Iterator[list[str]]:
    for batch in table.select([name]).to_batches(max_chunksize=10_000):
        yield from batch[name].to_pylist()


def _counted(values: Iterable[str]) -> list[tuple[str, int]]:
    """The most frequent first, equal ones by name, the rest together; "" is not known."""
    ranked = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ranked[MOST:])
    return ranked[:MOST] + ([("others", rest)] if rest else [])
