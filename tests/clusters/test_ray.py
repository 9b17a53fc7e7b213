"""A crawl, `pipeline dedup` and `pipeline embed` on Ray: the bytes of one machine, whatever dies.

And what a person is told where the cluster cannot be had.
"""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError
from tests.clusters.conftest import HOST
from tests.clusters.crawls import equal_crawls
from tests.clusters.pieces import deadly, placed
from tests.clusters.project import outputs, started, told
from tests.imports import ROOT

pytestmark = pytest.mark.ray
STORE = 80 * 2**20  # bytes of shared memory, the least that Ray takes


@pytest.fixture(scope="module")
def cluster(ray_environment):
    from ray.cluster_utils import Cluster  # reads the environment once, when it is imported

    node = {"num_cpus": 1, "node_ip_address": HOST, "object_store_memory": STORE}
    started = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        for _ in range(2):
            started.add_node(**node)
        yield started
    finally:
        started.shutdown()


@pytest.fixture(scope="module")
def engine(cluster):
    with Engine(1, ("ray", cluster.address)) as engine:
        yield engine


def test_the_ten_files_of_dedup_and_embed_are_those_of_processes_here(cluster, copy, expected):
    for stage in ("dedup", "embed"):
        told(copy, stage, RAY_ADDRESS=cluster.address)
    assert outputs(copy) == outputs(expected)
    assert len(outputs(copy)) >= 10


def test_a_driver_that_is_killed_goes_on_and_writes_the_same(cluster, copy, expected):
    told(copy, "dedup", PIPELINE_ENGINE=f"ray:{cluster.address}")
    process = started(copy, "embed", RAY_ADDRESS=cluster.address)
    until = time.monotonic() + 120
    while not list(copy.glob(".cache/embed/*/features.npy")) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert list(copy.glob(".cache/embed/*")) and not (copy / "data/embed").exists()
    told(copy, "embed", RAY_ADDRESS=cluster.address)
    assert outputs(copy) == outputs(expected)


ASKED = """
import inspect, sys
from kd3_pipeline.clusters import versions
from kd3_pipeline.engine import Engine
with Engine(1, ("ray", sys.argv[1])) as engine:
    print(*set(engine.map(inspect.getsourcefile, [versions] * 3)))
"""


def test_workers_have_the_code_that_was_sent_and_not_what_is_installed_there(cluster, tmp_path):
    # from a folder of its own: Ray lets workers of the same machine look into the driver's
    command = [sys.executable, "-c", ASKED, cluster.address]
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (there,) = done.stdout.split()
    assert "/runtime_resources/py_modules_files/" in there
    assert there.endswith("/kd3_pipeline/clusters.py")


def test_shards_and_manifest_of_a_crawl_are_those_of_one_machine(engine, tmp_path, monkeypatch):
    equal_crawls(engine, tmp_path, monkeypatch)


def test_a_worker_that_is_killed_loses_nothing(engine):
    results = engine.map(placed, range(20))
    found = [next(results)]
    os.kill(found[0][1], signal.SIGKILL)
    found += results
    assert [number for number, _ in found] == list(range(20))


def test_a_piece_that_kills_its_worker_three_times_is_named(engine):
    results = engine.map(deadly, range(6), named="piece {}".format)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ExternalError, match=r"^piece 3: it ended each process at work on it"):
        next(results)
    assert [number for number, _ in engine.map(placed, range(3))] == [0, 1, 2]


def test_a_node_that_is_killed_loses_nothing(engine, cluster):
    results = engine.map(placed, range(20))
    found = [next(results)]
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    found += results
    assert [number for number, _ in found] == list(range(20))


def test_without_the_token_its_two_variables_are_named(cluster, copy):
    start = time.monotonic()
    without = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    said = told(copy, "dedup", 3, RAY_ADDRESS=cluster.address, **without)
    assert "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in said.splitlines()[-1]
    assert time.monotonic() - start < 60  # of which most is the import of Ray on a busy machine


def test_an_address_that_is_silent_is_given_up(copy, ray_environment):
    with socket.create_server((HOST, 0)) as silent:
        start = time.monotonic()
        said = told(copy, "dedup", 3, RAY_ADDRESS=f"{HOST}:{silent.getsockname()[1]}")
    assert "does not let this process in" in said.splitlines()[-1]
    assert time.monotonic() - start < 60


def test_no_process_of_a_driver_is_left(cluster, copy):
    before = processes()
    told(copy, "dedup", RAY_ADDRESS=cluster.address)
    until = time.monotonic() + 20
    while (left := processes() - before) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left


def processes() -> set[str]:
    """Processes of drivers, which are not Ray's own and not ours."""
    shown = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return {line for line in shown.splitlines() if "kd3_stages" in line}
