"""Opt-outs end to end: real hosts, what their images give, and how often each file is asked for."""

import asyncio
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from kd3_pipeline.crawl.http import Client, Web
from kd3_pipeline.crawl.optouts.counts import signal_counts
from kd3_pipeline.crawl.optouts.current import CurrentSignals
from kd3_pipeline.manifest import manifest
from tests.crawl.hosts import (
    AGENT,
    LIMITS,
    Host,
    candidates_of,
    crawl,
    image,
    once,
    outcomes,
    picture,
    redirect,
    reply,
    serving,
    silent,
)
from tests.crawl.optouts import marked

ROBOTS, TDMREP, LICENCE = "/robots.txt", "/.well-known/tdmrep.json", "/license.xml"
RESERVED = reply(b'[{"location": "/i/", "tdm-reservation": 1}]')


def rsl(usage, verb="prohibits"):
    inner = f'<license><{verb} type="usage">{usage}</{verb}></license>'
    text = f'<rsl xmlns="https://rslstandard.org/rsl"><content url="/">{inner}</content></rsl>'
    return reply(text.encode())


def rules(*lines):
    return reply("\n".join(["User-agent: *", *lines]).encode())


@dataclass
class Site:
    """Routes of a host beside its two images, and what is to come of it."""

    routes: dict = field(default_factory=dict)
    kind: str = ""  # that refuses the images; "" for none
    files: tuple = (ROBOTS, TDMREP)  # asked for, once each
    images: tuple = (2,)  # requests for the two


NAMES_ONE = rules("License: http://{}/license.xml")
NAMES_ANOTHER = rules("License: http://0.test/shared.xml")
NO_TRAINING = marked.assertion({"cawg.ai_training": "notAllowed"})

SITES = {
    "silent": Site(),
    "content_signal": Site(
        {ROBOTS: rules("Content-Signal: ai-train=no")}, "content-signal", images=(0,)
    ),
    "content_usage": Site(
        {ROBOTS: rules("Content-Usage: /i/ train-ai=n")}, "content-usage", images=(0,)
    ),
    "other_path": Site({ROBOTS: rules("Content-Usage: /j/ train-ai=n")}),
    "tdmrep": Site({TDMREP: RESERVED}, "tdm-reservation"),
    "tdmrep_ill": Site({TDMREP: once(503)}),
    "tdmrep_moved": Site({TDMREP: redirect("/t.json"), "/t.json": RESERVED}, "tdm-reservation"),
    "tdmrep_hidden": Site(
        {ROBOTS: rules("Disallow: /.well-known/"), TDMREP: RESERVED}, files=(ROBOTS,)
    ),
    "header_over_file": Site({TDMREP: RESERVED, "header": {"TDM-Reservation": "0"}}),
    "header": Site({"header": {"TDM-Reservation": "1"}}, "tdm-reservation"),
    "usage_header": Site({"header": {"Content-Usage": "train-ai=n"}}, "content-usage"),
    "rsl": Site(
        {ROBOTS: NAMES_ONE, LICENCE: rsl("ai-train"), TDMREP: RESERVED},
        "rsl",
        (ROBOTS, LICENCE),
        (0,),
    ),
    "rsl_permits": Site(
        {ROBOTS: NAMES_ONE, LICENCE: rsl("all", "permits"), TDMREP: RESERVED},
        files=(ROBOTS, LICENCE),
    ),
    "rsl_of_search": Site(
        {ROBOTS: NAMES_ONE, LICENCE: rsl("search", "permits"), TDMREP: RESERVED},
        "tdm-reservation",
        (ROBOTS, LICENCE, TDMREP),
    ),
    "rsl_missing": Site({ROBOTS: NAMES_ONE}, files=(ROBOTS, LICENCE, TDMREP)),
    "rsl_elsewhere": Site({ROBOTS: NAMES_ANOTHER}, "rsl", (ROBOTS,), (0,)),
    "rsl_elsewhere_too": Site({ROBOTS: NAMES_ANOTHER}, "rsl", (ROBOTS,), (0,)),
    "rsl_forbidden": Site({ROBOTS: rules("License: http://127.0.0.1/l.xml", "License: file:///x")}),
    "link": Site(
        {
            "header": {"Link": '</license.xml>; rel="license"; type="application/rsl+xml"'},
            LICENCE: rsl("ai-train"),
        },
        "rsl",
        (ROBOTS, TDMREP, LICENCE),
        (3, 4),  # what is under way when the licence is met is asked for again
    ),
    "disallowed": Site({ROBOTS: rules("Disallow: /")}, "robots", (ROBOTS,), (0,)),
    "xmp": Site({"image": marked.with_xmp(marked.attribute("DMI-PROHIBITED"))}, "data-mining"),
    "xmp_allows": Site({"image": marked.with_xmp(marked.attribute("DMI-ALLOWED"))}),
    "c2pa": Site(
        {"image": marked.jpeg_c2pa(marked.store(NO_TRAINING))},
        "c2pa",
    ),
}


def host_of(number, site):
    routes = dict(site.routes)
    headers, data = routes.pop("header", {}), routes.pop("image", None)
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    for path in ("/i/1.jpg", "/i/2.jpg"):
        body = data or picture(10 * number + int(path[3]))
        routes[path] = reply(body, **named)
    route = routes.get(ROBOTS)
    if route is not None:

        def own(request):
            body, answer = [], request.reply
            request.reply = lambda data, *rest: body.append(data)
            route(request)
            request.reply = answer
            request.reply(body[0].decode().replace("{}", f"{number}.test").encode())

        routes[ROBOTS] = own
    return Host(routes)


@pytest.fixture(scope="module")
def crawled(tmp_path_factory):
    hosts = {name: host_of(number, site) for number, (name, site) in enumerate(SITES.items())}
    hosts["silent"].routes["/shared.xml"] = rsl("ai-all")
    urls = [f"http://{n}.test/i/{i}.jpg" for n in range(len(hosts)) for i in (1, 2)]
    candidates, folder = candidates_of(urls), tmp_path_factory.mktemp("optouts")
    with serving(*hosts.values()) as names:
        found = crawl(folder, candidates, names, timeout=5.0)
        again = {name: host.requests.copy() for name, host in hosts.items()}
        assert crawl(folder, candidates, names, timeout=5.0) == found
        assert again == {name: host.requests for name, host in hosts.items()}
    records = {candidate.url: record for candidate, record in found.items()}
    return records, hosts, manifest(candidates, found)


@pytest.mark.parametrize("name", SITES)
def test_a_site_is_taken_as_it_says_and_asked_for_little(crawled, name):
    records, hosts, _ = crawled
    site, number, asked = SITES[name], list(SITES).index(name), dict(hosts[name].requests)
    for i in (1, 2):
        record = records[f"http://{number}.test/i/{i}.jpg"]
        if site.kind == "robots":
            assert record.outcome == "robots"
        elif site.kind:
            assert record.outcome == "opted_out"
            assert record.detail.lower().startswith(f"{site.kind}: ")
            assert any(line.endswith("(prohibits)") for line in record.signals.splitlines())
        else:
            assert record.outcome == "ok"
    assert sum(asked.pop(f"/i/{i}.jpg", 0) for i in (1, 2)) in site.images
    if name == "silent":
        assert asked.pop("/shared.xml") == 1  # named by two others
    if name == "tdmrep_ill":
        assert asked.pop(TDMREP) == 2
        asked[TDMREP] = 1
    if name == "tdmrep_moved":
        assert asked.pop("/t.json") == 1
    assert asked == dict.fromkeys(site.files, 1)


def test_signals_are_in_the_manifest_and_counted(crawled):
    records, _, table = crawled
    number = list(SITES).index("xmp_allows")
    assert records[f"http://{number}.test/i/1.jpg"].signals == (
        "data-mining: XMP plus:DataMining: DMI-ALLOWED"
    )
    counts = signal_counts(table)
    wanted = {}
    for site in SITES.values():
        if site.kind not in ("", "robots"):
            wanted[site.kind] = wanted.get(site.kind, 0) + 2
    assert counts["refused"] == wanted
    assert counts["seen"]["data-mining"] == 4
    assert counts["seen"]["rsl"] > counts["refused"]["rsl"]
    assert signal_counts(pa.table({"outcome": ["ok"], "detail": [None], "signals": [None]})) == {
        "seen": {},
        "refused": {},
    }


def test_kinds_that_are_not_obeyed_are_seen_and_asked_again_when_they_change(tmp_path):
    host = Host({ROBOTS: rules("Content-Signal: ai-train=no"), "/a.jpg": image(1)})
    header = {"X_Robots_Tag": "noai"}
    host.routes["/b.jpg"] = reply(picture(2), **header)
    candidates = candidates_of(["http://0.test/a.jpg", "http://0.test/b.jpg"])
    steps = [
        ("all", ["opted_out", "opted_out"], 0),
        (["x-robots-tag"], ["ok", "opted_out"], 2),
        ("none", ["ok", "ok"], 1),
        (["x-robots-tag"], ["ok", "opted_out"], 0),  # by what is on record
        ("all", ["opted_out", "opted_out"], 0),
    ]
    with serving(host) as hosts:
        for opt_outs, wanted, asked in steps:
            before = host.images_asked()
            found = crawl(tmp_path, candidates, hosts, opt_outs=opt_outs)
            assert [found[one].outcome for one in candidates] == wanted
            assert host.images_asked() - before == asked
    assert "content-signal: robots.txt: ai-train=no (prohibits)" in found[candidates[0]].signals


def test_ai_crawlers_by_name_close_a_site_only_if_wanted(tmp_path):
    text = b"User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /i/\n"
    host = Host({ROBOTS: reply(text), "/i/1.jpg": image(1), "/j/1.jpg": image(2)})
    candidates = candidates_of(["http://0.test/i/1.jpg", "http://0.test/j/1.jpg"])
    with serving(host) as hosts:
        found = crawl(tmp_path / "1", candidates, hosts)
        assert [found[one].outcome for one in candidates] == ["ok", "ok"]
        found = crawl(tmp_path / "2", candidates, hosts, ai_agents=True)
    assert [found[one].outcome for one in candidates] == ["opted_out", "ok"]
    assert found[candidates[0]].detail == "ai-agents: robots.txt: disallows ccbot, gptbot"


def test_a_redirect_is_judged_where_it_leads(tmp_path):
    first = Host({"/a.jpg": redirect("http://1.test/b.jpg")})
    second = Host({TDMREP: reply(b'[{"location": "/", "tdm-reservation": 1}]'), "/b.jpg": image(1)})
    with serving(first, second) as hosts:
        found = crawl(tmp_path, candidates_of(["http://0.test/a.jpg"]), hosts)
    assert list(outcomes(found).values()) == ["opted_out"]
    assert first.requests == {ROBOTS: 1, TDMREP: 1, "/a.jpg": 1}
    assert second.requests == {ROBOTS: 1, TDMREP: 1, "/b.jpg": 1}


def test_a_licence_that_never_comes_holds_up_its_site_alone(tmp_path):
    slow = Host({ROBOTS: rules("License: http://1.test/l.xml"), "/a.jpg": image(1)})
    with serving(slow, Host({"/l.xml": silent(1.5)}), Host({"/b.jpg": image(2)})) as hosts:
        urls = ["http://0.test/a.jpg", "http://2.test/b.jpg"]
        found = crawl(tmp_path, candidates_of(urls), hosts)
    assert outcomes(found) == dict.fromkeys(urls, "ok")
    record = next(one for one in found.values() if one.url == urls[0])
    assert record.signals.startswith("rsl: http://1.test/l.xml: it cannot be read: timeout")


def test_a_host_that_names_a_licence_after_the_other_is_asked_for_few(tmp_path):
    host = Host()
    for n in range(30):
        link = f'</l{n}.xml>; rel="license"; type="application/rsl+xml"'
        host.routes |= {f"/{n}.jpg": reply(picture(n), Link=link), f"/l{n}.xml": rsl("search")}
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates_of([f"http://0.test/{n}.jpg" for n in range(30)]), hosts)
    assert set(outcomes(found).values()) == {"ok"}
    assert sum(count for path, count in host.requests.items() if path.endswith(".xml")) == 6
    assert sum("not read: too many" in record.signals for record in found.values()) == 24


def rechecked(hosts, urls, **changes):
    """What each address says now, all asked at once."""

    async def ask():
        async with Client(Web(AGENT, hosts)) as client:
            recheck = CurrentSignals(client, LIMITS.model_copy(update=changes))
            return await asyncio.gather(*(recheck.address(url) for url in urls))

    return asyncio.run(ask())


def test_a_recheck_says_the_same_without_asking_for_bytes(crawled):
    records, _, _ = crawled
    hosts = {name: host_of(number, site) for number, (name, site) in enumerate(SITES.items())}
    hosts["silent"].routes["/shared.xml"] = rsl("ai-all")
    with serving(*hosts.values()) as names:
        found = dict(zip(records, rechecked(names, list(records), timeout=5.0), strict=True))
    for url, record in records.items():
        if record.outcome == "robots":
            assert found[url].refusal == f"robots: {record.detail}"
        elif record.detail.startswith(("data-mining", "c2pa")):
            assert found[url].refusal == ""
        else:
            assert found[url].refusal == record.detail
        assert found[url].problem == ""
    for host in hosts.values():
        images = {path: count for path, count in host.requests.items() if path.startswith("/i/")}
        assert images == {path: host.heads[path] for path in images}
        assert all(host.requests[path] <= 1 for path in (ROBOTS, TDMREP, LICENCE, "/shared.xml"))


def test_what_a_recheck_cannot_know_closes_nothing():
    ill = Host({ROBOTS: reply(b"", 503), "/a.jpg": image(1)})
    routes = {"/gone.jpg": reply(b"", 410), "/busy.jpg": reply(b"", 503), "/a.jpg": image(1)}
    hosts = [ill, Host(routes | {"/silent.jpg": silent(1.5), "/loop": redirect("/loop")})]
    with serving(*hosts) as names:
        urls = ["http://0.test/a.jpg", "http://0.test/b.jpg", "http://1.test/gone.jpg"]
        urls += ["http://1.test/busy.jpg", "http://1.test/a.jpg", "http://1.test/silent.jpg"]
        urls += ["http://1.test/loop", "http://127.0.0.1/a.jpg", "http://[", "x.jpg"]
        found = rechecked(names, urls)
    assert {one.refusal for one in found} == {""}
    assert [bool(one.problem) for one in found] == [True, True, False, True, False, *[True] * 5]
    assert [one.gone for one in found].index(True) == 2
    assert ill.requests == {ROBOTS: 1}


def test_a_mark_on_record_is_not_forgotten_by_a_recheck():
    recorded = "data-mining: XMP plus:DataMining: DMI-PROHIBITED (prohibits)"

    async def ask(**changes):
        async with Client(Web(AGENT, {})) as client:
            recheck = CurrentSignals(client, LIMITS.model_copy(update=changes))
            return await recheck.address("http://127.0.0.1/", recorded)

    assert asyncio.run(ask()).refusal == "data-mining: XMP plus:DataMining: DMI-PROHIBITED"
    assert asyncio.run(ask(opt_outs=["rsl"])).refusal == ""
