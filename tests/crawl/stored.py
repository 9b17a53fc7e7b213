"""A crawl as it is on disk, made by the real download and packing code from hosts on loopback."""

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.guard import HostTable
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import pack
from kd3_pipeline.manifest import Candidate
from kd3_pipeline.store import replacing, write_json
from tests.crawl.hosts import AGENT, LIMITS, Host
from tests.imports import ROOT

NAMES = ("cat", "dog")
PARAMS = """crawl: {classes: [cat, dog], host_gap: 0}
teacher: {input_size: 32}
distill: {batch_size: 4}
"""


@dataclass
class World:
    """A crawl of hosts that go on being there."""

    folder: Path
    hosts: list[Host]
    table: dict[str, tuple[str, int]]
    candidates: list[Candidate]

    def images_asked(self, act: Callable[[], object]) -> list[str]:
        """The images that are asked for while `act` runs, behind the numbers of their hosts."""
        before = [len(host.targets) for host in self.hosts]
        act()
        return [
            f"{number}{target}"
            for number, (host, seen) in enumerate(zip(self.hosts, before, strict=True))
            for target in host.targets[seen:]
            if target.endswith(".jpg")
        ]

    def again(self, **more: Any) -> list[str]:
        """Crawls once more; what was asked."""
        return self.images_asked(lambda: crawled(self.folder, self.candidates, self.table, **more))


def project(folder: Path) -> Path:
    """A folder with the files that commands need."""
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    shutil.copy(ROOT / "dvc.yaml", folder)
    return folder


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
