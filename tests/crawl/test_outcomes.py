"""What a search makes of an answer, of a refusal for now, and of one for good."""

import json
import time
from collections import Counter
from dataclasses import replace
from email.utils import formatdate

import pytest

from kd3_pipeline.crawl import daily_budget
from kd3_pipeline.crawl import result_pages as pages_module
from kd3_pipeline.crawl.engines.openverse import Openverse
from kd3_pipeline.errors import ExternalError
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
    searched,
)

NO_RESULTS = page()

pytestmark = pytest.mark.usefixtures("short_pauses")


def endings(account):
    """Why each query ended, by query."""
    return {query.query: query.ended for one in account.classes for query in one.queries}


# a refusal for now


@pytest.mark.parametrize("answer", [408, 425, 429, 500, 503, 202, b"", b" \n"])
def test_a_refusal_for_now_is_tried_three_times_and_then_put_off(tmp_path, answer):
    well = []

    def route(query, first):
        return answer if query == "a" and not well else paged(20)(query, first)

    with serving(host := answering(route)) as hosts:
        found, account = searched(hosts, bing(), ["a", "b"], 20, tmp_path)
        assert Counter(one.class_name for one in found) == {"b": 20}
        assert endings(account)["a"].startswith("put off: ")
        assert (account.waiting, account.stopped, account.refused) == (1, "", "")
        well.append(True)
        found, account = searched(hosts, bing(), ["a", "b"], 20, tmp_path)
    assert Counter(one.class_name for one in found) == {"a": 20, "b": 20}
    assert account.waiting == 0
    assert asked(host) == [*[("a", 0)] * 3, ("b", 0), ("a", 0)]


def test_trouble_after_results_keeps_them_and_goes_on_there_next_time(tmp_path):
    well = []

    def answer(query, first):
        return 503 if query == "a" and first == 20 and not well else paged(1000)(query, first)

    with serving(host := answering(answer)) as hosts:
        found, account = searched(hosts, bing(), ["a", "b"], 40, tmp_path)
        assert Counter(one.class_name for one in found) == {"a": 20, "b": 40}
        assert endings(account)["a"] == "put off: it answered 503: oops"
        well.append(True)
        second = find(hosts, bing(), ["a", "b"], 40, tmp_path)
    assert Counter(one.class_name for one in second) == {"a": 40, "b": 40}
    assert asked(host) == [("a", 0), *[("a", 20)] * 3, ("b", 0), ("b", 20), ("a", 20)]


def test_a_query_that_was_put_off_is_not_asked_again_in_this_run(tmp_path):
    with serving(host := answering(lambda q, n: 503 if q == "a" else paged(9)(q, n))) as hosts:
        found, account = searched(hosts, bing(), {"x": ["a", "b"]}, 20, tmp_path)
    assert len(found) == 9 and account.waiting == 1
    assert Counter(query for query, _ in asked(host)) == {"a": 3, "b": 3}


def test_an_engine_that_is_down_is_left_alone_after_three_queries(tmp_path):
    names = [f"class {n}" for n in range(30)]
    with (
        serving(host := answering(lambda q, n: 500)) as hosts,
        pytest.raises(ExternalError, match="it answered 500: oops"),
    ):
        find(hosts, bing(), names, 20, tmp_path)
    assert host.requests[PATH] == 3 * 3


def test_trouble_that_passes_costs_nothing(tmp_path):
    tries = Counter()

    def answer(query, first):
        tries[first] += 1
        return 503 if tries[first] < 3 else paged(40)(query, first)

    with serving(host := answering(answer)) as hosts:
        assert len(find(hosts, bing(), ["cat"], 40, tmp_path)) == 40
    assert host.requests[PATH] == 6


# pauses that are named


@pytest.mark.parametrize("as_date", [False, True])
def test_the_engine_says_how_long_to_wait(tmp_path, as_date):
    asks, told = [], []

    def answer(query, first):
        asks.append(time.time())
        if len(asks) > 1:
            return images(query, range(20))
        # a date has whole seconds
        return 503, {"Retry-After": formatdate(time.time() + 2, usegmt=True) if as_date else "1"}

    def advance(n=1, note=""):
        told.append(note)

    with serving(answering(answer)) as hosts:
        assert len(find(hosts, bing(), ["cat"], 20, tmp_path, advance=advance)) == 20
    assert 0.9 < asks[1] - asks[0] < 3
    assert any("it answered 503: oops; asked again at" in note for note in told)


def test_a_pause_beyond_the_patience_puts_everything_off(tmp_path):
    with serving(
        host := answering(
            lambda q, n: (429, {"Retry-After": "700"}) if q == "b" else paged(20)(q, n)
        )
    ) as hosts:
        before = time.time()
        found, account = searched(hosts, bing(), ["a", "b", "c", "d"], 20, tmp_path)
        assert len(found) == 20
        assert account.waiting == 3, "c and d were never asked"
        assert 690 < account.again_at - before < 720
        assert "pause of 12 min" in account.stopped
        assert asked(host) == [("a", 0), ("b", 0)]
        # whoever never was asked is asked next time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host, "routes", answering(paged(20)).routes)
            assert len(find(hosts, bing(), ["a", "b", "c", "d"], 20, tmp_path)) == 80
    assert asked(host)[2:] == [("b", 0), ("c", 0), ("d", 0)]


def test_patience_is_a_parameter(tmp_path):
    impatient = replace(PLAIN, patience=0.5)
    with (
        serving(host := answering(lambda q, n: (429, {"Retry-After": "1"}))) as hosts,
        pytest.raises(ExternalError, match="pause of 1 s"),
    ):
        find(hosts, bing(), ["cat"], 20, tmp_path, manner=impatient)
    assert host.requests[PATH] == 1


def test_a_service_that_names_short_pauses_for_ever_is_left(tmp_path):
    with (
        serving(host := answering(lambda q, n: (503, {"Retry-After": "0"}))) as hosts,
        pytest.raises(ExternalError, match="it answered 503"),
    ):
        find(hosts, bing(), ["cat", "dog"], 20, tmp_path)
    assert host.requests[PATH] == pages_module.MOST_PAUSES + 1


def test_a_pause_of_no_time_is_no_leave_to_ask_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "RETRY_PAUSE", 0.05)
    with (
        serving(host := answering(lambda q, n: (429, {"Retry-After": "0"}))) as hosts,
        pytest.raises(ExternalError, match="it answered 429"),
    ):
        find(hosts, bing(), ["cat"], 20, tmp_path)
    gaps = [after - before for before, after in zip(host.starts, host.starts[1:], strict=False)]
    assert len(gaps) == pages_module.MOST_PAUSES and min(gaps) >= 0.05


def test_a_limit_a_minute_without_a_pause_is_waited_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_module, "MINUTE", 0.3)

    def route(request):
        if request.asked() == 2:
            request.reply(b"{}", 429)
        else:
            request.reply(b'{"results": [{"url": "http://1.test/%d"}]}' % request.asked())

    with serving(host := Host({"/x": route})) as hosts:
        engine = Openverse("http://0.test/x")
        engine.page_gap = 0.0
        assert len(find(hosts, engine, ["cat"], 2, tmp_path)) == 2
    assert host.starts[2] - host.starts[1] >= 0.3


def test_a_day_that_is_used_up_is_told_and_not_tried(tmp_path):
    engine = bing()
    engine.budget = replace(engine.budget, per_day=3)
    with serving(host := answering(paged(1000))) as hosts:
        for _ in range(2):  # by the next run neither
            found, account = searched(hosts, engine, ["a", "b"], 40, tmp_path)
            assert len(found) == 60 and host.requests[PATH] == 3
            assert "3 requests of a day" in account.stopped
            assert 23 * 3600 < account.again_at - time.time() <= 24 * 3600
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(daily_budget.time, "time", lambda now=time.time: now() + 24 * 3600)
            assert len(find(hosts, engine, ["a", "b"], 40, tmp_path)) == 80


@pytest.mark.parametrize("text", ["", "{", "[null]", '{"a": 1}', "3", '["x"]', "[9e99, 1]"])
def test_a_count_of_the_day_that_cannot_be_read_shuts_nobody_out(tmp_path, text):
    engine = bing()
    engine.budget = replace(engine.budget, per_day=1)
    (tmp_path / "test-day.json").write_text(text)
    with serving(answering(paged(20))) as hosts:
        assert len(find(hosts, engine, ["a"], 20, tmp_path)) == 20


def test_one_query_without_a_readable_page_does_not_end_the_others(tmp_path):
    with serving(host := answering(lambda q, n: b"odd" if q == "b" else paged(9)(q, n))) as hosts:
        found, account = searched(hosts, bing(), ["a", "b", "c"], 9, tmp_path)
    assert {one.class_name for one in found} == {"a", "c"}
    assert (account.waiting, account.stopped) == (1, "")
    assert Counter(query for query, _ in asked(host)) == {"a": 1, "b": 2, "c": 1}


# a refusal for good


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_for_good_is_not_tried_again_and_shows_its_first_line(tmp_path, status):
    def route(request):
        request.reply(b"\n  Please set a user-agent\x1b[31m\n more", status)

    with serving(host := Host({PATH: route})) as hosts, pytest.raises(ExternalError) as caught:
        find(hosts, bing(), ["cat", "dog"], 40, tmp_path)
    text = str(caught.value)
    assert f"test: no results: 0.test: it answered {status}: Please set a user-agent [31m" in text
    kept = tmp_path / f"test-{status}.html"
    assert str(kept) in text and kept.read_bytes().endswith(b" more")
    assert caught.value.exit_code == 3 and "\n" not in text
    assert host.requests[PATH] == 1


def test_a_refusal_for_good_after_results_keeps_what_was_found(tmp_path):
    with serving(host := answering(lambda q, n: 403 if q == "b" else paged(20)(q, n))) as hosts:
        found, account = searched(hosts, bing(), ["a", "b", "c"], 20, tmp_path)
    assert Counter(one.class_name for one in found) == {"a": 20}
    assert account.refused == "it answered 403: oops"
    assert endings(account)["c"] == "refused: it answered 403: oops"
    assert asked(host) == [("a", 0), ("b", 0)]


def test_of_a_page_of_html_the_first_words_are_shown(tmp_path):
    body = b"<!DOCTYPE html><html><head><style>p{}</style></head>\n<p>No\nrobots</p>"
    with (
        serving(Host({PATH: lambda request: request.reply(body, 403)})) as hosts,
        pytest.raises(ExternalError, match="403: No"),
    ):
        find(hosts, bing(), ["cat"], 40, tmp_path)


def test_a_secret_is_not_in_what_is_kept_or_shown(tmp_path):
    engine = bing()
    engine.secrets = {"key": "s3cret"}
    with (
        serving(Host({PATH: lambda request: request.reply(b"wrong s3cret", 401)})) as hosts,
        pytest.raises(ExternalError) as caught,
    ):
        find(hosts, engine, ["cat"], 40, tmp_path)
    assert "s3cret" not in str(caught.value) and "wrong ***" in str(caught.value)
    assert (tmp_path / "test-401.html").read_bytes() == b"wrong ***"


@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>Please prove that you are human</h1>captcha</html>",
        b'{"error": {"code": 403}}',
        b"\xff\xfe\x00garbage",
        page("{malformed", "[]"),
    ],
)
def test_a_page_that_is_none_of_results_is_asked_for_once_more_and_kept(tmp_path, body):
    folder = tmp_path / "not" / "yet"
    with (
        serving(host := answering(lambda query, first: body)) as hosts,
        pytest.raises(ExternalError) as caught,
    ):
        find(hosts, bing(), ["zebra"], 40, folder)
    kept = folder / "unreadable.html"
    assert kept.read_bytes() == body
    text = str(caught.value)
    for part in ("test: ", "no page of results", str(kept), "pipeline doctor --engine test"):
        assert part in text
    assert host.requests[PATH] == 2


def test_a_captcha_in_the_middle_ends_the_search_and_it_goes_on_there(tmp_path):
    human = []

    def answer(query, first):
        return images(query, range(first, first + 20)) if human or first < 40 else b"captcha"

    with serving(host := answering(answer)) as hosts:
        found, account = searched(hosts, bing(), ["cat"], 80, tmp_path)
        assert len(found) == 40 and "no page of results" in endings(account)["cat"]
        human.append(True)
        assert len(find(hosts, bing(), ["cat"], 80, tmp_path)) == 80
    assert asked(host) == [("cat", n) for n in (0, 20, 40, 40, 40, 60)]


# empty and repeated pages


def test_an_empty_page_is_asked_for_once_more(tmp_path):
    passed = Counter()

    def answer(query, first):
        passed[first] += 1
        return NO_RESULTS if passed[first] == 1 and first in (0, 40) else paged(60)(query, first)

    with serving(host := answering(answer)) as hosts:
        assert len(find(hosts, bing(), ["cat"], 60, tmp_path)) == 60
    assert asked(host) == [("cat", n) for n in (0, 0, 20, 40, 40)]


def test_a_repeated_page_is_asked_for_once_more(tmp_path):
    passed = Counter()

    def answer(query, first):
        passed[first] += 1
        return paged(60)(query, 0 if passed[first] == 1 else first)

    with serving(host := answering(answer)) as hosts:
        assert len(find(hosts, bing(), ["cat"], 60, tmp_path)) == 60
    assert asked(host) == [("cat", n) for n in (0, 20, 20, 40, 40)]


def test_an_empty_first_page_is_never_kept_as_the_truth(tmp_path):
    full = []

    def answer(query, first):
        return paged(5)(query, first) if query == "b" or full else NO_RESULTS

    with serving(host := answering(answer)) as hosts:
        found, account = searched(hosts, bing(), {"x": ["a", "b"]}, 20, tmp_path)
        assert [(one.query, one.rank) for one in found] == [("b", rank) for rank in range(5)]
        assert endings(account) == {
            "a": "no results, twice",
            "b": "its next page is empty, twice",
        }
        before = len(asked(host))
        full.append(True)
        assert len(find(hosts, bing(), {"x": ["a", "b"]}, 20, tmp_path)) == 10
    assert asked(host)[before:] == [("a", 0), ("a", 5), ("a", 5)]


def test_without_any_result_the_search_fails_and_says_what_it_asked(tmp_path):
    with (
        serving(host := answering(lambda q, n: NO_RESULTS)) as hosts,
        pytest.raises(ExternalError) as caught,
    ):
        find(hosts, bing(), {"a": ["one"], "b": ["two"]}, 20, tmp_path)
    assert "test: no results for 'one', 'two'" in str(caught.value)
    assert (tmp_path / "unreadable.html").read_bytes() == NO_RESULTS
    assert len(asked(host)) == 4


def test_a_class_without_results_does_not_keep_the_others_from_theirs(tmp_path):
    with serving(answering(lambda q, n: NO_RESULTS if q == "b" else paged(5)(q, n))) as hosts:
        found, account = searched(hosts, bing(), ["a", "b", "c"], 5, tmp_path)
    assert Counter(one.class_name for one in found) == {"a": 5, "c": 5}
    assert account.why(account.classes[1]) == "test gave no results for 1 query"


def test_the_engines_limit_ends_a_query_and_is_told_and_kept(tmp_path):
    def route(request):
        number = int(request.path.partition("page=")[2].partition("&")[0])
        if number > 2:
            request.reply(b'{"detail": "may not exceed a total of 240 results"}', 401)
        else:
            request.reply(b'{"results": [{"url": "http://1.test/%d"}]}' % number)

    with serving(host := Host({"/x": route})) as hosts:
        engine = Openverse("http://0.test/x")
        engine.page_gap = 0.0
        for _ in range(2):
            found, account = searched(hosts, engine, ["cat"], 40, tmp_path)
            assert len(found) == 2
            assert endings(account) == {"cat": "may not exceed a total of 240 results"}
    assert len(host.targets) == 3, "the second search asked for nothing"


@pytest.mark.parametrize("status", [200, 401, 403, 500])
def test_a_token_that_an_answer_repeats_is_neither_told_nor_kept(tmp_path, monkeypatch, status):
    monkeypatch.setenv("OPENVERSE_TOKEN", "token-of-ours")

    def route(request):
        said = f"not valid: {request.headers['Authorization']}"
        request.reply(json.dumps({"detail": said}).encode(), status)

    with serving(Host({"/x": route})) as hosts:
        engine = Openverse("http://0.test/x")
        engine.page_gap = 0.0
        with pytest.raises(ExternalError, match="not valid: Bearer") as caught:
            find(hosts, engine, ["cat"], 2, tmp_path)
    assert "token-of-ours" not in str(caught.value)
    (kept,) = tmp_path.glob("*.html")
    assert b"Bearer ***" in kept.read_bytes()
    assert not any(
        b"token-of-ours" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
