"""The whole of `pipeline crawl` on the demo's web: killed anywhere, repeated, extended, on disk."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.journal import Journal
from tests.stages.workspace import copy_project, environment

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["kd3_stages.steps.crawl", "kd3_pipeline.crawl.pack", "kd3_pipeline.demo.server"]
)
FEW = "crawl: {classes: [circle, square], engine: demo, per_class: %d}\ndistill: {batch_size: 8}\n"


def crawling(folder: Path) -> None:
    """What `pipeline crawl` does, in a process of its own."""
    os.chdir(folder)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    from kd3_stages.crawl import crawl

    crawl(None, None, None, None, "", False, None, True, False)


def started(folder: Path) -> BaseProcess:
    process = SERVER.Process(target=crawling, args=(folder,))
    process.start()
    return process


def finished(folder: Path, per_class: int = 8) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(FEW % per_class)
    process = started(folder)
    process.join(60)
    assert process.exitcode == 0
    return folder


def outputs(folder: Path) -> dict[str, str]:
    paths = [*(folder / "data/crawl").iterdir(), folder / "reports/crawl.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".tmp" in path.name or ".old" in path.name]


def records(folder: Path) -> list[dict]:
    text = (folder / ".cache/crawl/journal.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("crawl") / "undisturbed")


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_crawl_that_is_killed_at_any_moment_ends_as_one_that_is_not(
    undisturbed: Path, tmp_path: Path, kills: int
) -> None:
    began = time.monotonic()
    assert outputs(finished(tmp_path / "again")) == outputs(undisturbed)
    lasts = time.monotonic() - began
    rng, reached = random.Random(0), []
    for number in range(kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "params.yaml").write_text(FEW % 8)
        process, deadline = started(folder), time.monotonic() + 60
        if number % 2:  # at any moment, search and fetch for the most part
            process.join(rng.uniform(0.02, 0.9) * lasts)
        else:  # while a shard is sealed
            while process.is_alive() and not list(folder.glob("data/.crawl.tmp*")):
                assert time.monotonic() < deadline
            time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        reached.append(
            "sealed"
            if (folder / ".cache/crawl/sealed").exists()
            else "fetched"
            if (folder / ".cache/crawl/journal.jsonl").exists()
            else "searched"
        )
        assert outputs(finished(folder)) == outputs(undisturbed), number
        assert leftovers(folder) == [], number
        urls = [record["url"] for record in records(folder)]
        assert len(urls) == len(set(urls)), "an address was fetched twice"
    assert reached.count("fetched") > kills // 6, reached


def test_a_second_run_over_a_finished_crawl_fetches_nothing(undisturbed: Path) -> None:
    before = outputs(undisturbed), records(undisturbed)
    (shard,) = (undisturbed / "data/crawl").glob("images-*.parquet")
    was = shard.stat()
    pages = (undisturbed / ".cache/crawl/pages.jsonl").read_bytes()
    finished(undisturbed)
    assert (outputs(undisturbed), records(undisturbed)) == before
    assert (shard.stat().st_ino, shard.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns)
    assert (undisturbed / ".cache/crawl/pages.jsonl").read_bytes() == pages


def test_once_finished_images_are_on_the_disk_once(undisturbed: Path) -> None:
    assert [path for path in undisturbed.glob(".cache/crawl/objects/*/*") if path.is_file()] == []
    (shard,) = (undisturbed / "data/crawl").glob("images-*.parquet")
    assert shard.samefile(undisturbed / ".cache/crawl/sealed" / shard.name)
    with Journal(undisturbed / ".cache/crawl") as journal:
        for row in pq.read_table(shard).to_pylist():
            assert hashlib.sha256(journal.read(row["id"])).hexdigest() == row["id"]


@pytest.mark.slow
def test_with_dvc_the_images_take_little_more_than_their_bytes(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project", "crawl: {per_class: 30}\n")
    for command in (("git", "init", "-q"), ("dvc", "repro", "-q", "crawl")):
        subprocess.run(command, cwd=folder, env=environment(folder), check=True, timeout=120)
    stored = json.loads((folder / "reports/crawl.json").read_text())["bytes"]["total"]
    places = [folder / name for name in ("data/crawl", ".cache/crawl", ".dvc/cache")]
    files = {
        (path.stat().st_ino): path.stat().st_blocks * 512
        for place in places
        for path in place.rglob("*")
        if path.is_file() and path.suffix != ".jsonl"
    }
    assert sum(files.values()) < 2.2 * stored


def test_an_interrupted_crawl_stops_soon(tmp_path: Path) -> None:
    folder = tmp_path / "interrupted"
    folder.mkdir()
    (folder / "params.yaml").write_text(FEW % 60)
    process, deadline = started(folder), time.monotonic() + 30
    journal = folder / ".cache/crawl/journal.jsonl"
    while not (journal.exists() and journal.stat().st_size > 2000):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join(2)
    assert not process.is_alive()
    assert not (folder / "data/crawl").exists()
