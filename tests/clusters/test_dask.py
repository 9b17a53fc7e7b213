"""A crawl, `pipeline dedup` and `embed` on Dask: the bytes of one machine, whatever dies."""

import os
import signal
import subprocess
import sys

import pytest

from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError
from tests.clusters.crawls import equal_crawls
from tests.clusters.pieces import deadly, placed
from tests.clusters.project import outputs, told
from tests.imports import ROOT

pytestmark = pytest.mark.ray
PORT = 18786


@pytest.fixture(scope="module")
def address():
    """Of a scheduler with two workers, started as a person does."""
    from distributed import Client

    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    address = f"127.0.0.1:{PORT}"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(PORT), "--no-dashboard"]
    worker = ["worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"]
    running = [
        subprocess.Popen([sys.executable, "-m", "dask", *command], env=own)
        for command in (scheduler, worker)
    ]
    try:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=120)
        yield address
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def engine(address):
    with Engine(1, ("dask", address)) as engine:
        yield engine


def test_the_ten_files_of_dedup_and_embed_are_those_of_processes_here(address, copy, expected):
    for stage in ("dedup", "embed"):
        told(copy, stage, DASK_ADDRESS=address)
    assert outputs(copy) == outputs(expected)
    assert len(outputs(copy)) >= 10


def test_shards_and_manifest_of_a_crawl_are_those_of_one_machine(engine, tmp_path, monkeypatch):
    equal_crawls(engine, tmp_path, monkeypatch)


def test_a_worker_that_is_killed_loses_nothing(engine):
    results = engine.map(placed, range(20))
    found = [next(results)]
    os.kill(found[0][1], signal.SIGKILL)
    found += results
    assert [number for number, _ in found] == list(range(20))


def test_a_piece_that_kills_its_workers_is_named(engine):
    results = engine.map(deadly, range(6), named="piece {}".format)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ExternalError, match=r"^piece 3: it ended each process at work on it"):
        next(results)
    assert [number for number, _ in engine.map(placed, range(3))] == [0, 1, 2]
