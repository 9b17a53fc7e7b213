import asyncio
import gzip
import io
import json
import math
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline import memory
from kd3_pipeline.crawl import decoding, scheduler
from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.http import Lookups, Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.formats import FORMATS, readable
from kd3_pipeline.manifest import manifest
from kd3_pipeline.picturefile import Heavy
from tests.crawl.hosts import (
    AGENT,
    DECLARATIONS,
    LIMITS,
    Host,
    candidates_of,
    certificates,
    chunks,
    crawl,
    image,
    once,
    outcomes,
    picture,
    png_claiming,
    raw,
    redirect,
    reply,
    serving,
    silent,
)

ROOT = Path(__file__).parents[2]
JPEG = picture(1000)


@pytest.fixture
def hasty(monkeypatch):
    """Shorter pauses, so that nobody waits for them."""
    monkeypatch.setattr(module, "BACK_OFF", 0.05)
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.05)


# one crawl of every kind of fault: path -> (route, outcome, times asked)


def big_by_length(request):
    request.send_response(200)
    request.send_header("Content-Length", "400000000")
    request.end_headers()
    for _ in range(400):
        request.wfile.write(bytes(1 << 20))
        request.server.sent[request.path] += 1 << 20


def ends_early(headers):
    return raw(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (headers, JPEG[:300]))


def encoded(mode, kind, **options):
    """A picture of this mode."""
    out = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 256, (40, 40, 4), dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(pixels, "RGBA").convert(mode)
    picture.save(out, kind, **options)
    return out.getvalue()


FRAMES = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
FAULTS = {
    "/ok.jpg": (image(1), "stored", 1),
    "/ok.png": (image(2, "PNG"), "stored", 1),
    "/ok.webp": (image(3, "WEBP"), "stored", 1),
    "/ok.gif": (image(4, "GIF"), "stored", 1),
    "/ok.bmp": (image(5, "BMP"), "stored", 1),
    "/cmyk.jpg": (reply(encoded("CMYK", "JPEG")), "stored", 1),
    "/grey16.png": (reply(encoded("I;16", "PNG")), "stored", 1),
    "/animated.gif": (
        reply(encoded("RGB", "GIF", save_all=True, append_images=FRAMES)),
        "stored",
        1,
    ),
    "/named.html": (image(6), "stored", 1),
    "/said-to-be.html": (reply(picture(13), Content_Type="text/html"), "stored", 1),
    "/same-bytes.jpg": (image(1), "duplicate", 1),
    "/missing.jpg": (reply(b"no", 404), "http_error", 1),
    "/gone.jpg": (reply(b"no", 410), "http_error", 1),
    "/forbidden.jpg": (reply(b"no", 403), "http_error", 1),
    "/empty-204.jpg": (reply(b"", 204), "http_error", 1),
    "/empty.jpg": (reply(b""), "not_an_image", 1),
    "/408.jpg": (reply(b"late", 408), "not_now", 3),
    "/500.jpg": (reply(b"oops", 500), "not_now", 3),
    "/501.jpg": (reply(b"oops", 501), "http_error", 1),
    "/522.jpg": (reply(b"oops", 522), "not_now", 3),
    "/526.jpg": (reply(b"oops", 526), "http_error", 1),
    "/999.jpg": (reply(b"no robots", 999), "http_error", 1),
    "/425.jpg": (reply(b"early", 425), "not_now", 3),
    "/403-later.jpg": (once(403, 105, Retry_After="0.2"), "http_error", 1),
    "/403-pause.jpg": (once(403, 105, Retry_After="0"), "stored", 2),
    "/429.jpg": (reply(b"slow down", 429, Retry_After="0"), "not_now", 4),
    "/o1.jpg": (once(503, 101, Retry_After="0.2"), "stored", 2),
    "/o2.jpg": (once(503, 102, Retry_After="nan"), "stored", 2),
    "/o3.jpg": (once(503, 103, Retry_After="-1e999"), "stored", 2),
    "/o4.jpg": (once(429, 104, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), "stored", 2),
    "/o5.jpg": (reply(b"", 429, Retry_After="Wed, 21 Oct 2037 07:28:00 GMT"), "not_now", 1),
    "/o6.jpg": (reply(b"", 503, Retry_After="3600"), "not_now", 1),
    "/o7.jpg": (reply(b"", 503, Retry_After="9" * 400), "not_now", 1),
    "/truncated.jpg": (reply(JPEG[: len(JPEG) // 2]), "truncated", 1),
    "/short.jpg": (ends_early(b"Content-Length: %d" % len(JPEG)), "truncated", 3),
    "/half-chunk.jpg": (ends_early(b"Transfer-Encoding: chunked\r\n\r\n500"), "truncated", 3),
    "/html.jpg": (reply(b"<!doctype html><title>sign in</title>"), "not_an_image", 1),
    "/drawing.svg": (
        reply(b'<svg xmlns="http://www.w3.org/2000/svg"/>', Content_Type="image/svg+xml"),
        "not_an_image",
        1,
    ),
    "/pixel.gif": (reply(picture(7, "GIF", 1)), "too_small", 1),
    "/bomb.png": (reply(png_claiming(30_000, 30_000)), "too_many_pixels", 1),
    "/gzip.jpg": (reply(gzip.compress(JPEG), Content_Encoding="gzip"), "stored", 1),
    "/gzip-bomb.jpg": (
        reply(zlib.compress(bytes(50_000_000)), Content_Encoding="deflate"),
        "too_large",
        1,
    ),
    "/identity.jpg": (reply(picture(14), Content_Encoding="identity"), "stored", 1),
    "/big.jpg": (big_by_length, "too_large", 1),
    "/endless.jpg": (chunks(bytes(50_000)), "too_large", 1),
    "/slow.jpg": (chunks(b"x", 0.05, 60), "not_now", 2),
    "/silent.jpg": (silent(2.5), "not_now", 2),
    "/reset.jpg": (raw(b""), "not_now", 3),
    "/garbage.jpg": (raw(b"\x00\xff" * 400), "malformed", 3),
    "/endless-header.jpg": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "malformed", 3),
    "/reason.jpg": (
        raw(b"HTTP/1.1 404 \xff\xfe\xed\xa0\x80\r\nContent-Length: 0\r\n\r\n"),
        "http_error",
        1,
    ),
    "/led.jpg": (redirect("/target.jpg"), "stored", 1),
    "/target.jpg": (image(8), "duplicate", 1),
    "/far.jpg": (redirect("http://1.test/far.jpg", 301), "stored", 1),
    "/five.jpg": (redirect("/4.jpg"), "stored", 1),
    "/ten.jpg": (redirect("/9.jpg"), "too_many_redirects", 1),
    "/loop.jpg": (redirect("/loop.jpg", 307), "too_many_redirects", 6),
    "/nowhere.jpg": (reply(b"", 302), "http_error", 1),
    "/inside.jpg": (redirect("http://127.0.0.1:{port}/x.jpg"), "forbidden_address", 1),
    "/file.jpg": (redirect("file:///etc/passwd"), "forbidden_address", 1),
    "/ftp.jpg": (redirect("ftp://0.test/x.jpg"), "forbidden_address", 1),
    "/noai.jpg": (reply(picture(9), X_Robots_Tag="noai"), "opted_out", 1),
    "/bot-noai.jpg": (
        reply(picture(9), X_Robots_Tag="kd3-pipeline: noimageai"),
        "opted_out",
        1,
    ),
    "/other-noai.jpg": (reply(picture(9), X_Robots_Tag="other: noimageai"), "stored", 1),
    "/tdm.jpg": (reply(picture(9), TDM_Reservation="1"), "opted_out", 1),
    "/cookie.jpg": (
        lambda request: request.reply(
            picture(10), 200, {"Set-Cookie": "a=b; Path=/; Max-Age=9999"}
        ),
        "stored",
        1,
    ),
}
GOOD = ("stored", "duplicate")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Every fault has a name of its own, since some of them slow a host down."""
    folder = tmp_path_factory.mktemp("faulty")
    host, other, secret = Host(), Host({"/far.jpg": image(11)}), Host()
    secret.otherwise = image(0)
    with serving(host, other, secret) as hosts, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "FIRST_PAUSE", 0.05)
        patch.setattr(module, "BACK_OFF", 0.05)
        port = hosts.pop("2.test")[1]
        routes = {path: route for path, (route, _, _) in FAULTS.items()}
        routes["/inside.jpg"] = redirect(f"http://127.0.0.1:{port}/x.jpg")
        routes |= {f"/{n}.jpg": redirect(f"/{n - 1}.jpg") for n in range(1, 10)}
        routes["/0.jpg"] = image(12)
        host.routes = routes
        urls = [f"http://f{n}.test{path}" for n, path in enumerate(FAULTS)]
        hosts |= {f"f{n}.test": hosts["0.test"] for n in range(len(FAULTS))}
        candidates, reports = candidates_of(urls), []
        start = time.monotonic()
        limits = {"timeout": 1.5, "patience": 0.3}
        found = crawl(folder, candidates, hosts, reports=reports, **limits)
        took = time.monotonic() - start
        first, headers = Counter(host.requests), list(host.headers)
        again = crawl(folder, candidates, hosts, **limits)
        second = Counter(host.requests) - first
        repeat = frozenset(["truncated", "5xx", "404"])
        retried = crawl(folder, candidates, hosts, retry=repeat, **limits)
        third = Counter(host.requests) - first - second
    return {
        "table": manifest(candidates, found),
        "reports": reports,
        "requests": first,
        "headers": headers,
        "again": manifest(candidates, again),
        "second": second,
        "retried": manifest(candidates, retried),
        "third": third,
        "sent": host.sent,
        "secret": secret,
        "folder": folder,
        "took": took,
    }


@pytest.mark.parametrize("path", FAULTS)
def test_each_fault_has_its_outcome(faulty, path):
    row = faulty["table"].to_pylist()[list(FAULTS).index(path)]
    assert row["outcome"] == FAULTS[path][1], row["detail"]


def test_each_fault_is_asked_for_as_often_as_it_deserves(faulty):
    asked = {path: faulty["requests"][path] for path in FAULTS}
    # one more leads to the target; aiohttp asks twice where a connection just ends
    asked |= {"/target.jpg": asked["/target.jpg"] - 1, "/reset.jpg": asked["/reset.jpg"] / 2}
    assert asked == {path: times for path, (_, _, times) in FAULTS.items()}
    assert faulty["requests"]["/robots.txt"] == len(FAULTS)


def test_every_candidate_is_in_the_manifest_once_and_in_order(faulty):
    urls = faulty["table"]["url"].to_pylist()
    assert [urlsplit(url).path for url in urls] == list(FAULTS)
    assert faulty["table"]["rank"].to_pylist() == list(range(len(FAULTS)))


def test_every_candidate_is_reported_once(faulty):
    words = Counter(faulty["table"]["outcome"].to_pylist())
    words["ok"] = words.pop("stored")
    assert Counter(outcome for _, outcome in faulty["reports"]) == words


def test_a_manifest_row_says_where_the_image_came_from(faulty):
    rows = {urlsplit(row["url"]).path: row for row in faulty["table"].to_pylist()}
    far = rows["/far.jpg"]
    assert (far["final_url"], far["status"]) == ("http://1.test/far.jpg", 200)
    assert far["fetched_at"].endswith("+00:00")
    assert far["size"] == len(picture(11))
    assert rows["/missing.jpg"]["status"] == 404
    assert rows["/500.jpg"]["status"] == 500
    assert rows["/noai.jpg"]["detail"] == "X-Robots-Tag: noai"
    assert rows["/big.jpg"]["size"] == 400_000_000
    # the client hands on what has come meanwhile, two of its buffers at most
    assert 0 < rows["/endless.jpg"]["size"] - LIMITS.max_bytes < 2**20
    assert [name for name, row in rows.items() if bool(row["id"]) != (row["outcome"] in GOOD)] == []


def test_large_answers_are_cut_off_early(faulty):
    # what was sent sits in socket buffers at most
    assert faulty["sent"]["/big.jpg"] < 30 << 20
    assert faulty["sent"]["/endless.jpg"] < 30 << 20


def test_a_redirect_to_loopback_reaches_nothing(faulty):
    assert faulty["secret"].requests == {}


def test_cookies_are_never_sent_back(faulty):
    assert [names for names in faulty["headers"] if "Cookie" in names] == []


def test_requests_say_who_asks_and_want_plain_bytes(faulty):
    assert {headers["User-Agent"] for headers in faulty["headers"]} == {AGENT}
    assert {headers["Accept-Encoding"] for headers in faulty["headers"]} == {"identity"}


def test_hosts_are_asked_for_what_is_read_and_last_for_anything_else(tmp_path):
    host = Host({"/a.jpg": image(1)})
    with serving(host) as hosts:
        crawl(tmp_path, candidates_of(["http://0.test/a.jpg"]), hosts)
    (asked,) = [headers["Accept"] for headers in host.headers if headers["Accept"] != "*/*"]
    *kinds, rest = asked.split(",")
    assert set(kinds) == {f"image/{kind.lower()}" for kind in readable(FORMATS)}
    assert rest == "*/*;q=0.1"


def test_a_host_that_gives_only_who_takes_its_own_type_gives_to_us_as_to_browsers(tmp_path):
    def strict(request):  # it calls its pictures by no name of ours
        takes = [one.partition(";")[0].strip() for one in request.headers["Accept"].split(",")]
        good = {"image/jpg", "image/*", "*/*"} & set(takes)
        reply(b"", 406)(request) if not good else image(1)(request)

    host = Host({"/a.jpg": strict})
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates_of(["http://0.test/a.jpg"]), hosts)
    assert list(outcomes(found).values()) == ["ok"]


def test_every_stored_object_is_what_its_name_says(faulty):
    names = set(faulty["table"]["id"].to_pylist()) - {None}
    with Journal(faulty["folder"]) as journal:
        for name in names:
            assert journal.keep(journal.path(name).read_bytes()) == name
    kept = [path.name for path in faulty["folder"].rglob("objects/**/*") if path.is_file()]
    assert sorted(kept) == sorted(names)  # no more, and nothing half


def put_off(faulty):
    """Paths of what was refused for now."""
    rows = faulty["table"].to_pylist()
    return {urlsplit(row["url"]).path for row in rows if row["outcome"] == "not_now"}


def test_a_second_run_asks_for_what_was_refused_for_now_and_gives_the_same(faulty):
    paths = put_off(faulty)
    assert len(paths) == sum(outcome == "not_now" for _, outcome, _ in FAULTS.values()) > 9
    asked = {path: faulty["requests"][path] for path in paths}
    assert faulty["second"] == asked | dict.fromkeys(DECLARATIONS, len(paths))
    assert faulty["again"] == faulty["table"]


def test_what_was_refused_for_now_says_by_whom_and_why(faulty):
    details = {
        urlsplit(row["url"]).path: row["detail"].partition(": ")[2]
        for row in faulty["table"].to_pylist()
        if row["outcome"] == "not_now"
    }
    assert details["/429.jpg"] == "429: slow down"
    assert details["/408.jpg"] == "408: late"
    assert details["/o5.jpg"] == "429: Too Many Requests"  # without a body the standard's words
    assert details["/silent.jpg"] == "timeout: 1.5 s"
    assert details["/reset.jpg"].startswith("connection: ")


def test_the_journal_has_no_record_of_what_was_refused_for_now(faulty):
    paths = put_off(faulty)
    with Journal(faulty["folder"]) as journal:
        known = {urlsplit(url).path for url in journal.records}
        assert known == {*FAULTS} - paths
        assert {urlsplit(url).path for url in journal.put_off} == paths


def test_failures_that_are_named_are_tried_again_and_no_others(faulty):
    rows = faulty["table"].to_pylist()
    named = {
        urlsplit(row["url"]).path
        for row in rows
        if row["outcome"] in ("not_now", "truncated")
        or row["status"] == 404
        or 500 <= (row["status"] or 0) < 600
    }
    assert {"/missing.jpg", "/501.jpg", "/short.jpg"} <= named
    assert set(faulty["third"]) == named | set(DECLARATIONS)
    assert faulty["retried"] == faulty["table"]


def test_faults_do_not_hold_up_the_rest(faulty):
    assert faulty["took"] < 8


# the specification of 91 addresses


def test_91_addresses_give_55_rows_and_53_images(tmp_path, hasty):
    host, secret = Host(), Host()
    secret.otherwise = image(0)

    kinds = {  # three of each: route, outcome, requests
        "duplicate": (lambda n: image(500), "ok", 1),
        "503-once": (lambda n: once(503, 200 + n), "ok", 2),
        "cookie": (
            lambda n: lambda r: r.reply(picture(300 + n), 200, {"Set-Cookie": "a=b"}),
            "ok",
            1,
        ),
        "redirect": (lambda n: redirect(f"/to/{n}"), "ok", 1),
        "slow": (lambda n: image(100 + n, seconds=0.5), "ok", 1),
        "404": (lambda n: reply(b"", 404), "http_error", 1),
        "500": (lambda n: reply(b"", 500), "not_now", 3),
        "429": (lambda n: reply(b"", 429), "not_now", 4),  # until the pauses exceed the patience
        "truncated": (lambda n: reply(JPEG[: len(JPEG) // 2]), "truncated", 1),
        # a body that ends early is tried again as a connection that was reset
        "short": (lambda n: ends_early(b"Content-Length: 9999"), "truncated", 3),
        "html": (lambda n: reply(b"<html>"), "not_an_image", 1),
        "svg": (lambda n: reply(b"<svg/>"), "not_an_image", 1),
        "bomb": (lambda n: reply(png_claiming(10_000, 10_000)), "too_many_pixels", 1),
        "pixel": (lambda n: reply(picture(7, "GIF", 1)), "too_small", 1),
        "loop": (lambda n: redirect(f"/loop/{n}"), "too_many_redirects", 6),
        "private": (lambda n: redirect("http://127.0.0.1:{port}/x.jpg"), "forbidden_address", 1),
        "noai": (lambda n: reply(picture(9), X_Robots_Tag="noai"), "opted_out", 1),
    }
    paths = [f"/good/{n}" for n in range(40)]
    routes = {path: image(n) for n, path in enumerate(paths)}
    routes |= {f"/to/{n}": image(400 + n) for n in range(3)}
    with serving(host, secret) as hosts:
        port = hosts.pop("1.test")[1]
        for kind, (route, _, _) in kinds.items():
            for n in range(3):
                paths.append(f"/{kind}/{n}")
                routes[paths[-1]] = route(n)
        for n in range(3):
            routes[f"/private/{n}"] = redirect(f"http://127.0.0.1:{port}/x.jpg")
        host.routes = routes
        # as many hosts as there are kinds; those that are slowed down are not in others' way
        urls = [f"http://h{path.split('/')[1]}{path[-1]}.test{path}" for path in paths]
        hosts |= {urlsplit(url).hostname: hosts["0.test"] for url in urls}
        found = crawl(tmp_path, candidates_of(urls), hosts, timeout=2.0, patience=0.5)
    assert len(found) == 91
    got = {urlsplit(url).path: outcome for url, outcome in outcomes(found).items()}
    assert got == {f"/good/{n}": "ok" for n in range(40)} | {
        f"/{kind}/{n}": outcome for kind, (_, outcome, _) in kinds.items() for n in range(3)
    }
    assert Counter(got.values())["ok"] == 55
    assert len({record.id for record in found.values()} - {None}) == 53
    assert len([path for path in tmp_path.rglob("objects/*/*") if path.is_file()]) == 53
    assert {path: host.requests[path] for path in paths[40:]} == {
        f"/{kind}/{n}": asked for kind, (_, _, asked) in kinds.items() for n in range(3)
    }
    assert {host.requests[path] for path in paths[:40]} == {1}
    assert secret.requests == {}
    assert [names for names in host.headers if "Cookie" in names] == []


# more faults


def test_a_body_that_drips_is_given_up_without_a_second_try(tmp_path, monkeypatch):
    monkeypatch.setattr("kd3_pipeline.crawl.exchange.PATIENCE", 0.3)
    host = Host(
        {
            "/drip.jpg": chunks(b"x" * 100, 0.05, 40),
            "/slow.jpg": chunks(JPEG[:1] * 1500, 0.05, 20),  # fast enough, though no image
        }
    )
    with serving(host) as hosts:
        urls = ["http://0.test/drip.jpg", "http://0.test/slow.jpg"]
        found = crawl(tmp_path, candidates_of(urls), hosts, timeout=5.0)
    assert list(outcomes(found).values()) == ["not_now", "not_an_image"]
    assert next(iter(found.values())).detail.startswith("0.test: too_slow: ")
    assert host.requests["/drip.jpg"] == 1


def test_https_is_asked_of_those_only_who_prove_their_name(tmp_path):
    (tmp_path / "other").mkdir()
    server, client = certificates(tmp_path, "0.test")
    unknown, _ = certificates(tmp_path / "other", "2.test")
    routes = {f"/{n}.jpg": image(n) for n in range(3)}
    secure, misnamed, strange = (Host(dict(routes), tls) for tls in (server, server, unknown))
    with serving(secure, misnamed, strange) as hosts:
        urls = [f"https://{n}.test/{n}.jpg" for n in range(3)]
        candidates = candidates_of(urls)
        found = crawl(
            tmp_path / "journal", candidates, hosts, tls=client, robots=False, opt_outs="none"
        )
    got = [found[candidate] for candidate in candidates]
    assert [record.outcome for record in got] == ["ok", "certificate", "certificate"]
    assert all("certificate verify failed" in record.detail for record in got[1:])
    assert secure.requests == {"/0.jpg": 1}
    assert misnamed.requests == strange.requests == {}


PROGRAM = """
import json, re, sys
from pathlib import Path
from kd3_pipeline.manifest import Candidate
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.params import Crawl

told = json.load(sys.stdin)
with Journal(Path(told["folder"])) as journal:
    candidates = [Candidate(*values) for values in told["candidates"]]
    params = Crawl(**told["params"])
    found = fetch(candidates, params, journal, Web("x", told["hosts"]), lambda *_: None)
good = sum(record.outcome == "ok" for record in found.values())
print(good, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def started(folder, candidates, hosts, **limits):
    """A process that fetches these."""
    told = {
        "folder": str(folder),
        "hosts": hosts,
        "params": LIMITS.model_dump() | limits,
        "candidates": [
            [getattr(candidate, name) for name in candidate.__slots__] for candidate in candidates
        ],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    process.stdin.write(json.dumps(told))
    process.stdin.close()
    process.stdin = None
    return process


def test_a_name_whose_lookup_hangs_delays_neither_others_nor_the_end():
    over = threading.Event()

    async def look_up():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Lookups())
        for _ in range(100):
            loop.run_in_executor(None, over.wait, 10)
        return await loop.run_in_executor(None, int, "7")

    start = time.monotonic()
    assert asyncio.run(look_up()) == 7
    assert time.monotonic() - start < 5
    over.set()


def test_huge_bodies_and_pictures_do_not_fill_the_memory(tmp_path):
    routes = {f"/{n}.jpg": image(n) for n in range(100)}
    routes |= {f"/big-{n}.jpg": chunks(bytes(1 << 20), most=300) for n in range(4)}
    routes["/bomb.png"] = reply(png_claiming(20_000, 20_000))
    host = Host(routes)
    with serving(host) as hosts:
        urls = [f"http://0.test{path}" for path in reversed(routes)]
        process = started(
            tmp_path, candidates_of(urls), hosts, max_bytes=20 << 20, timeout=20, min_side=1
        )
        said, errors = process.communicate(timeout=60)
    good, memory = map(int, said.split())
    assert (good, errors) == (100, "")
    assert memory < 300_000  # KiB


# which candidates are needed


def two_classes():
    """URLs of two classes; every fifth is missing, some images come twice, some in both."""
    routes = {}
    for label in (0, 1):
        for rank in range(60):
            index = rank - 2 if rank % 7 == 3 else rank + 1000 * (label and rank % 9 > 0)
            route = reply(b"", 404) if rank % 5 == 2 else image(index)
            routes[f"/{label}/{rank}.jpg"] = route
    candidates = [
        candidate
        for label in (0, 1)
        for candidate in candidates_of(
            [f"http://{rank % 3}.test/{label}/{rank}.jpg" for rank in range(60)], label
        )
    ]
    return routes, candidates


def delayed(routes, seed, most=0.03):
    rng = random.Random(seed)

    def slow(route, seconds):
        def late(request):
            time.sleep(seconds)
            route(request)

        return late

    return {path: slow(route, rng.uniform(0, most)) for path, route in routes.items()}


def test_the_result_does_not_depend_on_latencies(tmp_path):
    routes, candidates = two_classes()
    tables = []
    for seed in range(3):
        with serving(*(Host(delayed(routes, seed)) for _ in range(3))) as hosts:
            found = crawl(tmp_path / str(seed), candidates, hosts, per_class=20)
            tables.append(manifest(candidates, found))
    assert tables[0] == tables[1] == tables[2]
    rows = tables[0].to_pylist()
    for label in (0, 1):
        of_class = [row for row in rows if row["label"] == label]
        needed = [row for row in of_class if row["outcome"] != "not_needed"]
        assert needed == of_class[: len(needed)]
        assert len({row["id"] for row in needed} - {None}) == 20
        earlier = {row["id"] for row in needed[:-1]} - {None}
        assert len(earlier) == 19  # not one candidate more than it takes
        assert Counter(row["outcome"] for row in of_class)["not_needed"] == 60 - len(needed)


def test_nothing_is_asked_for_beyond_what_is_needed(tmp_path):
    host = Host({f"/{n}.jpg": image(n) for n in range(100)})
    with serving(host) as hosts:
        candidates = candidates_of([f"http://0.test/{n}.jpg" for n in range(100)])
        assert len(crawl(tmp_path, candidates, hosts, per_class=7)) == 7
        assert host.images_asked() == 7
        # more are wanted: only those are asked for that are missing
        assert len(crawl(tmp_path, candidates, hosts, per_class=11)) == 11
    assert host.images_asked() == 11
    assert set(host.requests.values()) <= {1, 2}  # robots.txt once a run


def test_images_that_are_refused_do_not_count(tmp_path):
    host = Host({f"/{n}.jpg": image(n % 3) for n in range(6)})
    with serving(host) as hosts:
        candidates = candidates_of([f"http://0.test/{n}.jpg" for n in range(6)])
        first = crawl(tmp_path, candidates, hosts, per_class=1)
        refused = frozenset(record.id for record in first.values())
        reports = []
        found = crawl(tmp_path, candidates, hosts, per_class=2, refused=refused, reports=reports)
    assert [outcome for _, outcome in reports] == ["placeholder", "ok", "ok"]
    assert len(found) == 3


def test_addresses_that_differ_in_their_fragment_are_one(tmp_path):
    host = Host({"/a.jpg": image(1)})
    with serving(host) as hosts:
        candidates = candidates_of([f"http://0.test/a.jpg{end}" for end in ("#1", "#2", "", "#")])
        found = crawl(tmp_path, candidates, hosts, per_class=4)
        again = crawl(tmp_path, candidates, hosts, per_class=4)
    assert host.images_asked() == 1
    assert [record.outcome for record in found.values()] == ["ok"] * 4
    assert again == found
    rows = manifest(candidates, found).to_pylist()
    assert [row["url"] for row in rows] == [candidate.url for candidate in candidates]
    assert [row["outcome"] for row in rows] == ["stored", *["duplicate"] * 3]


def test_one_address_in_two_classes_is_asked_for_once(tmp_path):
    host = Host({"/x.jpg": image(1), "/y.jpg": reply(b"", 404)})
    with serving(host) as hosts:
        urls = ["http://0.test/x.jpg", "http://0.test/y.jpg", "http://0.test/x.jpg"]
        both = [*candidates_of(urls, 0), *candidates_of(urls, 1)]
        reports = []
        found = crawl(tmp_path, both, hosts, reports=reports)
    outcomes = [record.outcome for record in found.values()]
    assert sorted(outcomes) == ["http_error"] * 2 + ["ok"] * 4
    assert (host.requests["/x.jpg"], host.requests["/y.jpg"]) == (1, 1)
    assert sorted(reports) == [  # it counts for both
        (label, outcome) for label in (0, 1) for outcome in ("duplicate", "http_error", "ok")
    ]


def test_an_address_that_only_another_class_needed_is_not_needed(tmp_path):
    host = Host({"/a.jpg": image(1), "/b.jpg": image(2)})
    with serving(host) as hosts:
        both = [
            *candidates_of(["http://0.test/a.jpg", "http://0.test/b.jpg"], 0),
            *candidates_of(["http://0.test/b.jpg"], 1),
        ]
        found = crawl(tmp_path, both, hosts, per_class=1)
    assert manifest(both, found)["outcome"].to_pylist() == ["stored", "not_needed", "stored"]


def test_an_address_that_comes_again_is_tried_again_once(tmp_path):
    host = Host({"/x.jpg": reply(b"", 404)})
    with serving(host) as hosts:
        candidates = candidates_of(["http://0.test/x.jpg"] * 3)
        for run, retry in enumerate([frozenset(), frozenset(["404"])], 1):
            found = crawl(tmp_path, candidates, hosts, per_class=1, retry=retry)
            assert len(found) == 3
            assert host.requests["/x.jpg"] == run


def test_no_candidates_give_nothing(tmp_path):
    assert crawl(tmp_path, [], {}) == {}


# going on


def test_a_known_image_that_is_gone_or_cut_is_fetched_again(tmp_path):
    host = Host({"/x.jpg": image(1)})
    candidates = candidates_of(["http://0.test/x.jpg"])
    journal = Journal(tmp_path)  # for its paths alone
    with serving(host) as hosts:
        (record,) = crawl(tmp_path, candidates, hosts).values()
        journal.path(record.id).unlink()
        assert crawl(tmp_path, candidates, hosts)[candidates[0]] == record
        journal.path(record.id).write_bytes(b"")  # as a power cut leaves it
        assert crawl(tmp_path, candidates, hosts)[candidates[0]] == record
        assert journal.path(record.id).read_bytes() == picture(1)
    assert host.requests["/x.jpg"] == 3


def test_other_limits_change_what_is_known_by_what_is_known(tmp_path):
    host = Host({"/x.jpg": image(1)})
    size = len(picture(1))
    steps = [  # limits, outcome, requests so far
        ({"max_bytes": size - 1}, "too_large", 1),
        ({"max_bytes": size - 2}, "too_large", 1),
        ({"min_side": 33}, "too_small", 2),
        ({"min_side": 34}, "too_small", 2),
        ({"min_side": 32}, "ok", 3),
        ({"min_side": 33}, "too_small", 3),
        ({"max_bytes": size - 1}, "too_large", 3),
        ({}, "ok", 3),
    ]
    with serving(host) as hosts:
        for limits, outcome, asked in steps:
            found = crawl(tmp_path, candidates_of(["http://0.test/x.jpg"]), hosts, **limits)
            assert list(outcomes(found).values()) == [outcome]
            assert host.requests["/x.jpg"] == asked


def test_opt_outs_are_obeyed_unless_told_not_to(tmp_path):
    host = Host({"/x.jpg": reply(picture(1), X_Robots_Tag="noai")})
    candidates = candidates_of(["http://0.test/x.jpg"])
    with serving(host) as hosts:
        for opt_outs, outcome in [("all", "opted_out"), ("all", "opted_out"), ("none", "ok")]:
            found = crawl(tmp_path, candidates, hosts, opt_outs=opt_outs)
            assert list(outcomes(found).values()) == [outcome]
    assert host.requests["/x.jpg"] == 2


def in_time(process):
    """Ends a process that hangs rather than the tests."""
    try:
        return process.communicate(timeout=10)
    finally:
        process.kill()


def timeless(table):
    """A manifest without the times of fetching, which no two crawls have in common."""
    return table.drop_columns(["fetched_at"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    routes, candidates = two_classes()
    with serving(*(Host(routes) for _ in range(3))) as hosts:
        found = crawl(tmp_path_factory.mktemp("whole"), candidates, hosts, per_class=20)
    return manifest(candidates, found)


@pytest.mark.parametrize("times_killed", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_a_crawl_that_is_killed_again_and_again_gives_the_same(
    tmp_path, uninterrupted, times_killed
):
    routes, candidates = two_classes()
    needed = sum(outcome != "not_needed" for outcome in uninterrupted["outcome"].to_pylist())
    servers = [Host(delayed(routes, 9, 0.1)) for _ in range(3)]
    rng = random.Random(1)
    known = {}  # address -> how often it had been asked for when it had a record
    kills = 0

    def asked():
        return sum(server.images_asked() for server in servers)

    def times(url):
        return servers[int(urlsplit(url).netloc[0])].requests[urlsplit(url).path]

    with serving(*servers) as hosts:
        while (
            kills < times_killed or len(known) < 5
        ):  # on a busy machine little is recorded before a kill
            kills += 1
            assert kills < 40
            process = started(tmp_path, candidates, hosts, per_class=20, connections_per_host=2)
            before, wanted, deadline = asked(), rng.randint(2, 12), time.monotonic() + 20
            while asked() < before + wanted:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
            process.communicate()
            with Journal(tmp_path) as journal:
                known = {url: times(url) for url in journal.records} | known
        found = crawl(tmp_path, candidates, hosts, per_class=20, connections_per_host=2)
        assert timeless(manifest(candidates, found)) == timeless(uninterrupted)
        before = asked()
        crawl(tmp_path, candidates, hosts, per_class=20)
        assert asked() == before
    # nothing was asked for twice but what was under way at one of these moments
    assert {url: times(url) for url in known} == known
    assert asked() <= needed + kills * 3 * 4  # 2 at each host, and a few that are decoded
    assert list(tmp_path.rglob("*.tmp")) == []


def test_an_interrupt_ends_a_crawl_at_once_and_leaves_it_whole(tmp_path, uninterrupted):
    routes, candidates = two_classes()
    servers = [Host(delayed(routes, 2)) for _ in range(3)]
    servers[2].routes = {path: silent(30) for path in routes}
    with serving(*servers) as hosts:
        process = started(tmp_path, candidates, hosts, per_class=20, timeout=60)
        deadline = time.monotonic() + 20
        records = tmp_path / "journal.jsonl"
        while not records.exists() or records.read_bytes().count(b"\n") < 10:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = in_time(process)
        assert time.monotonic() - start < 2
        assert process.returncode != 0
        assert said.strip().endswith("KeyboardInterrupt")
        assert "never retrieved" not in said
        assert list(tmp_path.rglob("*.tmp")) == []
        with Journal(tmp_path) as journal:
            known = [urlsplit(url) for url in journal.records]
        servers[2].routes = routes
        found = crawl(tmp_path, candidates, hosts, per_class=20)
    assert timeless(manifest(candidates, found)) == timeless(uninterrupted)
    assert len(known) >= 10
    assert {servers[int(url.netloc[0])].requests[url.path] for url in known} == {1}


def test_a_full_disk_ends_the_crawl_and_says_so(tmp_path, caplog):
    host = Host({f"/{n}.jpg": image(n, seconds=0.02) for n in range(40)})
    urls = [f"http://0.test/{n}.jpg" for n in range(40)]
    (tmp_path / "objects").mkdir()
    for first in range(256):  # in the way of a folder
        (tmp_path / "objects" / f"{first:02x}").write_text("")
    start = time.monotonic()
    with serving(host) as hosts:
        with pytest.raises(ExternalError) as caught:
            crawl(tmp_path, candidates_of(urls), hosts)
        assert str(tmp_path / "objects") in str(caught.value)
        assert "the same command goes on" in caught.value.hint
        assert time.monotonic() - start < 3
        assert host.images_asked() < 40
        for first in range(256):
            (tmp_path / "objects" / f"{first:02x}").unlink()
        assert set(outcomes(crawl(tmp_path, candidates_of(urls), hosts)).values()) == {"ok"}
    assert caplog.records == []  # no second error complains that nobody listens
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_bug_while_counting_ends_the_crawl(tmp_path):
    host = Host({f"/{n}.jpg": image(n) for n in range(10)})

    def report(label, outcome):
        raise RuntimeError("bug")

    with serving(host) as hosts, Journal(tmp_path) as journal, pytest.raises(RuntimeError):
        urls = [f"http://0.test/{n}.jpg" for n in range(10)]
        fetch(candidates_of(urls), LIMITS, journal, Web(AGENT, hosts), report)


def test_bodies_that_wait_for_a_decoder_are_as_few_as_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("kd3_pipeline.crawl.incoming.IN_MEMORY", 0)
    monkeypatch.setattr(module, "WORKERS", 4)
    monkeypatch.setattr(decoding, "DECODERS", 1)
    waiting = []
    really = decoding.inspect

    def counted(data, **options):
        waiting.append(len(list(tmp_path.glob("objects/*.tmp"))))
        time.sleep(0.01)
        return really(data, **options)

    monkeypatch.setattr(decoding, "inspect", counted)
    hosts_of = [Host({f"/{n}.jpg": image(n) for n in range(10)}) for _ in range(3)]
    with serving(*hosts_of) as hosts:
        urls = [f"http://{host}.test/{n}.jpg" for n in range(10) for host in range(3)]
        crawl(tmp_path, candidates_of(urls), hosts)
    assert 1 < max(waiting) <= 4


def test_an_error_of_a_decoder_ends_the_crawl_and_its_threads(tmp_path, monkeypatch):
    def broken(data, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(decoding, "inspect", broken)
    host = Host({f"/{n}.jpg": image(n) for n in range(9)})
    with serving(host) as hosts, pytest.raises(ZeroDivisionError):
        crawl(tmp_path, candidates_of([f"http://0.test/{n}.jpg" for n in range(9)]), hosts)
    assert [thread.name for thread in threading.enumerate() if thread.name == "decode"] == []


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "DECODERS", 4)
    monkeypatch.setattr(decoding, "LARGE", 1500)
    running, most = Counter(), Counter()
    really = decoding.inspect

    def counted(data, **options):
        kind = "large" if len(data) > 10_000 else "small"
        if kind == "large" and options["most"] < math.inf:
            with pytest.raises(Heavy):
                really(data, **options)
            raise Heavy  # before any of it was decoded
        running[kind] += 1
        most[kind] = max(most[kind], running[kind])
        time.sleep(0.03)
        running[kind] -= 1
        return really(data, **options)

    monkeypatch.setattr(decoding, "inspect", counted)
    routes = {f"/{n}.png": image(n, "PNG") for n in range(12)}  # 32 x 32
    routes |= {f"/{n}.bmp": reply(picture(n, "BMP", 64)) for n in range(8)}
    host = Host(routes)
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates_of([f"http://0.test{p}" for p in host.routes]), hosts)
    assert set(outcomes(found).values()) == {"ok"}
    assert most["large"] == 1
    assert most["small"] > 1


def test_a_picture_that_is_too_heavy_is_asked_for_again_once_it_may_weigh_more(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (1200, 1100), "red").save(buffer, "WEBP")
    host = Host({"/a.webp": reply(buffer.getvalue())})
    candidates = candidates_of(["http://0.test/a.webp"])
    told = []
    try:
        with serving(host) as hosts:
            for megabytes in (20, 20, 30, 20):
                memory.allow(megabytes)
                found = crawl(tmp_path, candidates, hosts, robots=False, opt_outs="none")
                told.append((*outcomes(found).values(), host.requests["/a.webp"]))
    finally:
        memory.allow(memory.MEGABYTES)
    heavy = "too_many_pixels"
    assert told == [(heavy, 1), (heavy, 1), ("ok", 2), (heavy, 2)]


def test_an_address_that_leads_nowhere_else_is_held_once(tmp_path):
    host = Host({"/a.jpg": image(1), "/b.jpg": redirect("/a.jpg")})
    with serving(host) as hosts:
        candidates = candidates_of(["http://0.test/a.jpg", "http://0.test/b.jpg"])
        found = crawl(tmp_path, candidates, hosts)
    first, second = map(found.get, candidates)
    assert first.final_url is first.url
    assert (second.url, second.final_url) == ("http://0.test/b.jpg", "http://0.test/a.jpg")
