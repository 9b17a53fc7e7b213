"""Searching by class name: what is asked, in which order, what stops it, and going on after it."""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from kd3_pipeline.classes import load_classes
from kd3_pipeline.console import no_progress
from kd3_pipeline.crawl import result_pages as pages_module
from kd3_pipeline.crawl.engines.bing import Bing
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.pagelog import PageLog
from kd3_pipeline.crawl.search import Search
from kd3_pipeline.demo.server import DemoWeb
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.manifest import Candidate
from tests.crawl.hosts import Host, serving
from tests.crawl.searching import (
    PATH,
    PLAIN,
    answering,
    asked,
    bing,
    find,
    images,
    page,
    paged,
)
from tests.imports import ROOT

NO_RESULTS = page()

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_the_demo_is_read_to_its_end(tmp_path):
    with DemoWeb(25) as web:
        engine = Bing("demo", f"http://{web.search_name}{PATH}", 0.0)
        found = find(web.names, engine, "shapes10", 1000, tmp_path)
        planned = [result for result in web.results("circle", 0, 1000)]
        assert web.requests[PATH] == 10 * 4  # two pages, and an empty one twice, each
        assert find(web.names, engine, "shapes10", 1000, tmp_path) == found
        assert web.requests[PATH] == 10 * 4
    assert len(found) == 10 * 25
    first = [one for one in found if one.label == 0]
    assert [one.rank for one in first] == list(range(25))
    names = [one.name for one in load_classes("shapes10").classes]
    of_circle = [one for one in found if one.class_name == "circle"]
    assert {one.label for one in of_circle} == {names.index("circle")}
    assert [
        (one.url, one.page_url, one.title, one.thumbnail, one.licence) for one in of_circle
    ] == [
        (result.murl, result.purl, result.t.strip(), result.turl, result.lic) for result in planned
    ]
    assert {one.engine for one in found} == {"demo"}


def test_no_more_is_asked_for_than_wanted(tmp_path):
    with serving(host := answering(paged(1000))) as hosts:
        found = find(hosts, bing(), ["cat"], 45, tmp_path)
    assert [one.url for one in found] == [f"http://0.test/cat/{n}.jpg" for n in range(45)]
    assert asked(host) == [("cat", 0), ("cat", 20), ("cat", 40)]


def test_each_class_gets_as_many_as_are_wanted_of_it(tmp_path):
    with serving(host := answering(paged(1000))) as hosts:
        found = find(hosts, bing(), {"a": ["a"], "b": ["b"], "c": ["c", "d"]}, [3, 0, 42], tmp_path)
    assert Counter(one.class_name for one in found) == {"a": 3, "c": 42}
    assert asked(host) == [("a", 0), ("c", 0), ("c", 20), ("d", 0), ("d", 20)]


def test_paging_ends_where_the_engine_has_no_more(tmp_path):
    with serving(host := answering(paged(50))) as hosts:
        assert len(find(hosts, bing(), ["cat"], 400, tmp_path)) == 50
    assert asked(host) == [("cat", n) for n in (0, 20, 40, 50, 50)]


def test_paging_ends_where_the_engine_repeats_itself(tmp_path):
    def answer(query, first):
        return images(query, range(min(first, 20), min(first, 20) + 20))

    with serving(host := answering(answer)) as hosts:
        found = find(hosts, bing(), ["cat"], 400, tmp_path)
    assert [one.rank for one in found] == list(range(40))
    assert asked(host) == [("cat", n) for n in (0, 20, 40, 40)]


def test_a_page_that_is_not_there_is_the_end(tmp_path):
    with serving(host := answering(lambda q, n: 404 if n else images(q, range(20)))) as hosts:
        for _ in range(2):
            assert len(find(hosts, bing(), ["cat"], 400, tmp_path)) == 20
    assert host.requests[PATH] == 2


@pytest.mark.parametrize(
    "query",
    ["AT&T logo", "C#", "日本", "../x", "a+b = 100%", "x?y/z", "\"'<b>", "🦊", "a;b", "%26"],
)
def test_the_engine_gets_the_query_as_it_was_written(query, tmp_path):
    with serving(host := answering(lambda q, n: NO_RESULTS if n else images("x", [1]))) as hosts:
        (found,) = find(hosts, bing(), [query], 40, tmp_path)
    assert asked(host) == [(query, 0), (query, 1), (query, 1)]
    assert (found.query, found.class_name) == (query, query)


def test_queries_of_a_class_take_turns_and_bring_no_address_twice(tmp_path):
    def answer(query, first):
        numbers = {"a": [1, 2, 3, 4], "b": [2, 5, 1, 6], "c": [7]}[query]
        return NO_RESULTS if first else images("x", numbers)

    steps = []
    with serving(answering(answer)) as hosts:
        classes = {"x": ["a", "b"], "y": ["c"], "z": ["a"]}
        found = find(
            hosts,
            bing(),
            classes,
            8,
            tmp_path,
            advance=lambda n=1, note="": steps.append((n, note)),
        )
    rows = [(one.label, one.query, one.rank, one.url[16:17]) for one in found]
    assert rows == [
        (0, "a", 0, "1"),
        (0, "b", 0, "2"),
        (0, "b", 1, "5"),
        (0, "a", 2, "3"),
        (0, "a", 3, "4"),
        (0, "b", 3, "6"),
        (1, "c", 0, "7"),
        (2, "a", 0, "1"),
        (2, "a", 1, "2"),
        (2, "a", 2, "3"),
        (2, "a", 3, "4"),
    ]
    assert sum(n for n, _ in steps) == 3
    assert (1, "x: 6 results") in steps


def failure(hosts, folder, engine=None):
    start = time.monotonic()
    with pytest.raises(ExternalError) as caught:
        find(hosts, engine or bing(), ["cat"], 40, folder)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_refused_connection_is_one_line_soon(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        text = failure({"0.test": closed.getsockname()}, tmp_path)
    assert "0.test: connection refused" in text


def test_a_broken_answer_is_one_line(tmp_path):
    def route(request):
        request.wfile.write(b"\x00\n\xff\n")
        request.close_connection = True

    with serving(Host({PATH: route})) as hosts:
        failure(hosts, tmp_path)


def test_a_connection_that_breaks_is_tried_again(tmp_path):
    def route(request):
        if request.asked() < 3:
            request.send_response(200)
            request.send_header("Content-Length", "1000")
            request.end_headers()
            request.wfile.write(b"half")
            request.close_connection = True
        else:
            request.reply(images("cat", range(20)))

    with serving(Host({PATH: route})) as hosts:
        assert len(find(hosts, bing(), ["cat"], 20, tmp_path)) == 20


def test_a_silent_engine_is_waited_for_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "PAGE_TIMEOUT", 0.2)
    with serving(host := answering(lambda query, first: time.sleep(0.6) or b"")) as hosts:
        assert "no answer in 0.2 s" in failure(hosts, tmp_path)
    assert host.requests[PATH] == 3


def test_an_endless_page_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "PAGE_BYTES", 100_000)
    with serving(answering(lambda query, first: b"x" * 2_000_000)) as hosts:
        assert "more than 100,000 bytes" in failure(hosts, tmp_path)


def test_a_page_that_drips_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "PAGE_TIME", 0.3)
    monkeypatch.setattr(pages_module, "TRIES", 1)

    def route(request):
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(1000):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.02)

    with serving(Host({PATH: route})) as hosts:
        assert "took more than 0.3 s" in failure(hosts, tmp_path)


def test_an_engine_at_a_private_address_is_refused(tmp_path):
    with serving(host := answering(paged(5))):
        engine = Bing("test", f"http://127.0.0.1:{host.server_port}{PATH}", 0.0)
        assert "not a public address" in failure({}, tmp_path, engine)
    assert host.requests[PATH] == 0


def test_pages_keep_their_distance_over_queries_and_classes(tmp_path):
    with serving(host := answering(paged(25))) as hosts:
        for _ in range(2):
            start = time.monotonic()
            find(hosts, bing(0.1), {"a": ["a", "b"], "c": ["c"]}, 40, tmp_path)
            took = time.monotonic() - start
    gaps = [later - earlier for earlier, later in zip(host.starts, host.starts[1:], strict=False)]
    assert asked(host) == [("a", 0), ("b", 0), *(("c", n) for n in (0, 20, 25, 25))]
    assert min(gaps) >= 0.1
    assert took < 0.1, "pages from the log wait for nothing"


def test_the_engine_learns_who_asks_and_no_thread_stays(tmp_path):
    before = threading.active_count()
    with serving(host := answering(paged(5))) as hosts:
        find(hosts, bing(), ["cat"], 40, tmp_path)
    assert {headers["User-Agent"] for headers in host.headers} == {"kd3-test/1"}
    assert threading.active_count() <= before


def test_candidates_are_in_the_order_of_the_classes(tmp_path):
    with serving(answering(paged(2))) as hosts:
        found = find(hosts, bing(), ["b", "a"], 40, tmp_path, "commercial")
    assert found == [
        Candidate(
            label,
            name,
            "test",
            name,
            rank,
            f"http://0.test/{name}/{rank}.jpg",
            licence_filter="commercial",
        )
        for label, name in enumerate("ba")
        for rank in range(2)
    ]


def test_more_of_a_class_asks_only_for_the_pages_that_are_new(tmp_path):
    with serving(host := answering(paged(1000))) as hosts:
        first = find(hosts, bing(), ["a", "b"], 40, tmp_path)
        second = find(hosts, bing(), ["a", "b"], [80, 40], tmp_path)
    assert [one for one in second if one in set(first)] == first
    assert asked(host) == [("a", 0), ("a", 20), ("b", 0), ("b", 20), ("a", 40), ("a", 60)]


def test_a_filter_that_the_engine_has_not_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="test cannot filter by 'nonsense'"):
        find({}, bing(), ["cat"], 40, tmp_path, "nonsense")


def test_a_log_that_cannot_be_written_is_an_error(tmp_path):
    with serving(answering(paged(5))) as hosts:
        log = PageLog(tmp_path)
        with log:
            pass
        classes, web = load_classes(["cat"]), Web("kd3-test/1", hosts)
        with pytest.raises(ValueError, match="closed file"):
            Search(bing(), classes, PLAIN, web, log, tmp_path).candidates([5], no_progress)


KILLED = """
import json, sys
from tests.crawl.searching import bing, find
hosts = {name: tuple(where) for name, where in json.loads(sys.argv[1]).items()}
find(hosts, bing(), [f"class {n}" for n in range(6)], 100, sys.argv[2])
"""


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_search_that_is_killed_goes_on_and_asks_nothing_twice(tmp_path, kills):
    def answer(query, first):
        time.sleep(0.01)
        return paged(90)(query, first)

    classes = [f"class {n}" for n in range(6)]
    with serving(undisturbed := answering(answer)) as hosts:
        expected = find(hosts, bing(), classes, 100, tmp_path / "undisturbed")
    assert len(expected) == 6 * 90
    pages = Counter(asked(undisturbed))
    assert len(pages) == 6 * 6
    rng = random.Random(0)
    folder = tmp_path / "killed"
    with serving(host := answering(answer)) as hosts:
        command = [sys.executable, "-c", KILLED, json.dumps(hosts), str(folder)]
        moments = sorted(rng.sample(range(1, 25), kills))
        for moment in moments:
            process = subprocess.Popen(command, cwd=ROOT)
            while process.poll() is None and host.requests[PATH] < moment:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.02)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert find(hosts, bing(), classes, 100, folder) == expected
        before = host.requests[PATH]
        assert find(hosts, bing(), classes, 100, folder) == expected
        assert host.requests[PATH] == before, "a finished search asks for nothing"
    counts = Counter(asked(host))
    assert set(counts) == set(pages)
    # a page that was under way is asked for again, and so is one that was to be confirmed
    assert sum(counts.values()) - sum(pages.values()) <= 2 * len(moments)
