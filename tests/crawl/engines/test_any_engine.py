"""What holds for every engine of the registry: any bytes, a budget, and a forecast by it."""

import random

import pytest

from kd3_pipeline.crawl.engines.engine import (
    Budget,
    NoMore,
    NotNow,
    Query,
    Refused,
    Result,
    Unreadable,
    forecast,
    later_start,
    number,
)
from kd3_pipeline.registry import SEARCH_ENGINES
from tests.crawl.engines import test_commons, test_flickr, test_openverse
from tests.crawl.engines.playing import body
from tests.crawl.engines.test_bing import plain_page, results_page

NAMES = tuple(SEARCH_ENGINES.entries)
ANSWERS = (Unreadable, NotNow, Refused, NoMore)


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("FLICKR_API_KEY", "key")
    monkeypatch.delenv("OPENVERSE_TOKEN", raising=False)


@pytest.fixture(params=NAMES)
def engine(request):
    return SEARCH_ENGINES.load(request.param)()


def pages(name):
    """Answers of one engine, good ones first."""
    if name == "bing":
        script = r"/images/async?q=caf%C3%A9\u0026first=0"
        return [
            results_page(range(3), "/images/async?q=a%20cat&first=35", script),
            plain_page(("http://0.test/1.jpg", "a <b>title</b> &amp; \u202e")),
        ]
    if name == "flickr":
        photos = [test_flickr.photo(1) | test_flickr.SIZES]
        failed = {"stat": "fail", "code": 105, "message": "unavailable"}
        return [body(test_flickr.answer_of(photos, 1, 9)), body(failed)]
    if name == "commons":
        files = [test_commons.file(1, 1, thumb=(330, 248), Artist="<i>A &amp; B</i>")]
        more = {"continue": {"gsroffset": 50}}
        failed = {"error": {"code": "cirrussearch-too-busy-error", "info": "busy"}}
        return [body(test_commons.answer_of(files, **more)), body(failed)]
    works = [test_openverse.work(1)]
    failed = {"detail": test_openverse.THROTTLED}
    return [body(test_openverse.answer_of(works, 1, 9)), body(failed)]


def mutated(good, rng):
    broken = bytearray(good)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(broken))
        if rng.random() < 0.7:
            broken[at] = (
                rng.choice(b'\x00"{}[]<>&;:,\\\xff0ae')
                if rng.random() < 0.6
                else rng.randrange(256)
            )
        else:
            del broken[at : at + rng.randint(1, 30)]
        broken = broken or bytearray(b"x")
    return bytes(broken[: rng.randrange(len(broken))] if rng.random() < 0.2 else broken)


def stranger(good, rng):
    """The same JSON with some values replaced by those of other types, sizes and signs."""
    values = (b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b'"\\ud800"', b"[[]]")
    values += (b"9" * 400, b"9" * 5000, b"[" * 2000, b'"' + b"x" * 9000 + b'"')
    pieces = good.split(b": ")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(1, len(pieces)) if len(pieces) > 1 else 0
        _, comma, rest = pieces[at].partition(b",")
        pieces[at] = rng.choice(values) + comma + rest
    return b": ".join(pieces)


def test_any_bytes_are_survived(engine):
    rng = random.Random(0)
    query, small = Query("cat"), Query("cat", side=128)
    read = other = 0
    good, *more = pages(engine.name)
    assert engine.results(good)
    for index in range(2000):
        page = rng.choice([good, good, *more])
        broken = (mutated(page, rng), stranger(page, rng), rng.randbytes(rng.randrange(200)))[
            index % 5 % 3
        ]
        start = engine.first + rng.randrange(3)
        try:
            found = engine.read(broken, rng.choice([query, small]), start)
        except ANSWERS:
            other += 1
        else:
            read += 1
            assert found.next is None or start < found.next <= engine.budget.query_results
            assert len(found.query) <= 2000
            for result in found.results:
                texts = [getattr(result, field) for field in Result.__slots__]
                assert result.url and result.url != result.original
                assert all(isinstance(text, str) and len(text) <= 2000 for text in texts)
        for status in (400, 401, 403, 404, 429, 503):
            refusal = engine.refusal(status, broken)
            assert refusal is None or isinstance(refusal, (NotNow, Refused, NoMore))
            assert refusal is None or str(refusal)
    assert read > 100
    assert other > 100


def test_it_states_what_it_gives_and_keeps_to_it(engine):
    budget = engine.budget
    assert 0 < budget.page_results <= budget.query_results
    assert budget.source
    if budget.per_minute:
        assert engine.page_gap >= 60 / budget.per_minute
    assert engine.page_gap > 0
    assert len(set(engine.variants)) == len(engine.variants)
    assert engine.pages_for(0) == 0
    assert engine.pages_for(1) == 1
    assert engine.pages_for(budget.page_results) == 1
    assert engine.pages_for(budget.page_results + 1) == 2
    most = -(-budget.query_results // budget.page_results)
    assert engine.pages_for(10**9) == most


def test_what_two_queries_ask_for_differs_in_all_that_they_differ_in(engine):
    licence = "public-domain"
    queries = [Query("cat"), Query("dog"), Query("cat", licence=licence)]
    queries += [Query("cat", variant=one) for one in engine.variants]
    queries += [Query("cat", licence=licence, variant=one) for one in engine.variants]
    sent = [engine.address(one, start) for one in queries for start in (engine.first, 70)]
    assert len(set(sent)) == len(sent)


def test_a_forecast_says_how_many_pages_how_fast_and_how_long(monkeypatch):
    def of(name, wanted, **changes):
        engine = SEARCH_ENGINES.load(name)()
        for key, value in changes.items():
            setattr(engine, key, value)
        return forecast(engine, wanted)

    pages = "pages of results for the queries themselves"
    assert of("bing", [1000] * 20) == f"bing: up to 580 {pages}, one a second: about 10 min"
    assert of("commons", [1, 51, 0]) == f"commons: up to 3 {pages}, one a second: about 3 s"
    assert of("openverse", [400] * 10) == (
        f"openverse: up to 120 {pages}, one in 3 s, 200 a day: about 6 min"
    )
    assert of("openverse", [400] * 17) == (
        f"openverse: up to 204 {pages}, one in 3 s, 200 a day: 2 days"
    )
    assert of("bing", [70], page_gap=0.0) == f"bing: up to 2 {pages}: about 1 s"
    assert of("flickr", [4000] * 150) == (f"flickr: up to 6,000 {pages}, one a second: about 1.7 h")
    monkeypatch.setenv("OPENVERSE_TOKEN", "tok")
    assert of("openverse", [400] * 5).endswith("one in 0.6 s, 10,000 a day: about 60 s")


def test_a_budget_without_limits_may_be_stated():
    assert Budget(10, 100) == Budget(page_results=10, query_results=100, per_minute=0, per_day=0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        ("007", 7),
        (0, 0),
        (-1, None),
        (True, None),
        (7.0, None),
        ("7.0", None),
        ("-7", None),
        (" 7", None),
        ("٧", None),
        ("9" * 10, None),
        (10**9, None),
        (None, None),
        ([7], None),
    ],
)
def test_a_number_is_one_without_doubt(value, expected):
    assert number(value) == expected
    assert later_start(value, 6, 8) == (7 if expected == 7 else None)
