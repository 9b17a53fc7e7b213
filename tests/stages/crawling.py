"""`pipeline crawl` against a world, twice: what it stored, what it said, what it asked."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl import fetch, result_pages, scheduler
from kd3_pipeline.manifest import STORED
from tests.crawl.world.service import World, command, running

CLASSES = ("cat", "dog", "owl")
PARAMS = """
crawl: {{classes: [{classes}], per_class: {per_class}, filters: {varied}, expand: {expand}{more}}}
distill: {{batch_size: 4}}
"""


@dataclass(frozen=True)
class Crawled:
    """One run of the command, and what it left."""

    code: int
    out: str
    err: str
    asked: list[str]  # queries of the requests for pages, canaries left out
    pages: int  # requests for pages
    images: int  # requests for images
    report: dict[str, Any]
    outcomes: dict[str, Counter[str]]  # of the manifest, by class

    def stored(self) -> dict[str, int]:
        """Images stored, by class."""
        return {name: found[STORED] for name, found in self.outcomes.items()}

    def of(self, name: str) -> dict[str, Any]:
        """What the report says of a class."""
        return next(one for one in self.report["classes"] if one["name"] == name)


@contextmanager
def crawling(
    folder: Path,
    world: World,
    *,
    per_class: int = 30,
    classes: tuple[str, ...] = CLASSES,
    varied: bool = False,
    **changes: object,
) -> Iterator[Callable[..., Crawled]]:
    """A function that runs `pipeline crawl` in `folder`; pauses that nobody names are short."""
    more = "".join(f", {name}: {json.dumps(value)}" for name, value in changes.items())
    text = PARAMS.format(
        classes=", ".join(classes),
        per_class=per_class,
        varied=str(varied).lower(),
        expand="all" if varied else "none",
        more=more,
    )
    (folder / "params.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch, running(world, patch, folder):
        patch.setattr(result_pages, "RETRY_PAUSE", 0.01)
        patch.setattr(result_pages, "MINUTE", 0.05)
        patch.setattr(scheduler, "FIRST_PAUSE", 0.005)
        patch.setattr(fetch, "BACK_OFF", 0.005)

        def run(*arguments: str) -> Crawled:
            world.forget()
            done = command("crawl", *arguments)
            return crawled(folder, world, done.exit_code, done.stdout, done.stderr)

        yield run


def crawled(folder: Path, world: World, code: int, out: str, err: str) -> Crawled:
    """What a run left in `folder`."""
    report, manifest = folder / "reports/crawl.json", folder / "data/crawl/manifest.parquet"
    outcomes: dict[str, Counter[str]] = {}
    if manifest.exists():
        for row in pq.read_table(manifest).to_pylist():
            outcomes.setdefault(row["class"], Counter())[row["outcome"]] += 1
    return Crawled(
        code,
        out,
        err,
        [one.query for one in world.asked if one.query.split()[0] in CLASSES],
        len(world.asked),
        len(world.images),
        json.loads(report.read_text()) if report.exists() else {},
        outcomes,
    )
