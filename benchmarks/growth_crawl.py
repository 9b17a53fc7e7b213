"""Growth of the crawl's tables, for synthetic candidates."""

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.allocated import Figure, measured
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import summary
from kd3_pipeline.crawl.placeholders import placeholders
from kd3_pipeline.crawl.sealed import Sealed
from kd3_pipeline.manifest import Candidate, Fetched, manifest
from kd3_pipeline.store import StoredImage, write_shards

CLASSES = [f"class {label}" for label in range(100)]


def crawl(rows: int, folder: Path, timed: bool) -> list[Figure]:
    """A search's candidates, every second of which gave an image; then the same crawl anew."""

    def figure(table: str, count: int, work: Callable[[], Any]) -> tuple[Any, Figure]:
        return measured("crawl", table, count, work, timed)

    candidates, listed = figure("candidates", rows, lambda: _candidates(rows))
    found, records = figure("records", rows, lambda: dict(map(_answered, candidates)))
    judged = figure("placeholders", rows, lambda: placeholders(found, 5, lambda name: False))[1]
    table, packed = figure("manifest", rows, lambda: manifest(candidates, found))
    summary(table.slice(0, 9), CLASSES)  # what is loaded at its first call is no row's
    counted = figure("summary", rows, lambda: summary(table, CLASSES))[1]
    images = _keep(folder, list(found.values()))
    again = [
        figure("sealed", images, lambda: Sealed(folder / "sealed"))[1],
        figure("journal", rows, lambda: _records(folder))[1],
    ]
    return [listed, records, judged, packed, counted, *again]


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
    if one.rank % 2:
        return one, Fetched(one.url, "http_error", "Not Found", status=404, final_url=one.url)
    return one, Fetched(
        one.url,
        "ok",
        status=200,
        final_url=one.url,
        id=f"{random.Random(one.rank).getrandbits(256):064x}",
        format="JPEG",
        size=100_000 + one.rank,
        fetched_at=sys.intern(f"2026-01-01T{one.rank % 24:02}:00:00+00:00"),
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
