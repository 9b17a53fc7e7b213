"""Growth: bytes of memory that a row of each stage's tables takes, for synthetic rows.

    python -m benchmarks.growth --rows 1000000 --stages crawl

Counted by tracemalloc and by Arrow's own pool, which a busy machine does not change. The two peaks
are added though they may come at two moments: it is never more than what is said here. A stage is a
function in `STAGES`, from a number of rows to its figures.
"""

import argparse
import gc
import json
import random
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import summary
from kd3_pipeline.crawl.sealed import Sealed
from kd3_pipeline.manifest import Candidate, Fetched, manifest
from kd3_pipeline.store import StoredImage, write_shards

CLASSES = [f"class {label}" for label in range(100)]


@dataclass(frozen=True)
class Figure:
    """Bytes a row: of what is there afterwards, and at most meanwhile; before the work is 0."""

    stage: str
    table: str
    rows: int
    stays: float
    peak: float


def measured(stage: str, table: str, rows: int, work: Callable[[], Any]) -> tuple[Any, Figure]:
    """What `work` gives, and the bytes a row that it takes."""
    gc.collect()
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)  # counts from 0
    tracemalloc.start()
    pa.set_memory_pool(pool)
    try:
        result = work()
        gc.collect()
        stays, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    _POOLS.append(pool)  # what is left of the result is given back to it
    arrow = pool.bytes_allocated(), pool.max_memory() or 0
    return result, Figure(stage, table, rows, (stays + arrow[0]) / rows, (peak + arrow[1]) / rows)


_POOLS: list[pa.MemoryPool] = []


def crawl(rows: int) -> list[Figure]:
    """A search's candidates, every second of which gave an image; then the same crawl anew."""
    stage = "crawl"
    candidates, listed = measured(stage, "candidates", rows, lambda: _candidates(rows))
    found, records = measured(stage, "records", rows, lambda: dict(map(_answered, candidates)))
    table, packed = measured(stage, "manifest", rows, lambda: manifest(candidates, found))
    summary(table.slice(0, 9), CLASSES)  # what is loaded at its first call is no row's
    counted = measured(stage, "summary", rows, lambda: summary(table, CLASSES))[1]
    with tempfile.TemporaryDirectory() as name:
        images = _keep(Path(name), list(found.values()))
        again = [
            measured(stage, "sealed", images, lambda: Sealed(Path(name, "sealed")))[1],
            measured(stage, "journal", rows, lambda: _records(Path(name)))[1],
        ]
    return [listed, records, packed, counted, *again]


def _candidates(rows: int) -> list[Candidate]:
    """Addresses as long as Bing's."""
    rng = random.Random(0)

    def text(length: int) -> str:
        return f"{rng.getrandbits(4 * length):0{length}x}"

    return [
        Candidate(
            (label := row * len(CLASSES) // rows),
            CLASSES[label],
            "bing",
            CLASSES[label],
            row,
            f"https://www.{rng.randrange(20_000)}.example/{text(60)}/{row}.jpg",
            f"https://www.{rng.randrange(20_000)}.example/{text(50)}/",
            f"A photograph of {text(40)}",
            f"https://ts2.mm.bing.net/th?id=OIP.{text(26)}&pid=15.1",
        )
        for row in range(rows)
    ]


def _answered(one: Candidate) -> tuple[Candidate, Fetched]:
    address = f"{one.url} "[:-1]  # a text of its own, as an answer's is
    if one.rank % 2:
        return one, Fetched(one.url, "http_error", "Not Found", status=404, final_url=address)
    return one, Fetched(
        one.url,
        "ok",
        status=200,
        final_url=address,
        id=f"{random.Random(one.rank).getrandbits(256):064x}",
        format="JPEG",
        size=100_000 + one.rank,
        fetched_at=f"2026-01-01T{one.rank % 24:02}:00:00Z",
        width=1000,
        height=800,
    )


def _keep(folder: Path, found: Sequence[Fetched]) -> int:
    """Leaves a crawl's journal and shards in a folder, without pictures; how many images it has."""
    images = (StoredImage(one.id, b"", 0, 1, 1, "JPEG") for one in found if one.id is not None)
    count = write_shards(folder / "sealed", images, CLASSES)
    with Journal(folder) as journal:
        for record in found:
            journal.add(record)
    return count


def _records(folder: Path) -> dict[str, Fetched]:
    with Journal(folder) as journal:
        return journal.records


STAGES: dict[str, Callable[[int], list[Figure]]] = {"crawl": crawl}


def main(words: Sequence[str] | None = None) -> None:
    """Prints a line a table."""
    parser = argparse.ArgumentParser(description="bytes of memory that a row takes, by stage")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    figures = [one for stage in options.stages for one in STAGES[stage](options.rows)]
    print(f"{'stage':<10} {'table':<12} {'rows':>12} {'stays':>8} {'peak':>8}   bytes a row")
    for one in figures:
        print(f"{one.stage:<10} {one.table:<12} {one.rows:>12,} {one.stays:>8.0f} {one.peak:>8.0f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in figures], indent=1))


if __name__ == "__main__":
    main()
