"""The pace of a host that refuses some addresses for ever, and gives the others at once."""

import itertools
import random
import time
from collections import Counter

import pytest

from kd3_pipeline.crawl import exchange, scheduler
from kd3_pipeline.crawl import fetch as module
from tests.crawl.hosts import Host, candidates_of, crawl, image, outcomes, reply, serving
from tests.crawl.test_scheduler import pace

GAP = 0.02  # seconds


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Pauses that are as much shorter than usual as the gap between two requests is."""
    monkeypatch.setattr(module, "BACK_OFF", 0.1)
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.1)


def picky(ill, status, count=100, **headers):
    """A host that refuses these of its pictures; the last time it is asked for each is kept."""
    host = Host({f"/{n}.jpg": image(n) for n in range(count)})
    for number in ill:
        host.routes[f"/{number}.jpg"] = reply(b"", status, **headers)
    return host


def crawled(folder, host, count=100, **limits):
    """Counts of the outcomes, and seconds from the first request to the last."""
    with serving(host) as table:
        candidates = candidates_of([f"http://0.test/{n}.jpg" for n in range(count)])
        limits = {"robots": False, "opt_outs": "none", "host_gap": GAP} | limits
        limits = {"connections_per_host": 2, "patience": 30.0} | limits
        found = crawl(folder, candidates, table, **limits)
    return Counter(outcomes(found).values()), host.starts[-1] - host.starts[0]


@pytest.mark.parametrize(
    ("status", "headers"),
    [(503, {}), (429, {}), (429, {"Retry_After": "0"}), (503, {"Retry_After": "0"})],
)
def test_a_tenth_that_is_refused_for_ever_costs_little(tmp_path, status, headers):
    host = picky(range(9, 100, 10), status, **headers)
    counts, seconds = crawled(tmp_path, host)
    assert counts == {"ok": 90, "not_now": 10}
    assert {host.requests[f"/{n}.jpg"] for n in range(9, 99, 10)} == {3}
    assert {host.requests[f"/{n}.jpg"] for n in range(0, 100, 10)} == {1}
    assert seconds < 5 * 100 * GAP


@pytest.mark.parametrize("status", [503, 429])
def test_a_pause_that_a_well_host_names_for_an_address_holds_nobody_else_up(
    tmp_path, monkeypatch, status
):
    """A pause that is named is a second at least: here a tenth of what it says is kept."""
    named = exchange.retry_after
    monkeypatch.setattr(exchange, "retry_after", lambda headers: (named(headers) or 0) / 10 or None)
    host = picky(range(9, 60, 10), status, 60, Retry_After="1")
    counts, seconds = crawled(tmp_path, host, 60)
    assert counts == {"ok": 54, "not_now": 6}
    for number in range(9, 59, 10):
        asked = [
            start
            for start, target in zip(host.starts, host.targets, strict=True)
            if target == f"/{number}.jpg"
        ]
        assert len(asked) == 3
        assert all(later - one >= 0.099 for one, later in itertools.pairwise(asked))
    assert seconds < 3  # it was 20: each address was taken for a sign of a slower host


@pytest.mark.slow
@pytest.mark.parametrize("status", [503, 429])
def test_a_third_that_is_refused_for_ever_does_not_stop_the_rest(tmp_path, status):
    counts, seconds = crawled(tmp_path, picky(range(2, 60, 3), status, 60), 60)
    assert counts == {"ok": 40, "not_now": 20}
    assert seconds < 10 * 100 * GAP


@pytest.mark.slow
def test_a_pause_that_an_address_asks_for_is_kept_each_time(tmp_path):
    host = picky([3], 429, 8, Retry_After="1")
    counts, _ = crawled(tmp_path, host, 8, patience=3.0)
    assert counts == {"ok": 7, "not_now": 1}
    asked = [
        start for start, target in zip(host.starts, host.targets, strict=True) if target == "/3.jpg"
    ]
    assert 1 < len(asked) <= scheduler.REFUSALS
    assert all(later - one >= 0.99 for one, later in itertools.pairwise(asked))


def test_a_host_that_refuses_what_comes_too_fast_is_asked_slower_at_last(tmp_path):
    """With 503 and no word of when: each address is refused once at most, or it would be lost."""
    host, last = Host(), [0.0]

    def route(request):
        with host.lock:
            now = time.monotonic()
            early, last[0] = now - last[0] < 0.04, now
        if early:
            return reply(b"", 503)(request)
        return image(int(request.path[1:-4]))(request)

    host.otherwise = route
    counts, _ = crawled(tmp_path, host, 60, host_gap=0.005)
    assert counts["ok"] >= 50
    refused = sum(host.requests.values()) - counts["ok"]
    assert refused < 60


def test_the_gap_grows_to_eight_seconds_unless_the_host_names_more():
    host = pace()
    for now in range(9):
        host.slow_down(now, now, scheduler.MOST_UNASKED)
    assert (host.limit, host.gap) == (1, 8.0)
    host = pace()
    for now in range(9):
        host.pause(100.0 * now, 100.0 * now, 20.0)
    assert host.gap == 60.0
    host.slow_down(2000.0, 2000.0, scheduler.MOST_UNASKED)
    assert host.gap == 60.0  # what it asked for is not taken back by a refusal


def test_a_step_that_was_no_sign_of_the_hosts_is_taken_back():
    host = pace()
    host.slow_down(1.0, 1.0)
    host.take_back(0.5)
    assert (host.limit, host.gap) == (8, 0.5)
    host.take_back(20.0)
    assert (host.limit, host.gap) == (8, 0.5)


def busy_once(numbers, status, count, **headers):
    """A host that is busy the first time that it is asked for one of these pictures."""
    host = Host({f"/{n}.jpg": image(n) for n in range(count)})

    def busy(number):
        def route(request):
            again = host.requests[request.path] > 1
            return (image(number) if again else reply(b"", status, **headers))(request)

        return route

    for number in numbers:
        host.routes[f"/{number}.jpg"] = busy(number)
    return host


@pytest.mark.parametrize(
    "headers",
    [{}, {"Retry_After": "0"}, pytest.param({"Retry_After": "1"}, marks=pytest.mark.slow)],
)
def test_a_host_that_is_busy_now_and_then_keeps_its_pace(tmp_path, monkeypatch, headers):
    """One picture in forty, by chance; of a pause that is named a tenth is kept."""
    named = exchange.retry_after

    def shorter(answered):
        seconds = named(answered)
        return None if seconds is None else seconds / 10

    monkeypatch.setattr(exchange, "retry_after", shorter)
    gap, count, busy = 0.005, 600, 15
    host = busy_once(random.Random(0).sample(range(count), busy), 503, count, **headers)
    counts, seconds = crawled(tmp_path, host, count, host_gap=gap)
    assert counts == {"ok": count}
    assert seconds < 2.2 * (count * gap + busy * 0.1)
