"""A crawl as it is on disk, made by the real download and packing code from hosts on loopback."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.crawl.fetch import fetch
from pipeline.crawl.gather import Gathered
from pipeline.crawl.guard import HostTable
from pipeline.crawl.http import Web
from pipeline.crawl.journal import Journal
from pipeline.crawl.pack import pack
from pipeline.manifest import Candidate
from pipeline.store import replacing, write_json
from tests.crawl.hosts import AGENT, LIMITS

NAMES = ("cat", "dog")


def crawled(
    folder: Path,
    candidates: Sequence[Candidate],
    hosts: HostTable,
    retry: frozenset[str] = frozenset(),
    **more: Any,
) -> dict[str, Any]:
    """Writes data/crawl, .cache/crawl and reports/crawl.json below `folder`, as the stage does."""
    with Journal(folder / ".cache/crawl") as journal:
        found = fetch(
            candidates, LIMITS, journal, Web(AGENT, hosts), lambda *_: None, retry=retry, **more
        )
        with replacing(folder / "data/crawl") as target:
            summary = pack(target, Gathered(candidates, found, {}), journal, NAMES)
            journal.seal(target)
    write_json(folder / "reports/crawl.json", summary)
    return summary


def candidate(label: int, rank: int, url: str, page: str = "", **more: Any) -> Candidate:
    """A search result of one of the two classes."""
    return Candidate(label, NAMES[label], "test", NAMES[label], rank, url, page, **more)


def manifest_of(folder: Path) -> dict[str, str]:
    """Outcome by address."""
    rows = pq.read_table(folder / "data/crawl/manifest.parquet").to_pylist()
    return {row["url"]: row["outcome"] for row in rows}


def labels_of(folder: Path) -> dict[str, int]:
    """Class by id, of all images in the shards, in order."""
    shards = sorted((folder / "data/crawl").glob("images-*.parquet"))
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    return {row["id"]: row["label"] for row in rows}


def holding(folder: Path, data: bytes) -> list[str]:
    """Files below a folder that have these bytes in them."""
    return [path.relative_to(folder).as_posix() for path in files(folder) if data in _read(path)]


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _read(path: Path) -> bytes:
    with io.FileIO(path) as file:
        return file.readall()
