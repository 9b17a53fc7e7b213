"""Where the images came from that a student learnt from. All text in it is from the web."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.console import Advance, no_progress
from pipeline.errors import UserError
from pipeline.store import open_parquet, read_table

MOST = 20  # licences, and hosts, that are counted by name
# column of sources.parquet -> column of the manifest; one value an address, "" where not known
TOLD = {
    "urls": "url",
    "page_urls": "page_url",
    "titles": "title",
    "creators": "creator",
    "licences": "licence",
    "licence_urls": "licence_url",
}
ARRIVED = ("stored", "duplicate")  # outcomes of candidates whose image the crawl has


@dataclass(frozen=True)
class History:
    """How many images there were on the way from the search to the student.

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


def history(manifest: Path, dedup: Path, selection: Path) -> History:
    """Counts from the three tables.

    Raises:
        UserError: one is missing, or not what its stage writes.
    """
    with open_parquet(manifest) as file:
        candidates = file.metadata.num_rows
    judged = read_table(dedup, ["kept", "reason"])
    lost = judged.filter(pc.invert(judged["kept"]))["reason"]
    chosen = read_table(selection, ["held_out", "times_kept"])
    return History(
        candidates=candidates,
        stored=judged.num_rows,
        dropped=dict(Counter(lost.to_pylist()).most_common()),
        kept=judged.num_rows - len(lost),
        held_out=pc.sum(chosen["held_out"]).as_py() or 0,
        used=_selected(chosen).num_rows,
    )


def sources(
    manifest: Path, dedup: Path, selection: Path, advance: Advance = no_progress
) -> pa.Table:
    """One row an image that was selected in an epoch or more, in the order of `selection`.

    Columns: `id`; `class`, for which it was found, as dedup settled it; `epochs`, in how many it
    was selected; and lists with a value for each address that gave it, the one that it was stored
    from first: `urls`, `page_urls`, `titles`, `creators`, `licences`, `licence_urls`.

    Args:
        advance: called with the rows of the manifest that were read.

    Raises:
        UserError: a table is missing, or they are of different runs.
    """
    used = _selected(read_table(selection, ["id", "times_kept"]))
    ids = used["id"].combine_chunks()
    names: dict[int, str] = {}
    rows = pa.concat_tables(_arrived(manifest, ids, names, advance)).combine_chunks()
    place = pc.index_in(rows["id"], ids).to_numpy()
    counts = np.bincount(place, minlength=len(ids))
    judged = read_table(dedup, ["id", "label"])
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
    return pa.table(
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


def by_licence(table: pa.Table) -> list[tuple[str, int]]:
    """Images of `sources` by the first licence that an address of theirs states."""
    return _counted(next(filter(None, told), "") for told in _lists(table, "licences"))


def by_host(table: pa.Table) -> list[tuple[str, int]]:
    """Images of `sources` by the host that they were stored from."""
    return _counted(_host(urls[0]) for urls in _lists(table, "urls"))


def _selected(selection: pa.Table) -> pa.Table:
    return selection.filter(pc.greater(selection["times_kept"], 0))


def _arrived(
    manifest: Path, ids: pa.Array, names: dict[int, str], advance: Advance
) -> list[pa.Table]:
    """The manifest's rows of `ids`; the class of each label is put into `names` on the way."""
    with open_parquet(manifest) as file:
        there = set(file.schema_arrow.names)
        columns = ["id", "label", "class", "outcome", *(n for n in TOLD.values() if n in there)]
        parts = [_empty()]
        for batch in file.iter_batches(columns=columns):
            known = zip(batch["label"].to_pylist(), batch["class"].to_pylist(), strict=True)
            names |= {label: name for label, name in known if label is not None and label >= 0}
            here = pc.and_(
                pc.is_in(batch["outcome"], pa.array(ARRIVED)), pc.is_in(batch["id"], ids)
            )
            rows = batch.filter(here)
            blank = pa.array([""] * len(rows), pa.string())
            told = {
                name: pc.fill_null(rows[name], "") if name in there else blank
                for name in TOLD.values()
            }
            parts.append(pa.table({"id": rows["id"]} | told))
            advance(len(batch))
    return parts


def _empty() -> pa.Table:
    return pa.schema([(name, pa.string()) for name in ("id", *TOLD.values())]).empty_table()


def _lists(table: pa.Table, name: str) -> Iterator[list[str]]:
    for batch in table.select([name]).to_batches(max_chunksize=10_000):
        yield from batch[name].to_pylist()


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # the name of a file, or none of an address
        return ""


def _counted(values: Iterable[str]) -> list[tuple[str, int]]:
    """The most frequent first, equal ones by name, the rest together; "" is not known."""
    ranked = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ranked[MOST:])
    return ranked[:MOST] + ([("others", rest)] if rest else [])
