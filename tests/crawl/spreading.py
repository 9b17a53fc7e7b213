"""A small web with every kind of answer, crawled on an engine's workers or without."""

from dataclasses import replace
from typing import Any

from kd3_pipeline.crawl import spread
from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import pack
from kd3_pipeline.crawl.spread import Spread
from tests.crawl.hosts import AGENT, LIMITS, Host, candidates_of, image, redirect, reply

HOSTS, EACH = 6, 8  # of class 0 and, by other paths, of class 1
PARAMS = LIMITS.model_copy(update={"per_class": 20, "connections_per_host": 1})
SMALL = {"FEW": 4, "LEAST": 2, "MOST": 3}  # parts of few addresses, so that few make many


def small_parts(monkeypatch: Any) -> None:
    """Sets these for a test."""
    for name, value in SMALL.items():
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
