"""A crawl on workers: what one machine gives, and what it keeps safe."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kd3_pipeline.crawl import spread
from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import pack
from kd3_pipeline.crawl.spread import Part, Spread, Visit, site_of
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError
from tests.crawl.hosts import (
    AGENT,
    LIMITS,
    Host,
    candidates_of,
    image,
    redirect,
    reply,
    serving,
)

HOSTS, EACH = 6, 8  # of class 0 and, by other paths, of class 1
PARAMS = LIMITS.model_copy(update={"per_class": 20, "connections_per_host": 1})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Parts of few addresses, so that few make many."""
    for name, value in {"FEW": 4, "LEAST": 2, "MOST": 3}.items():
        monkeypatch.setattr(spread, name, value)


def web_of_faults() -> list[Host]:
    """Hosts of good pictures, of some that others have, of errors, and of ways to each other."""
    hosts = []
    for n in range(HOSTS):
        routes = {"/robots.txt": reply(b"User-agent: *\nDisallow: /7.jpg")}
        for i in range(2 * EACH):
            routes[f"/{i}.jpg"] = image(100 * n + i, seconds=0.01)
        routes["/2.jpg"] = image(2, seconds=0.01)  # the same everywhere
        routes["/3.jpg"] = reply(b"gone", 404)
        routes["/4.jpg"] = redirect(f"http://{(n + 1) % HOSTS}.test/5.jpg?from={n}")
        routes["/12.jpg"] = reply(b"no picture")
        hosts.append(Host(routes))
    return hosts


def candidates():
    urls = [f"http://{n}.test/{i}.jpg" for i in range(2 * EACH) for n in range(HOSTS)]
    half = len(urls) // 2
    return candidates_of(urls[:half]) + candidates_of(urls[half:], 1)


def crawled(folder, table, engine=None, params=PARAMS, blocklist=NOTHING_BLOCKED, **options):
    """The bytes of the shards and the manifest, of a crawl on an engine's workers, or without."""
    web, some, backlog, notes = Web(AGENT, table), candidates(), Backlog(), []
    about = {"backlog": backlog, "blocklist": blocklist, **options}
    with Journal(folder / "journal") as journal:
        known = {}
        if engine is not None:
            known = Spread(engine, notes.append).prefetch(some, params, journal, web, **about)
        found = fetch(some, params, journal, web, lambda *_: None, known=known, **about)
        found = {one: replace(record, fetched_at="") for one, record in found.items()}
        (folder / "out").mkdir()
        pack(folder / "out", Gathered(some, found, {}), journal, ["class 0", "class 1"])
    files = {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}
    return files, known, notes


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_and_manifest_are_those_of_one_machine_to_the_byte(tmp_path, workers):
    with serving(*web_of_faults()) as table:
        (tmp_path / "alone").mkdir()
        expected, _, _ = crawled(tmp_path / "alone", table)
    hosts = web_of_faults()
    with serving(*hosts) as table, Engine(workers) as engine:
        (tmp_path / "spread").mkdir()
        found, known, notes = crawled(tmp_path / "spread", table, engine)
    assert found == expected
    assert {"images-00000.parquet", "manifest.parquet"} <= found.keys()
    assert len(known) > 30  # of what is needed, workers brought most
    assert {host.most_at_once for host in hosts} == {1}  # no two parts had one host at once
    asked = [n for host in hosts for path, n in host.requests.items() if path.endswith(".jpg")]
    twice = [
        path for host in hosts for path, n in host.requests.items() if n > 1 and ".jpg" in path
    ]
    assert set(twice) <= {"/4.jpg", "/5.jpg"}, asked  # of those the caller followed the redirects
    assert not any(host.requests["/7.jpg"] for host in hosts)
    told = f"the crawl is spread over {workers} worker{'s' * (workers > 1)} of processes"
    assert [line for line in notes if line.startswith(told)] == notes
    assert len(notes) == 1
