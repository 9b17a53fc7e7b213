import html
import json
import random
import socket
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.classes import ClassSet, load_classes
from pipeline.crawl.candidates import Candidate
from pipeline.crawl.search import SearchEngine, result_records, search
from pipeline.demo.server import DemoWeb
from pipeline.errors import WorldError
from tests.crawl.hosts import Host, serving


def page(*records, quote=html.escape):
    """A result page; records that are no text are written as JSON."""
    texts = (one if isinstance(one, str) else json.dumps(one) for one in records)
    return "".join(
        f'<div class="imgpt"><a class="iusc" m="{quote(text)}" href="#">x</a></div>'
        for text in texts
    ).encode()


def engine_of(host, gap=0.0):
    return SearchEngine("test", f"http://127.0.0.1:{host.server_port}/images/async", gap)


def ask(engine, classes, wanted=40, folder=None, steps=None):
    def advance(n=1, note=""):
        if steps is not None:
            steps.append((n, note))

    wanted_classes = classes if isinstance(classes, ClassSet) else load_classes(classes)
    return search(engine, wanted_classes, wanted, "kd3-test/1", folder, advance)


def answering(answer):
    """A search engine that gives `answer(query, first)`: a page, or a status."""
    host = Host()

    def route(request):
        fields = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        found = answer(fields["q"][0], int(fields["first"][0]))
        if isinstance(found, int):
            request.reply(b"oops", found)
        else:
            request.reply(found, 200, {"Content-Type": "text/html; charset=utf-8"})

    host.routes["/images/async"] = route
    return host


def paged(total, prefix="http://0.test/"):
    def answer(query, first):
        last = min(first + 20, total)
        return page(*({"murl": f"{prefix}{query}/{n}.jpg"} for n in range(first, last)))

    return answer


def test_the_demo_is_read_to_its_end():
    with DemoWeb(50) as web:
        engine = SearchEngine("demo", web.search_url, 0.0)
        found = ask(engine, "shapes10", 1000)
        planned = [result for result in web.results("circle", 0, 1000)]
        assert web.requests["/images/async"] == 10 * 4  # three pages and an empty one, each
    assert len(found) == 10 * 50
    first = [one for one in found if one.label == 0]
    assert [one.rank for one in first] == list(range(50))
    names = [one.name for one in load_classes("shapes10").classes]
    of_circle = [one for one in found if one.class_name == "circle"]
    assert {one.label for one in of_circle} == {names.index("circle")}
    assert [(one.url, one.page_url, one.title, one.licence) for one in of_circle] == [
        (result.murl, result.purl, result.t.strip(), result.lic) for result in planned
    ]
    assert {one.engine for one in found} == {"demo"}


def test_no_more_is_asked_for_than_wanted():
    with serving(host := answering(paged(1000))):
        found = ask(engine_of(host), ["cat"], 45)
    assert [one.url for one in found] == [f"http://0.test/cat/{n}.jpg" for n in range(45)]
    assert [parse_qs(urlsplit(target).query)["first"] for target in host.targets] == [
        ["0"],
        ["20"],
        ["40"],
    ]


def test_paging_ends_where_the_engine_has_no_more():
    with serving(host := answering(paged(50))):
        assert len(ask(engine_of(host), ["cat"], 400)) == 50
    assert host.requests["/images/async"] == 4


@pytest.mark.parametrize(
    "query", ["AT&T logo", "C#", "日本", "a+b = 100%", "x?y/z", "\"'<b>", "🦊", "a;b", "%26"]
)
def test_the_engine_gets_the_query_as_it_was_written(query):
    asked = []

    def answer(text, first):
        asked.append(text)
        return page({"murl": "http://0.test/1.jpg"}) if not first else b""

    with serving(host := answering(answer)):
        (found,) = ask(engine_of(host), [query])
    assert asked == [query, query]
    assert (found.query, found.class_name) == (query, query)


def test_malformed_results_are_left_out_and_the_rest_is_kept():
    pages = page(
        {"murl": "http://0.test/1.png", "t": " a \"b\" & 'c' <d> ", "purl": "p", "lic": "CC0"},
        "{malformed",
        '{"murl": "http://0.test/cut.jpg"',
        "",
        "null",
        "[]",
        "3",
        "[" * 5000,
        {"purl": "no murl"},
        {"murl": ""},
        {"murl": None},
        {"murl": 3},
        {"murl": ["http://0.test/x.jpg"]},
        {"murl": "http://0.test/" + "x" * 3000},
        {"murl": "http://0.test/2.webp?a=1&amp=2", "t": 5, "purl": None},
        {"murl": " http://0.test/no-suffix "},
    )
    extra = b'<a class="iusc">no m</a><a class="other" m=\'{"murl": "x"}\'>x</a><p>'
    assert list(result_records(pages + extra)) == [
        {
            "url": "http://0.test/1.png",
            "page_url": "p",
            "title": "a \"b\" & 'c' <d>",
            "licence": "CC0",
        },
        {"url": "http://0.test/2.webp?a=1&amp=2", "page_url": "", "title": "", "licence": ""},
        {"url": "http://0.test/no-suffix", "page_url": "", "title": "", "licence": ""},
    ]


def test_long_texts_are_cut():
    (record,) = result_records(page({"murl": "http://0.test/1.jpg", "t": "x" * 9000}))
    assert len(record["title"]) == 2000


def test_any_page_is_survived():
    good = page(
        *({"murl": f"http://0.test/{n}.jpg", "t": "é <b> \u202e", "purl": "x"} for n in range(5))
    )
    rng = random.Random(0)
    read = 0
    for _ in range(500):
        broken = bytearray(good)
        for _ in range(rng.randint(1, 30)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            broken = broken[: rng.randrange(len(broken))]
        for record in result_records(bytes(broken)):
            assert record["url"] and all(isinstance(value, str) for value in record.values())
            read += 1
    assert 0 < read < 2500
    assert list(result_records(b"")) == list(result_records(bytes(100))) == []


def test_queries_of_a_class_take_turns_and_bring_no_address_twice(tmp_path):
    def answer(query, first):
        if first:
            return b""
        urls = {"a": ["1", "2", "3", "4"], "b": ["2", "5", "1", "6"], "c": ["7"]}[query]
        return page(*({"murl": f"http://0.test/{url}.jpg"} for url in urls))

    steps = []
    with serving(host := answering(answer)):
        found = ask(engine_of(host), {"x": ["a", "b"], "y": ["c"], "z": ["a"]}, 8, None, steps)
    rows = [(one.label, one.query, one.rank, one.url[14:15]) for one in found]
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
    assert (0, "x: 8 results") in steps


def test_a_query_without_results_is_made_up_for_by_another(tmp_path):
    with serving(host := answering(lambda query, first: paged(5)(query, first) * (query == "b"))):
        found = ask(engine_of(host), {"x": ["a", "b"]}, 10, tmp_path)
    assert [(one.query, one.rank) for one in found] == [("b", rank) for rank in range(5)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><h1>Please prove that you are human</h1>captcha</html>",
        b"\xff\xfe\x00garbage",
    ],
)
def test_no_results_name_the_page_that_shows_why(tmp_path, body):
    folder = tmp_path / "not" / "yet"
    with serving(host := answering(lambda query, first: body)), pytest.raises(WorldError) as caught:
        ask(engine_of(host), ["zebra"], folder=folder)
    assert caught.value.exit_code == 3
    kept = folder / "no-results.html"
    assert kept.read_bytes() == body
    assert str(kept) in str(caught.value)
    assert f"127.0.0.1:{host.server_port} gave no results for 'zebra'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [500, 404, 429, 403, 204])
def test_an_error_of_the_engine_is_named(tmp_path, status):
    with serving(host := answering(lambda q, first: status)), pytest.raises(WorldError) as caught:
        ask(engine_of(host), ["cat"], folder=tmp_path)
    assert f"127.0.0.1:{host.server_port}: it answered {status}" in str(caught.value)
    assert host.requests["/images/async"] == 1


def failure_at(address, folder):
    start = time.monotonic()
    with pytest.raises(WorldError) as caught:
        ask(SearchEngine("test", address, 0.0), ["cat"], folder=folder)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_refused_connection_is_one_line_soon(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        text = failure_at(f"http://127.0.0.1:{port}/images/async", tmp_path)
    assert f"search for 'cat' failed: 127.0.0.1:{port}: connection refused" in text
    assert "check the network" in text


def test_a_broken_answer_is_one_line(tmp_path):
    def route(request):
        request.wfile.write(b"\x00\n\xff\n")
        request.close_connection = True

    with serving(host := Host({"/images/async": route})):
        failure_at(engine_of(host).address, tmp_path)


def test_a_silent_engine_is_waited_for_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.crawl.search.PAGE_TIMEOUT", 0.3)
    with serving(host := answering(lambda query, first: time.sleep(1) or b"")):
        assert "no answer in 0.3 s" in failure_at(engine_of(host).address, tmp_path)


def test_pages_keep_their_distance():
    with serving(host := answering(paged(45))):
        ask(engine_of(host, 0.15), ["cat"], 400)
    gaps = [later - earlier for earlier, later in zip(host.starts, host.starts[1:], strict=False)]
    assert len(gaps) == 3 and min(gaps) >= 0.15


def test_the_engine_learns_who_asks_and_no_thread_stays():
    before = threading.active_count()
    with serving(host := answering(paged(5))):
        ask(engine_of(host), ["cat"])
    assert {headers["User-Agent"] for headers in host.headers} == {"kd3-test/1"}
    assert threading.active_count() <= before


def test_environment_proxies_are_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with serving(host := answering(paged(3))):
        assert len(ask(engine_of(host), ["cat"])) == 3


def test_candidates_are_in_the_order_of_the_classes():
    with serving(host := answering(paged(2))):
        found = ask(engine_of(host), ["b", "a"])
    assert found == [
        Candidate(label, name, "test", name, rank, f"http://0.test/{name}/{rank}.jpg")
        for label, name in enumerate("ba")
        for rank in range(2)
    ]
