"""What is refused for now, what is never asked, and what the next run makes of it."""

import json
import socket
import time
from collections import Counter
from dataclasses import replace

import pytest

from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl import scheduler
from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import Fetched, manifest
from tests.crawl.hosts import (
    AGENT,
    LIMITS,
    Host,
    candidates_of,
    crawl,
    image,
    outcomes,
    reply,
    serving,
)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Shorter pauses, so that nobody waits for them."""
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.01)


NOT_NOW = reply(b"Not now", 429, Retry_After="3600")


def pair():
    """Two hosts of 20 images; of 40 addresses every other one is the first host's."""
    hosts = [Host({f"/{n}.jpg": image(n + 20 * host) for n in range(20)}) for host in (0, 1)]
    urls = [f"http://{n % 2}.test/{n // 2}.jpg" for n in range(40)]
    return hosts, candidates_of(urls)


def refusing(host):
    """The host refuses every image until what this returns is called."""
    routes, host.routes = host.routes, dict.fromkeys(host.routes, NOT_NOW)

    def relent():
        host.routes = routes

    return relent


def whole(folder, per_class):
    """What a crawl gives that nobody refuses anything."""
    hosts, candidates = pair()
    with serving(*hosts) as names:
        return manifest(candidates, crawl(folder, candidates, names, per_class=per_class))


def test_a_class_that_others_have_filled_asks_for_nothing_again(tmp_path):
    hosts, candidates = pair()
    with serving(*hosts) as names:
        relent = refusing(hosts[0])
        first, backlog = [], Backlog()
        limits = {"per_class": 10}
        found = crawl(tmp_path, candidates, names, reports=first, backlog=backlog, **limits)
        assert Counter(outcome for _, outcome in first) == {"ok": 10, "not_now": len(found) - 10}
        assert backlog.summary(found, 10) == {"images": 0, "hosts": {}}
        relent()
        asked, again = [sum(host.requests.values()) for host in hosts], []
        assert crawl(tmp_path, candidates, names, reports=again, **limits) == found
        assert [sum(host.requests.values()) for host in hosts] == asked
        assert sorted(again) == sorted(first)
        # unless that is what it is told to do
        found = crawl(tmp_path, candidates, names, retry=frozenset(["not_now"]), **limits)
    assert manifest(candidates, found) == whole(tmp_path / "whole", 10)


def test_a_class_that_is_short_becomes_what_it_would_have_been(tmp_path):
    hosts, candidates = pair()
    with serving(*hosts) as names:
        relent = refusing(hosts[0])
        found, backlog = {}, Backlog()
        limits = {"per_class": 30}
        found = crawl(tmp_path, candidates, names, backlog=backlog, **limits)
        assert Counter(outcomes(found).values()) == {"ok": 20, "not_now": 20}
        told = backlog.summary(found, 30)
        assert told["images"] == told["hosts"]["0.test"]["images"] == 20
        asked = hosts[1].images_asked()
        relent()
        found = crawl(tmp_path, candidates, names, **limits)
        assert manifest(candidates, found) == whole(tmp_path / "whole", 30)
        assert hosts[1].images_asked() == asked  # what is known is not asked for again
        before = [sum(host.requests.values()) for host in hosts]
        crawl(tmp_path, candidates, names, **limits)
        assert [sum(host.requests.values()) for host in hosts] == before


def test_more_images_than_before_ask_for_what_was_put_off(tmp_path):
    hosts, candidates = pair()
    with serving(*hosts) as names:
        relent = refusing(hosts[0])
        crawl(tmp_path, candidates, names, per_class=10)
        relent()
        found = crawl(tmp_path, candidates, names, per_class=25)
    assert manifest(candidates, found) == whole(tmp_path / "whole", 25)


def test_a_crawl_that_broke_off_has_put_nothing_off(tmp_path):
    # what it left out may be asked for still: only a run that is through knows who is full
    hosts, candidates = pair()

    def report(label, outcome):
        if outcome == "ok":
            raise RuntimeError("killed")

    class Reports(list):
        def append(self, one):
            report(*one)

    with serving(*hosts) as names:
        relent = refusing(hosts[0])
        with pytest.raises(RuntimeError):
            crawl(tmp_path, candidates, names, per_class=10, reports=Reports())
        assert not (tmp_path / "later.jsonl").exists()
        relent()
        found = crawl(tmp_path, candidates, names, per_class=10)
    assert manifest(candidates, found) == whole(tmp_path / "whole", 10)


def test_what_older_versions_took_for_a_failure_is_asked_for_again(tmp_path):
    words = ["busy", "host_down", "robots_unreachable", "timeout", "connection", "too_slow"]
    host = Host({f"/{n}.jpg": image(n) for n in range(len(words) + 2)})
    with serving(host) as names:
        urls = [f"http://0.test/{n}.jpg" for n in range(len(words) + 2)]
        lines = [{"url": url, "outcome": word} for url, word in zip(urls, words, strict=False)]
        lines += [{"url": urls[-2], "outcome": "http_error", "status": 404}]
        lines += [{"url": urls[-1], "outcome": "robots"}]
        (tmp_path / "journal.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        candidates = candidates_of(urls)
        found = crawl(tmp_path, candidates, names)
        got = list(outcomes(found).values())
        assert Counter(got) == {"ok": len(words), "http_error": 1, "robots": 1}
        asked = host.images_asked()
        assert asked == len(words)
        assert crawl(tmp_path, candidates, names) == found
    assert host.images_asked() == asked


def test_rounds_that_begin_with_fewer_candidates_ask_for_nothing_again_either(tmp_path):
    # a second run begins as the first did: with so few that its class is not full yet
    hosts, candidates = pair()
    limits = LIMITS.model_copy(update={"per_class": 10})

    def run(names):
        backlog, rounds = Backlog(), (candidates[:10], candidates)
        with Journal(tmp_path) as journal:
            for few in rounds:
                web, report = Web(AGENT, names), lambda label, outcome: None
                found = module.fetch(few, limits, journal, web, report, backlog=backlog)
        return found, sum(sum(host.requests.values()) for host in hosts)

    with serving(*hosts) as names:
        relent = refusing(hosts[0])
        found, asked = run(names)
        assert Counter(outcomes(found).values())["ok"] == 10
        relent()
        assert run(names) == (found, asked)
        assert run(names) == (found, asked)


def test_another_class_asks_for_what_a_full_one_did_not_need(tmp_path):
    hosts, candidates = pair()
    with serving(*hosts) as names:
        relent = refusing(hosts[0])
        crawl(tmp_path, candidates, names, per_class=10)
        relent()
        more = [*candidates, *candidates_of(["http://0.test/0.jpg", "http://0.test/1.jpg"], 1)]
        found = crawl(tmp_path, more, names, per_class=10)
    assert [found[one].outcome for one in more[40:]] == ["ok", "ok"]


def test_the_list_of_what_was_put_off_survives_what_happens_to_files(tmp_path):
    one, other = candidates_of(["u0"], 0)[0], candidates_of(["u0"], 1)[0]
    later = {f"u{n}": Fetched(f"u{n}", "not_now", "x: 429") for n in range(3)}
    with Journal(tmp_path) as journal:
        journal.leave([(one, later["u0"], True), *((other, x, False) for x in later.values())], 5)
    with Journal(tmp_path) as journal:
        assert (journal.records, journal.put_off) == ({}, later)
        assert journal.full == {"u0": {"class 0": 5}}
        journal.add(Fetched("u1", "http_error", status=404))
        never = Fetched("u3", "not_now", "not asked: y")
        journal.leave([(other, never, False), (one, replace(never, url="u2"), True)], 7)
        assert journal.put_off == {"u0": later["u0"], "u2": later["u2"], "u3": never}
    (tmp_path / "later.tmp").write_text("cut off")
    with (tmp_path / "later.jsonl").open("ab") as file:
        file.write(b'{}\n[]\n\x00\xff\n{"url": "u9", "outc')
    with Journal(tmp_path) as journal:
        assert set(journal.put_off) == {"u0", "u2", "u3"}
        assert journal.full["u2"] == {"class 0": 7}
        assert set(journal.records) == {"u1"}
    assert not (tmp_path / "later.tmp").exists()


def test_the_summary_counts_what_the_next_run_will_ask_for(tmp_path):
    backlog, found = Backlog(), {}
    full, short = (
        candidates_of([f"http://a/{n}" for n in range(3)], 0),
        candidates_of(["http://a/0", "http://b/1", "http://b/1", "http://c/2"], 1),
    )
    for one in [*full, *short[:3]]:
        record = Fetched(one.url, "busy", "503: Busy", status=503)
        found[one] = backlog.take(record, one.url[7])
    found[full[1]] = Fetched(full[1].url, "ok", id="1")
    found[short[3]] = Fetched(short[3].url, "ok", id="2")
    why = {"why": "503: Busy", "again_at": None}
    assert backlog.summary(found, 1) == {"images": 0, "hosts": {}}
    assert backlog.summary(found, 1, frozenset("2")) == {
        "images": 2,
        "hosts": {"a": {"images": 1} | why, "b": {"images": 1} | why},
    }
    found[full[1]] = Fetched(full[1].url, "http_error")
    assert backlog.summary(found, 2)["images"] == 3  # a/0 is in both, and one address


@pytest.mark.parametrize(
    ("code", "outcome", "tries"),
    [(socket.EAI_AGAIN, "not_now", 3), (socket.EAI_NONAME, "unknown_host", 2)],
)
def test_a_name_that_does_not_exist_is_gone_and_a_lookup_that_fails_is_not(
    tmp_path, monkeypatch, code, outcome, tries
):
    asked, real = [], socket.getaddrinfo

    def lookup(host, *more, **options):
        if host == "127.0.0.1":
            return real(host, *more, **options)
        asked.append(host)
        raise socket.gaierror(code, "no")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    live = Host({"/1.jpg": image(1)})
    with serving(live) as names:
        urls = ["http://gone.example.com/1.jpg", "http://0.test/1.jpg"]
        found = crawl(tmp_path, candidates_of(urls), names, robots=False, opt_outs="none")
    assert list(outcomes(found).values()) in ([outcome, "ok"], ["ok", outcome])
    assert asked == ["gone.example.com"] * tries
    with Journal(tmp_path) as journal:
        assert (urls[0] in journal.records) == (outcome != "not_now")


def test_names_that_cannot_be_looked_up_while_nobody_answers_are_an_outage(tmp_path, monkeypatch):
    def lookup(host, *more, **options):
        raise socket.gaierror(socket.EAI_NONAME, "no")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    urls = [f"http://a{n}.example.com/1.jpg" for n in range(40)]
    with pytest.raises(ExternalError, match="the network seems to be down"):
        crawl(tmp_path, candidates_of(urls), {})
    with Journal(tmp_path) as journal:
        assert journal.records == {}


def test_a_host_whose_port_is_closed_is_asked_again_by_the_next_run(tmp_path):
    host, other, gone = Host(), Host({"/1.jpg": image(50)}), Host()
    host.routes = {f"/{n}.jpg": image(n) for n in range(10)}
    gone.server_close()
    with serving(host, other) as names:
        urls = ["http://1.test/1.jpg", *(f"http://0.test/{n}.jpg" for n in range(10))]
        closed = names | {"0.test": gone.server_address}
        found = crawl(tmp_path, candidates_of(urls), closed)
        assert Counter(outcomes(found).values()) == {"ok": 1, "not_now": 10}
        details = {one.detail for one in found.values() if one.outcome == "not_now"}
        assert all("http://0.test/robots.txt: connection: " in detail for detail in details)
        assert all(detail.startswith("not asked: ") for detail in details)
        found = crawl(tmp_path, candidates_of(urls), names)
    assert set(outcomes(found).values()) == {"ok"}


@pytest.mark.parametrize(
    ("body", "kind", "detail"),
    [
        (b"No such picture.\nAsk <us>", "text/plain", "404: No such picture."),
        (b"<html><head><title>Gone\x1b[31m</title>", "text/html", "404: Gone [31m"),
        (b"", "text/plain", "404: Not Found"),
        (b"\xff\xfe\x00", "image/jpeg", "404: Not Found"),
        (b"x" * 5000, "text/plain", "404: " + "x" * 195),
    ],
)
def test_the_first_line_of_what_a_host_says_is_kept(tmp_path, body, kind, detail):
    host = Host({"/1.jpg": reply(body, 404, Content_Type=kind)})
    with serving(host) as names:
        found = crawl(tmp_path, candidates_of(["http://0.test/1.jpg"]), names)
    assert [record.detail for record in found.values()] == [detail]


def test_little_is_read_of_what_a_host_says_and_not_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr("kd3_pipeline.crawl.exchange.REASON_PATIENCE", 0.2)
    host = Host()

    def answer(body):
        def route(request):
            request.send_response(404)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            body(request)

        return route

    def endless(request):
        request.server.sent["endless"] = 0
        for _ in range(2000):
            request.wfile.write(b"%x\r\n%s\r\n" % (50_000, b"Never\n" + bytes(49_994)))
            request.server.sent["endless"] += 50_000

    def dripping(request):
        for _ in range(100):
            request.wfile.write(b"1\r\nx\r\n")
            time.sleep(0.05)

    host.routes = {"/1.jpg": answer(endless), "/2.jpg": answer(dripping)}
    start = time.monotonic()
    with serving(host) as names:
        urls = ["http://0.test/1.jpg", "http://0.test/2.jpg"]
        found = crawl(tmp_path, candidates_of(urls), names, timeout=20.0)
    assert {one.url[-5]: one.outcome for one in found.values()} == dict.fromkeys("12", "http_error")
    details = {one.url[-5]: one.detail for one in found.values()}
    assert details["1"] == "404: Never"
    assert details["2"].startswith("404: x")
    assert host.sent["endless"] < 30 << 20  # what was sent sits in socket buffers at most
    assert time.monotonic() - start < 4
