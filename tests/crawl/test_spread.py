"""A crawl on workers: what one machine gives, and what it keeps safe."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl import spread
from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.spread import Part, Spread, Visit, site_of
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError, UserError
from tests.crawl.hosts import (
    AGENT,
    Host,
    certificates,
    image,
    redirect,
    reply,
    serving,
)
from tests.crawl.spreading import HOSTS, PARAMS, candidates, crawled, small_parts, web_of_faults
from tests.imports import ROOT


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_parts(monkeypatch)


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


@pytest.mark.parametrize("limit", ["SECONDS", "FULL"])
def test_what_a_part_had_no_time_or_room_for_goes_out_again(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(spread, limit, 0)
    with serving(*web_of_faults()) as table:
        (tmp_path / "alone").mkdir()
        expected, _, _ = crawled(tmp_path / "alone", table)
        with Engine(1) as engine:
            (tmp_path / "spread").mkdir()
            found, known, _ = crawled(tmp_path / "spread", table, engine)
    assert found == expected
    assert len(known) > 20


def visited(web, urls, **changes):
    """What a worker brings of addresses that are its own, and no others."""
    part = Part(dict.fromkeys(urls, ""), frozenset({"0.test"}), {})
    return Visit(PARAMS.model_copy(update=changes), web, NOTHING_BLOCKED)(part)


@pytest.mark.parametrize("path", ["/x.jpg", "/robots.txt", "/.well-known/tdmrep.json"])
def test_what_leads_to_another_site_is_left_to_the_caller(path):
    other = Host({path: reply(b"")})
    host = Host({"/x.jpg": image(1), path: redirect(f"http://1.test{path}")})
    with serving(host, other) as table:
        found = visited(Web(AGENT, table), ["http://0.test/x.jpg"])
    assert not other.requests
    assert host.requests["/x.jpg"] == (path == "/x.jpg")
    assert (found.records, found.images, found.ended) == ([], {}, True)
    assert found.backlog.records["http://0.test/x.jpg"].status is None
    own = Backlog()
    own.join(found.backlog)
    assert not own.records  # so it is asked for


def test_a_licence_on_another_site_is_left_to_the_caller():
    other = Host({"/l.xml": reply(b"")})
    host = Host({"/x.jpg": image(1), "/robots.txt": reply(b"License: http://1.test/l.xml")})
    with serving(host, other) as table:
        found = visited(Web(AGENT, table), ["http://0.test/x.jpg"])
    assert not other.requests and not host.requests["/x.jpg"]
    assert found.records == []


def test_what_leads_elsewhere_on_its_own_site_is_followed():
    host = Host({"/x.jpg": redirect("http://cdn.0.test/y.jpg"), "/y.jpg": image(1)})
    with serving(host) as table:
        found = visited(
            Web(AGENT, table | {"cdn.0.test": host.server_address}), ["http://0.test/x.jpg"]
        )
    assert [(one.url, one.outcome) for one in found.records] == [("http://0.test/x.jpg", "ok")]


def test_sites_are_no_less_than_hosts():
    assert site_of("a.b.example.org") == site_of("example.org.") == "example.org"
    assert site_of("a.co.uk") == site_of("b.co.uk")  # coarser, which is safe
    assert (site_of("localhost"), site_of("")) == ("localhost", "")


def test_a_worker_asks_as_the_crawl_does():
    host = Host(
        {
            "/robots.txt": reply(b"User-agent: kd3-pipeline\nDisallow: /no."),
            "/private.jpg": redirect("http://10.0.0.1/x.jpg"),
            "/noai.jpg": reply(b"x", X_Robots_Tag="noai"),
            "/large.jpg": reply(bytes(5000)),
        }
    )
    urls = [f"http://0.test/{name}.jpg" for name in ("no", "private", "noai", "large")]
    with serving(host) as table:
        found = visited(Web(AGENT, table), urls, max_bytes=4000)
    assert {one.url[14:-4]: one.outcome for one in found.records} == {
        **{"no": "robots", "private": "forbidden_address"},
        **{"noai": "opted_out", "large": "too_large"},
    }
    assert not host.requests["/no.jpg"]
    assert {headers["User-Agent"] for headers in host.headers} == {AGENT}


@dataclass(frozen=True)
class Deadly(Blocklist):
    """Ends a worker that is about to ask 3.test, as often as `times` says."""

    folder: Path = Path()
    times: int = 0

    def host(self, address):
        if multiprocessing.parent_process() and "//3.test" in address:
            deaths = len(list(self.folder.glob("death-*")))
            if deaths < self.times:
                (self.folder / f"death-{deaths}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return ""


def test_a_worker_that_dies_costs_its_part_and_no_more(tmp_path):
    with serving(*web_of_faults()) as table:
        (tmp_path / "alone").mkdir()
        expected, _, _ = crawled(tmp_path / "alone", table)
    with serving(*web_of_faults()) as table, Engine(2) as engine:
        (tmp_path / "spread").mkdir()
        deadly = Deadly(folder=tmp_path, times=1)
        found, _, _ = crawled(tmp_path / "spread", table, engine, blocklist=deadly)
    assert (tmp_path / "death-0").exists()
    assert found == expected


def test_a_part_that_kills_its_workers_is_named_and_what_came_before_is_kept(tmp_path):
    hosts = web_of_faults()
    with serving(*hosts) as table:
        (tmp_path / "alone").mkdir()
        expected, _, _ = crawled(tmp_path / "alone", table)
        with Engine(2) as engine, pytest.raises(ExternalError) as caught:
            (tmp_path / "spread").mkdir()
            deadly = Deadly(folder=tmp_path, times=99)
            crawled(tmp_path / "spread", table, engine, blocklist=deadly)
        said = "addresses of 3.test: the process at work on it died 3 times (killed by signal 9)"
        assert str(caught.value).startswith(said)
        assert "pipeline --engine processes:0" in str(caught.value)
        with Journal(tmp_path / "spread/journal") as journal:
            kept = {url for url in journal.records}
        assert {url[:13] for url in kept} >= {f"http://{n}.test" for n in range(3)}
        for host in hosts:
            host.requests.clear()
        found, _, _ = crawled(tmp_path / "spread", table)
    asked = {f"http://{n}.test{path}" for n in range(HOSTS) for path in hosts[n].requests}
    assert not {url for url in kept & asked if "/5.jpg" not in url}  # where redirects lead
    assert found == expected


CALLER = """
import json, sys
from pathlib import Path
from tests.crawl.spreading import SMALL, crawled
from kd3_pipeline.crawl import spread
from kd3_pipeline.engine import Engine

vars(spread).update(SMALL)
if __name__ == "__main__":
    table = {name: tuple(at) for name, at in json.loads(sys.argv[2]).items()}
    with Engine(2) as engine:
        crawled(Path(sys.argv[1]), table, engine)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_caller_that_is_ended_loses_nothing_that_its_journal_has(tmp_path, how):
    hosts = web_of_faults()
    program, folder = tmp_path / "caller.py", tmp_path / "spread"
    program.write_text(CALLER)
    folder.mkdir()
    with serving(*hosts) as table:
        (tmp_path / "alone").mkdir()
        expected, _, _ = crawled(tmp_path / "alone", table)
        command = [sys.executable, str(program), str(folder), json.dumps(table)]
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=own, stderr=subprocess.PIPE)
        lines, until = folder / "journal/journal.jsonl", time.monotonic() + 60
        while not (lines.exists() and lines.stat().st_size) and time.monotonic() < until:
            time.sleep(0.002)
        process.send_signal(how)
        _, said = process.communicate(timeout=30)
        assert process.returncode != 0, said
        with Journal(folder / "journal") as journal:
            kept = set(journal.records)
        assert kept and not (folder / "out").exists()
        for host in hosts:
            host.requests.clear()
        with Engine(1) as engine:
            found, _, _ = crawled(folder, table, engine)
    asked = {f"http://{n}.test{path}" for n in range(HOSTS) for path in hosts[n].requests}
    assert not {url for url in kept & asked if "/5.jpg" not in url}
    assert found == expected


def test_a_host_that_is_put_off_is_asked_no_more(tmp_path):
    hosts = web_of_faults()
    for path in list(hosts[2].routes)[1:]:
        hosts[2].routes[path] = reply(b"enough", 429, Retry_After="900")
    with serving(*hosts) as table, Engine(1) as engine:
        _, _, notes = crawled(tmp_path, table, engine)
    assert hosts[2].images_asked() == 1
    assert [line for line in notes if line.startswith("2.test is left to the next run")]


def test_where_workers_reach_nothing_the_caller_asks_and_judges(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    gone = Host()
    gone.server_close()
    table = {f"{n}.test": gone.server_address for n in range(HOSTS)}
    spreading, backlog, notes = Web(AGENT, table), Backlog(), []
    with Engine(1) as engine, Journal(tmp_path / "journal") as journal:
        about = {"backlog": backlog, "blocklist": NOTHING_BLOCKED}
        one = Spread(engine, notes.append)
        assert one.prefetch(candidates(), PARAMS, journal, spreading, **about) == {}
    assert notes[1].startswith("workers brought nothing, so the rest is asked from here: the netw")
    with pytest.raises(ExternalError, match="network seems to be down"):
        crawled(tmp_path, table)
    with Journal(tmp_path / "journal") as journal:
        assert not journal.records


def test_certificates_are_judged_by_the_caller(tmp_path):
    server, _ = certificates(tmp_path, "0.test")
    with serving(Host({"/x.jpg": image(1)}, server)) as table:
        found = visited(Web(AGENT, table), ["https://0.test/x.jpg"])
    assert found.records == []


def test_few_addresses_or_one_site_are_not_spread(tmp_path, monkeypatch):
    with serving(*web_of_faults()) as table, Engine(1) as engine:
        monkeypatch.setattr(spread, "FEW", 1000)
        _, known, notes = crawled(tmp_path, table, engine)
    assert (known, notes) == ({}, [])


def test_what_is_tried_again_is_asked_for_once_a_run(tmp_path):
    hosts = web_of_faults()
    with serving(*hosts) as table, Engine(1) as engine:
        crawled(tmp_path, table, engine)
        (tmp_path / "out").rename(tmp_path / "before")
        assert [host.requests["/3.jpg"] for host in hosts] == [1] * HOSTS
        crawled(tmp_path, table, engine, retry=frozenset({"404"}))
    assert [host.requests["/3.jpg"] for host in hosts] == [2] * HOSTS


def test_hosts_are_told_the_page_by_workers_as_well(tmp_path):
    hosts = web_of_faults()
    some = [replace(one, page_url=f"http://p.test/{one.rank}") for one in candidates()]
    params = PARAMS.model_copy(update={"referer": True})
    with serving(*hosts) as table, Engine(1) as engine, Journal(tmp_path) as journal:
        web, about = Web(AGENT, table), {"backlog": Backlog(), "blocklist": NOTHING_BLOCKED}
        known = Spread(engine, print).prefetch(some, params, journal, web, **about)
        found = module.fetch(some, params, journal, web, lambda *_: None, known=known, **about)
    assert all(record.referer for record in known.values())
    assert {record.url for record in found.values()} > known.keys()
    assert [host.requests["/3.jpg"] for host in hosts] == [1] * HOSTS
    pages = {url: one.page_url for one in some for url in [one.url]}
    for n, host in enumerate(hosts):
        for target, headers in zip(host.targets, host.headers, strict=True):
            if target.endswith(".jpg"):
                assert headers["Referer"] == pages[f"http://{n}.test{target}"]


def test_a_package_that_workers_lack_is_named(tmp_path, monkeypatch):
    def lacking(self, part):
        raise ModuleNotFoundError("No module named 'aiohttp'")

    monkeypatch.setattr(Visit, "__call__", lacking)
    with serving(*web_of_faults()) as table, Engine(1) as engine, pytest.raises(UserError) as told:
        crawled(tmp_path, table, engine)
    said = (
        "the workers of the crawl: No module named 'aiohttp': install this software there as well"
    )
    assert str(told.value).startswith(said)
