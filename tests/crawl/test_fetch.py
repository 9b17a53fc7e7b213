import asyncio
import gc
import gzip
import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.crawl import fetch as module
from pipeline.crawl.candidates import Candidate, manifest
from pipeline.crawl.fetch import Limits, fetch
from pipeline.crawl.journal import Journal
from pipeline.crawl.pack import pack
from tests.crawl.hosts import Host, image, picture, png_claiming, redirect, reply, serving

ROOT = Path(__file__).parents[2]
AGENT = "kd3-pipeline/1 (+https://example.com)"
LIMITS = Limits(
    per_class=1000,
    min_side=16,
    max_bytes=200_000,
    connections_per_host=8,
    host_gap=0.0,
    timeout=0.7,
)


def candidates_of(urls, label=0):
    return [
        Candidate(label, f"class {label}", "test", "query", rank, url)
        for rank, url in enumerate(urls)
    ]


def run(folder, candidates, hosts, **changes):
    """(manifest rows by URL, in order), and how often `advance` was called."""
    limits = Limits(**(vars(LIMITS) | changes))
    seen = []
    with Journal(folder) as journal:
        found = fetch(candidates, limits, journal, AGENT, lambda n: seen.append(n), hosts)
    return manifest(candidates, found), sum(seen)


def outcomes(table):
    return dict(zip(table["url"].to_pylist(), table["outcome"].to_pylist(), strict=True))


# one crawl of every kind of fault: path -> (route, outcome, times asked)

JPEG = picture(1000)
SENT = Counter()


def once(status, **headers):
    def route(request):
        if request.asked() == 1:
            return reply(b"busy", status, **headers)(request)
        return request.reply(picture(int(request.path.strip("/o.jpg") or 0) + 100))

    return route


def chunks(request, chunk, pause=0.0, most=2000):
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for _ in range(most):
        request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        request.wfile.flush()
        SENT[request.path] += len(chunk)
        time.sleep(pause)


def big_by_length(request):
    request.send_response(200)
    request.send_header("Content-Length", "400000000")
    request.end_headers()
    for _ in range(400):
        request.wfile.write(bytes(1 << 20))
        SENT[request.path] += 1 << 20


def raw(data):
    def route(request):
        request.wfile.write(data)
        request.wfile.flush()
        request.close_connection = True

    return route


def silent(request):
    time.sleep(1.5)
    request.close_connection = True


FAULTS = {
    "/ok.jpg": (image(1), "stored", 1),
    "/ok.png": (image(2, "PNG"), "stored", 1),
    "/ok.webp": (image(3, "WEBP"), "stored", 1),
    "/ok.gif": (image(4, "GIF"), "stored", 1),
    "/ok.bmp": (image(5, "BMP"), "stored", 1),
    "/named.html": (image(6), "stored", 1),
    "/same-bytes.jpg": (image(1), "duplicate", 1),
    "/missing.jpg": (reply(b"no", 404), "http_error", 1),
    "/gone.jpg": (reply(b"no", 410), "http_error", 1),
    "/forbidden.jpg": (reply(b"no", 403), "http_error", 1),
    "/empty-204.jpg": (reply(b"", 204), "http_error", 1),
    "/empty.jpg": (reply(b""), "not_an_image", 1),
    "/500.jpg": (reply(b"oops", 500), "busy", 3),
    "/429.jpg": (reply(b"slow down", 429, Retry_After="0"), "busy", 3),
    "/o1.jpg": (once(503, Retry_After="0.2"), "stored", 2),
    "/o2.jpg": (once(503, Retry_After="nan"), "stored", 2),
    "/o3.jpg": (once(503, Retry_After="-1e999"), "stored", 2),
    "/o4.jpg": (once(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), "stored", 2),
    "/o5.jpg": (reply(b"", 429, Retry_After="Wed, 21 Oct 2037 07:28:00 GMT"), "busy", 1),
    "/o6.jpg": (reply(b"", 503, Retry_After="3600"), "busy", 1),
    "/truncated.jpg": (reply(JPEG[: len(JPEG) // 2]), "truncated", 1),
    "/short.jpg": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(JPEG), JPEG[:300])),
        "connection",
        3,
    ),
    "/html.jpg": (reply(b"<!doctype html><title>sign in</title>"), "not_an_image", 1),
    "/drawing.svg": (
        reply(b'<svg xmlns="http://www.w3.org/2000/svg"/>', Content_Type="image/svg+xml"),
        "not_an_image",
        1,
    ),
    "/pixel.gif": (reply(picture(7, "GIF", 1)), "too_small", 1),
    "/bomb.png": (reply(png_claiming(30_000, 30_000)), "too_many_pixels", 1),
    "/gzip.jpg": (reply(gzip.compress(JPEG), Content_Encoding="gzip"), "not_an_image", 1),
    "/big.jpg": (big_by_length, "too_large", 1),
    "/endless.jpg": (lambda request: chunks(request, bytes(50_000)), "too_large", 1),
    "/drip.jpg": (lambda request: chunks(request, b"x", 0.05, 40), "timeout", 2),
    "/silent.jpg": (silent, "timeout", 2),
    "/reset.jpg": (raw(b""), "connection", 3),
    "/garbage.jpg": (raw(b"\x00\xff" * 400), "connection", 3),
    "/endless-header.jpg": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "connection", 3),
    "/reason.jpg": (
        raw(b"HTTP/1.1 404 \xff\xfe\xed\xa0\x80\r\nContent-Length: 0\r\n\r\n"),
        "http_error",
        1,
    ),
    "/led.jpg": (redirect("/target.jpg"), "stored", 1),
    "/target.jpg": (image(8), "duplicate", 2),
    "/far.jpg": (redirect("http://1.test/far.jpg", 301), "stored", 1),
    "/five.jpg": (redirect("/4.jpg"), "stored", 1),
    "/six.jpg": (redirect("/five.jpg"), "too_many_redirects", 1),  # one hop too many
    "/loop.jpg": (redirect("/loop.jpg", 307), "too_many_redirects", 6),
    "/nowhere.jpg": (reply(b"", 302), "http_error", 1),
    "/inside.jpg": (redirect("http://127.0.0.1:{port}/x.jpg"), "forbidden_address", 1),
    "/file.jpg": (redirect("file:///etc/passwd"), "forbidden_address", 1),
    "/noai.jpg": (reply(picture(9), X_Robots_Tag="noai"), "opted_out", 1),
    "/bot-noai.jpg": (reply(picture(9), X_Robots_Tag="kd3: noimageai"), "opted_out", 1),
    "/tdm.jpg": (reply(picture(9), TDM_Reservation="1"), "opted_out", 1),
    "/cookie.jpg": (
        lambda request: request.reply(
            picture(10), 200, {"Set-Cookie": "a=b; Path=/; Max-Age=9999"}
        ),
        "stored",
        1,
    ),
}
HELPERS = {"/4.jpg": "/3.jpg", "/3.jpg": "/2.jpg", "/2.jpg": "/1.jpg", "/1.jpg": "/0.jpg"}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    host, other, secret = Host(), Host({"/far.jpg": image(11)}), Host()
    secret.otherwise = image(0)
    with serving(host, other, secret) as hosts, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RETRY_AFTER_MOST", 0.3)
        port = hosts.pop("2.test")[1]
        routes = {path: route for path, (route, _, _) in FAULTS.items()}
        routes["/inside.jpg"] = redirect(f"http://127.0.0.1:{port}/x.jpg")
        routes |= {path: redirect(target) for path, target in HELPERS.items()}
        routes["/0.jpg"] = image(12)
        host.routes = routes
        urls = [f"http://0.test{path}" for path in FAULTS]
        start = time.monotonic()
        table, advanced = run(folder, candidates_of(urls), hosts, connections_per_host=64)
        took = time.monotonic() - start
        first = Counter(host.requests)
        headers = list(host.headers)
        again, _ = run(folder, candidates_of(urls), hosts, connections_per_host=64)
        second = Counter(host.requests)
        second.subtract(first)
    return {
        "table": table,
        "advanced": advanced,
        "requests": first,
        "headers": headers,
        "again": again,
        "second": second,
        "secret": secret,
        "folder": folder,
        "took": took,
    }


@pytest.mark.parametrize("path", FAULTS)
def test_each_fault_has_its_outcome(faulty, path):
    assert outcomes(faulty["table"])[f"http://0.test{path}"] == FAULTS[path][1]


def test_each_fault_is_asked_for_as_often_as_it_deserves(faulty):
    asked = {path: faulty["requests"][path] for path in FAULTS}
    # six.jpg leads to five.jpg; aiohttp asks twice where a connection just ends
    asked |= {"/five.jpg": asked["/five.jpg"] - 1, "/reset.jpg": -(-asked["/reset.jpg"] // 2)}
    assert asked == {path: times for path, (_, _, times) in FAULTS.items()}
    assert faulty["requests"]["/robots.txt"] == 1


def test_every_candidate_is_in_the_manifest_once_and_in_order(faulty):
    assert faulty["table"]["url"].to_pylist() == [f"http://0.test{path}" for path in FAULTS]
    assert faulty["table"]["rank"].to_pylist() == list(range(len(FAULTS)))


def test_progress_counts_distinct_images(faulty):
    assert faulty["advanced"] == faulty["table"]["outcome"].to_pylist().count("stored")


def test_a_manifest_row_says_where_the_image_came_from(faulty):
    rows = {row["url"]: row for row in faulty["table"].to_pylist()}
    far = rows["http://0.test/far.jpg"]
    assert (far["final_url"], far["status"]) == ("http://1.test/far.jpg", 200)
    assert rows["http://0.test/missing.jpg"]["status"] == 404
    assert rows["http://0.test/500.jpg"]["status"] == 500
    assert rows["http://0.test/noai.jpg"]["detail"] == "X-Robots-Tag: noai"
    assert [name for name, row in rows.items() if bool(row["id"]) != (row["outcome"] in GOOD)] == []


GOOD = ("stored", "duplicate")


def test_large_answers_are_cut_off_early(faulty):
    # what was sent sits in socket buffers at most
    assert SENT["/big.jpg"] < 30 << 20
    assert SENT["/endless.jpg"] < 30 << 20


def test_a_redirect_to_loopback_reaches_nothing(faulty):
    assert faulty["secret"].requests == {}


def test_cookies_are_never_sent_back(faulty):
    assert [names for names in faulty["headers"] if "Cookie" in names] == []


def test_requests_say_who_asks_and_want_plain_bytes(faulty):
    assert {headers["User-Agent"] for headers in faulty["headers"]} == {AGENT}
    assert {headers["Accept-Encoding"] for headers in faulty["headers"]} == {"identity"}


def test_every_stored_object_is_what_its_name_says(faulty):
    with Journal(faulty["folder"]) as journal:
        for name in set(faulty["table"]["id"].to_pylist()) - {None}:
            assert journal.keep(journal.path(name).read_bytes()) == name
    assert list(faulty["folder"].rglob("*.tmp")) == []


def test_a_second_run_asks_only_for_what_may_have_changed(faulty):
    again = {"timeout", "connection", "busy", "too_large", "too_small"}
    asked = {path for path, times in faulty["second"].items() if times} - {"/robots.txt"}
    assert asked == {path for path, (_, outcome, _) in FAULTS.items() if outcome in again}
    assert faulty["again"] == faulty["table"]


def test_faults_do_not_hold_up_the_rest(faulty):
    assert faulty["took"] < 8


# robots.txt


ROBOTS = {
    "missing": (reply(b"", 404), "stored"),
    "empty": (reply(b""), "stored"),
    "refused": (reply(b"", 403), "stored"),
    "allows": (reply(b"User-agent: *\nDisallow: /private/\n"), "stored"),
    "other": (reply(b"User-agent: somebody\nDisallow: /\n"), "stored"),
    "disallows": (reply(b"User-agent: *\nDisallow: /\n"), "robots"),
    "by_name": (reply(b"User-agent: KD3-Pipeline\nDisallow: /i\n"), "robots"),
    "byte_order_mark": (reply(b"\xef\xbb\xbfUser-agent: *\r\nDisallow: /\r\n"), "robots"),
    "blank_lines": (reply(b"User-agent: *\n\n  \nDisallow: /\n"), "robots"),
    "longer_than_read": (reply(b"User-agent: *\nDisallow: /\n" + b"#\n" * 400_000), "robots"),
    "endless": (lambda request: chunks(request, b"User-agent: *\nDisallow: /\n" * 900), "robots"),
    "garbage": (reply(bytes(range(256)) * 20), "stored"),
    "ill": (reply(b"oops", 500), "robots_unreachable"),
    "silent": (silent, "timeout"),
    "broken": (raw(b""), "connection"),
    "moved": (redirect("/elsewhere.txt"), "robots"),
    "loop": (redirect("/robots.txt"), "robots_unreachable"),
    "to_file": (redirect("file:///etc/passwd"), "forbidden_address"),
}


@pytest.fixture(scope="module")
def robots(tmp_path_factory):
    servers = {name: Host({"/robots.txt": route}) for name, (route, _) in ROBOTS.items()}
    for number, server in enumerate(servers.values()):
        server.routes |= {"/i/1.jpg": image(3 * number), "/i/2.jpg": image(3 * number + 1)}
    servers["moved"].routes["/elsewhere.txt"] = reply(b"User-agent: *\nDisallow: /i/\n")
    with serving(*servers.values()) as hosts:
        named = {name: f"{number}.test" for number, name in enumerate(servers)}
        urls = [f"http://{host}/i/{n}.jpg" for host in named.values() for n in (1, 2)]
        table, _ = run(tmp_path_factory.mktemp("robots"), candidates_of(urls), hosts)
    found = outcomes(table)
    return {
        name: ([found[f"http://{named[name]}/i/{n}.jpg"] for n in (1, 2)], servers[name])
        for name in named
    }


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_txt_is_obeyed(robots, name):
    found, server = robots[name]
    outcome = ROBOTS[name][1]
    assert found == [outcome, outcome]
    assert server.images_asked() == (2 if outcome == "stored" else 0) + (name == "moved")
    asked = {"loop": 6, "broken": 2}  # aiohttp asks twice where a connection just ends
    assert server.requests["/robots.txt"] <= asked.get(name, 1)


# manners


def test_a_host_never_has_more_connections_than_allowed(tmp_path):
    # written in several ways, it is one host all the same
    host = Host({f"/{n}.jpg": image(n, seconds=0.03) for n in range(24)})
    with serving(host) as hosts:
        names = ["http://0.test", "http://0.TEST", "http://0.test:80", "HTTP://0.test"]
        urls = [f"{names[n % 4]}/{n}.jpg" for n in range(24)]
        table, _ = run(tmp_path, candidates_of(urls), hosts, connections_per_host=3)
    assert set(outcomes(table).values()) == {"stored"}
    assert host.most_at_once == 3


def test_requests_to_one_host_keep_their_distance(tmp_path):
    host = Host({f"/{n}.jpg": image(n) for n in range(5)})
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(5)]
        run(tmp_path, candidates_of(urls), hosts, host_gap=0.2)
    gaps = [later - earlier for earlier, later in zip(host.starts, host.starts[1:], strict=False)]
    assert len(gaps) == 5  # robots.txt is a request, too
    assert min(gaps) > 0.15


def test_waiting_for_a_host_does_not_count_against_the_time_of_an_image(tmp_path):
    host = Host({f"/{n}.jpg": image(n, seconds=0.15) for n in range(10)})
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(10)]
        table, _ = run(tmp_path, candidates_of(urls), hosts, connections_per_host=1, timeout=0.6)
    assert set(outcomes(table).values()) == {"stored"}
    assert set(host.requests.values()) == {1}


def test_a_slow_host_does_not_hold_up_another(tmp_path):
    slow = Host({f"/{n}.jpg": image(n, seconds=0.4) for n in range(6)})
    quick = Host({f"/{n}.jpg": image(n + 50) for n in range(6)})
    with serving(slow, quick) as hosts:
        urls = [f"http://{host}.test/{n}.jpg" for n in range(6) for host in (0, 1)]
        run(tmp_path, candidates_of(urls), hosts, connections_per_host=2)
    assert quick.starts[-1] < slow.starts[-1]


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


def delayed(routes, seed):
    rng = random.Random(seed)

    def slow(route, seconds):
        def late(request):
            time.sleep(seconds)
            route(request)

        return late

    return {path: slow(route, rng.uniform(0, 0.03)) for path, route in routes.items()}


def test_the_result_does_not_depend_on_latencies(tmp_path):
    routes, candidates = two_classes()
    tables = []
    for seed in range(3):
        with serving(*(Host(delayed(routes, seed)) for _ in range(3))) as hosts:
            tables.append(run(tmp_path / str(seed), candidates, hosts, per_class=20)[0])
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
        urls = [f"http://0.test/{n}.jpg" for n in range(100)]
        table, _ = run(tmp_path, candidates_of(urls), hosts, per_class=7)
    assert Counter(outcomes(table).values()) == {"stored": 7, "not_needed": 93}
    assert host.images_asked() == 7


def test_one_address_in_two_classes_is_asked_for_once(tmp_path):
    host = Host({"/x.jpg": image(1)})
    with serving(host) as hosts:
        both = [one for n in (0, 1) for one in candidates_of(["http://0.test/x.jpg"], n)]
        table, advanced = run(tmp_path, both, hosts)
    assert table["outcome"].to_pylist() == ["stored", "duplicate"]
    assert host.requests["/x.jpg"] == 1
    assert advanced == 2  # it counts for both


def test_an_address_that_only_another_class_needed_is_not_needed(tmp_path):
    host = Host({"/a.jpg": image(1), "/b.jpg": image(2)})
    with serving(host) as hosts:
        both = [
            *candidates_of(["http://0.test/a.jpg", "http://0.test/b.jpg"], 0),
            *candidates_of(["http://0.test/b.jpg"], 1),
        ]
        limits = Limits(**(vars(LIMITS) | {"per_class": 1}))
        with Journal(tmp_path / "journal") as journal:
            found = fetch(both, limits, journal, AGENT, lambda n: None, hosts)
            summary = pack(tmp_path / "out", both, found, journal, ["class 0", "class 1"])
    table = manifest(both, found)
    assert table["outcome"].to_pylist() == ["stored", "not_needed", "stored"]
    assert summary["stored"] == 2
    assert [row["stored"] for row in summary["classes"]] == [1, 1]


def test_no_candidates_give_nothing(tmp_path):
    table, advanced = run(tmp_path, [], {})
    assert (table.num_rows, advanced) == (0, 0)


# going on


def test_a_second_run_asks_for_nothing(tmp_path):
    host = Host({f"/{n}.jpg": image(n) for n in range(10)})
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(12)]
        first, _ = run(tmp_path, candidates_of(urls), hosts)
        asked = sum(host.requests.values())
        second, advanced = run(tmp_path, candidates_of(urls), hosts)
    assert (sum(host.requests.values()), advanced) == (asked, 10)
    assert second == first


def test_a_known_image_that_is_gone_is_fetched_again(tmp_path):
    host = Host({"/x.jpg": image(1)})
    with serving(host) as hosts:
        table, _ = run(tmp_path, candidates_of(["http://0.test/x.jpg"]), hosts)
        with Journal(tmp_path) as journal:
            journal.path(table["id"][0].as_py()).unlink()
        again, _ = run(tmp_path, candidates_of(["http://0.test/x.jpg"]), hosts)
        with Journal(tmp_path) as journal:
            assert journal.path(again["id"][0].as_py()).read_bytes() == picture(1)
    assert host.requests["/x.jpg"] == 2


def test_a_known_image_below_a_new_smallest_side_is_refused(tmp_path):
    host = Host({"/x.jpg": image(1)})
    with serving(host) as hosts:
        run(tmp_path, candidates_of(["http://0.test/x.jpg"]), hosts)
        table, _ = run(tmp_path, candidates_of(["http://0.test/x.jpg"]), hosts, min_side=33)
        assert table["outcome"].to_pylist() == ["too_small"]
        table, _ = run(tmp_path, candidates_of(["http://0.test/x.jpg"]), hosts)
    assert table["outcome"].to_pylist() == ["stored"]
    assert host.requests["/x.jpg"] == 1


PROGRAM = """
import json, sys
from pathlib import Path
from pipeline.crawl.candidates import Candidate
from pipeline.crawl.fetch import Limits, fetch
from pipeline.crawl.journal import Journal

told = json.load(sys.stdin)
with Journal(Path(told["folder"])) as journal:
    candidates = [Candidate(*values) for values in told["candidates"]]
    fetch(candidates, Limits(**told["limits"]), journal, "x", lambda n: None, told["hosts"])
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    routes, candidates = two_classes()
    with serving(*(Host(routes) for _ in range(3))) as hosts:
        return run(tmp_path_factory.mktemp("whole"), candidates, hosts, per_class=20)[0]


@pytest.mark.parametrize(("sign", "after"), [("SIGKILL", 15), ("SIGKILL", 31), ("SIGINT", 20)])
def test_a_crawl_that_was_ended_goes_on_to_the_same_result(tmp_path, uninterrupted, sign, after):
    routes, candidates = two_classes()
    slow = delayed(routes, after)
    servers = [Host(slow) for _ in range(3)]
    with serving(*servers) as hosts:
        told = {
            "folder": str(tmp_path),
            "hosts": hosts,
            "limits": vars(LIMITS) | {"per_class": 20, "connections_per_host": 2},
            "candidates": [list(vars(candidate).values()) for candidate in candidates],
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        process.stdin.write(json.dumps(told))
        process.stdin.close()
        deadline = time.monotonic() + 20
        while sum(server.images_asked() for server in servers) < after:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(getattr(signal, sign))
        assert process.wait(10) != 0
        said = process.stderr.read()
        process.stderr.close()
        with Journal(tmp_path) as journal:
            known = {urlsplit(url) for url in journal.records}
        table, _ = run(tmp_path, candidates, hosts, per_class=20, connections_per_host=2)
    assert table == uninterrupted
    assert "never retrieved" not in said
    # what had a record was not asked for again
    assert known
    assert {servers[int(url.netloc[0])].requests[url.path] for url in known} == {1}


def test_an_error_of_the_disk_ends_the_crawl(tmp_path, caplog):
    host = Host({f"/{n}.jpg": image(n, seconds=0.02) for n in range(40)})
    (tmp_path / "objects").write_text("in the way of a folder")
    start = time.monotonic()
    with serving(host) as hosts, caplog.at_level(logging.ERROR):
        urls = [f"http://0.test/{n}.jpg" for n in range(40)]
        with pytest.raises((NotADirectoryError, FileExistsError)):
            run(tmp_path, candidates_of(urls), hosts)
        gc.collect()
    assert time.monotonic() - start < 3
    assert caplog.records == []  # no second error complains that nobody listens
    assert host.images_asked() < 40


def test_a_bug_while_counting_ends_the_crawl(tmp_path):
    host = Host({f"/{n}.jpg": image(n) for n in range(10)})

    def advance(n):
        raise RuntimeError("bug")

    with serving(host) as hosts, Journal(tmp_path) as journal, pytest.raises(RuntimeError):
        urls = [f"http://0.test/{n}.jpg" for n in range(10)]
        fetch(candidates_of(urls), LIMITS, journal, AGENT, advance, hosts)


def test_bodies_that_wait_for_a_decoder_are_as_few_as_connections(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CONNECTIONS", 4)
    monkeypatch.setattr(module, "DECODERS", 1)
    waiting, most = 0, 0
    really = module.Fetcher._inspect

    async def counted(self, data, status):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.02)
        try:
            return await really(self, data, status)
        finally:
            waiting -= 1

    monkeypatch.setattr(module.Fetcher, "_inspect", counted)
    hosts_of = [Host({f"/{n}.jpg": image(n) for n in range(10)}) for _ in range(3)]
    with serving(*hosts_of) as hosts:
        urls = [f"http://{host}.test/{n}.jpg" for n in range(10) for host in range(3)]
        run(tmp_path, candidates_of(urls), hosts)
    assert 1 < most <= 4
