import asyncio
import itertools
import math
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl import pauses, scheduler
from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.scheduler import (
    ILL_AFTER,
    REFUSALS,
    Job,
    Scheduler,
)
from kd3_pipeline.crawl.scheduler import Host as Pace
from kd3_pipeline.errors import ExternalError
from tests.crawl.hosts import (
    LIMITS,
    Host,
    candidates_of,
    crawl,
    image,
    outcomes,
    raw,
    redirect,
    reply,
    serving,
    silent,
)

ROOT = Path(__file__).parents[2]


def pace(most=8, least_gap=0.5):
    return Pace("0.test", most, least_gap, most, least_gap)


# the pace of one host


def test_a_busy_host_is_asked_half_as_often_by_half_as_many():
    host, seen = pace(), []
    for now in range(9):
        host.slow_down(now, now)
        seen.append((host.limit, host.gap))
    assert seen[:4] == [(4, 1.0), (2, 2.0), (1, 4.0), (1, 8.0)]
    assert seen[-1] == (1, 60.0)


def test_ten_good_answers_in_a_row_undo_one_step_and_no_more_than_was_done():
    host, seen = pace(), []
    for now in range(4):
        host.slow_down(now, now)
    for _ in range(9):
        host.speed_up(3000.0)
    assert (host.limit, host.gap) == (1, 8.0)
    host.slow_down(9.0, 9.0)  # not in a row
    for _ in range(60):
        host.speed_up(3000.0)
        if (host.limit, host.gap) not in seen:
            seen.append((host.limit, host.gap))
    assert seen == [(1, 16.0), (2, 8.0), (4, 4.0), (8, 2.0), (8, 1.0), (8, 0.5)]


@pytest.mark.parametrize("least_gap", [0.0, 0.3, 0.5, 0.7, 1.0, 3.0, 45.0, 90.0])
def test_the_pace_never_exceeds_the_parameters(least_gap):
    rng, host = random.Random(1), pace(5, least_gap)
    for now in range(2000):
        if rng.random() < 0.05:
            before = host.gap
            host.slow_down(now, now)
            assert host.gap == max(min(2 * before, 60.0), least_gap)
        else:
            host.speed_up(3000.0)
        assert 1 <= host.limit <= 5
        assert host.gap >= least_gap
    for _ in range(100):
        host.speed_up(3000.0)
    assert (host.limit, host.gap) == (5, least_gap)


def test_answers_to_what_was_asked_together_are_one_sign():
    host = pace()
    for asked in (1.0, 1.1, 1.2):
        assert host.slow_down(2.0, asked) == (asked == 1.0)
    assert (host.limit, host.gap) == (4, 1.0)
    host.slow_down(3.0, 2.5)
    assert (host.limit, host.gap) == (2, 2.0)


def test_a_named_pause_delays_the_next_request():
    host = pace()
    assert host.pause(100.0, 99.0, 7.0)
    assert (host.next_start, host.paused_until) == (107.0, 107.0)
    assert not host.pause(101.0, 99.0, 1.0)  # was under way together with the first
    assert (host.next_start, host.waited, host.refusals) == (107.0, 7.0, 1)
    assert not host.pause(101.0, 99.0, 10.0)  # this one knows better
    assert (host.next_start, host.waited, host.refusals) == (111.0, 11.0, 1)


@pytest.mark.parametrize(("named", "first"), [(None, 0.5), (0.0, 0.0), (1.0, 1.0)])
def test_pauses_in_vain_grow_whatever_the_host_says(named, first):
    host, now, lengths = pace(), 10.0, []
    for _ in range(REFUSALS):
        host.pause(now, now, named)
        lengths.append(host.paused_until - now)
        now = host.paused_until
    assert lengths[0] == first
    assert lengths[-1] == (64.0 if named is None else 32.0)
    assert lengths == sorted(lengths)
    assert host.refusals == REFUSALS
    assert host.waited == sum(lengths) > 60  # a limit by the minute has passed by then
    host.speed_up(now)
    assert (host.refusals, host.waited) == (0, sum(lengths) - 30)


def test_a_good_answer_to_what_was_asked_before_a_refusal_ends_no_pause():
    host = pace()
    host.pause(10.0, 9.0, 5.0)
    host.speed_up(9.5)
    assert (host.refusals, host.waited) == (1, 5.0)
    host.speed_up(15.0)
    assert (host.refusals, host.waited) == (0, 0.0)


@pytest.mark.parametrize("named", [True, False])
def test_a_limit_by_the_minute_is_learnt_from_the_first_refusal(named):
    """A host that gives 60 a minute from its first answer on."""
    host, now, given, refusals, start = pace(2, 0.0), 0.0, 0, [], 0.0
    host.since = 0.0
    used = 0
    while given < 400:
        now = max(now + 0.01, host.next_start)
        if now >= start + 60:
            start, used = now, 0
        used += 1
        if used > 60:
            refusals.append(now)
            host.pause(now, now, start + 60 - now if named else None)
        else:
            given += 1
            host.speed_up(now)
            host.next_start = now + host.gap
    assert 330 < now < 480
    assert len(refusals) <= (4 if named else 30)


@pytest.mark.parametrize("named", [True, False])
def test_a_limit_that_fills_up_again_is_learnt_too(named):
    """A host that gives 60 at once, and then one a second."""
    host, now, given, refusals, left, filled = pace(2, 0.0), 0.0, 0, [], 60.0, 0.0
    host.since = 0.0
    while given < 400:
        now = max(now + 0.01, host.next_start)
        left, filled = min(60.0, left + now - filled), now
        if left < 1:
            refusals.append(now)
            host.pause(now, now, float(math.ceil(1 - left)) if named else None)
        else:
            left -= 1
            given += 1
            host.speed_up(now)
            host.next_start = now + host.gap
    assert 330 < now < 480
    assert len(refusals) <= 12


def test_a_pace_that_few_answers_tell_of_is_left_soon():
    host, now = pace(8, 0.0), 51.0
    host.since = 0.0
    for early in range(3):
        host.speed_up(early / 100)
    host.pause(0.1, 0.1, 50.0)
    host.speed_up(now)
    assert 17 < host.gap < 18
    while host.gap > 0.5:
        now += host.gap
        host.speed_up(now)
    assert now < 450


# taking turns


def taken(add, workers, most=2, gap=0.0, seconds=0.01):
    """The jobs in the order in which workers got them, as (time, host, address)."""
    order = []

    async def work(plan):
        while (job := await plan.next()) is not None:
            order.append((asyncio.get_running_loop().time(), job.host.name, job.address))
            await asyncio.sleep(seconds)
            plan.done(job.host)
            if len(order) == plan.wanted:
                plan.close()

    async def run():
        plan = Scheduler(most, gap)
        plan.wanted = add(plan)
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work(plan))

    asyncio.run(asyncio.wait_for(run(), 10))
    return order


def test_hosts_take_turns_however_many_jobs_they_have():
    def add(plan):
        for name, count in (("many", 60), ("few", 5), ("one", 1)):
            for number in range(count):
                plan.add(Job(f"{name}{number}", str(number), plan.host(name)))
        return 66

    order = taken(add, workers=3, most=3)
    assert {name for _, name, _ in order[:3]} == {"many", "few", "one"}
    assert Counter(name for _, name, _ in order[:12])["few"] >= 4
    assert [int(number) for _, name, number in order if name == "many"] == list(range(60))


def test_a_gap_holds_up_its_own_host_alone():
    def add(plan):
        plan.host("slow").gap = 0.15
        for number in range(4):
            plan.add(Job(f"s{number}", "", plan.host("slow")))
        for number in range(40):
            plan.add(Job(f"q{number}", "", plan.host("quick")))
        return 44

    order = taken(add, workers=2, seconds=0.001)
    slow = [when for when, name, _ in order if name == "slow"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(slow)]
    assert min(gaps) >= 0.149
    assert sum(when < slow[1] for when, name, _ in order if name == "quick") == 40


def test_a_job_that_waits_takes_no_worker_and_then_comes_first():
    def add(plan):
        plan.add(Job("late", "late", plan.host("a")), after=0.1)
        for number in range(40):
            plan.add(Job(f"{number}", str(number), plan.host("a")))
        return 41

    order = taken(add, workers=1, most=1, seconds=0.005)
    place = [address for _, _, address in order].index("late")
    assert 0 < place < 40
    assert order[place][0] - order[0][0] < 0.15


def test_a_job_that_comes_late_wakes_a_worker():
    def add(plan):
        asyncio.get_running_loop().call_later(0.05, lambda: plan.add(Job("x", "x", plan.host("a"))))
        return 1

    assert len(taken(add, workers=5)) == 1


def test_what_waits_for_a_host_can_be_taken_away():
    async def run():
        plan = Scheduler(2, 0.0)
        for number in range(3):
            plan.add(Job(f"{number}", "", plan.host("a")), after=number / 10)
            plan.add(Job(f"b{number}", "", plan.host("b")))
        assert [job.url for job in plan.drain(plan.host("a"))] == ["0", "1", "2"]
        assert plan.drain(plan.host("a")) == []
        got = [await plan.next(), await plan.next()]
        assert [job.url for job in got] == ["b0", "b1"]

    asyncio.run(asyncio.wait_for(run(), 5))


def test_many_jobs_are_handed_out_in_no_time():
    def add(plan):
        for number in range(30_000):
            plan.add(Job("", "", plan.host(f"{number % 3000}.test")))
        return 30_000

    start = time.process_time()
    assert len(taken(add, workers=64, seconds=0)) == 30_000
    assert time.process_time() - start < 6  # under 1 s when nothing else runs


MEMORY = """
import re, sys, time
from pathlib import Path
from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.backlog import Backlog
from tests.crawl.hosts import LIMITS, Host, candidates_of, serving, image
from kd3_pipeline.crawl.http import Web

count, stop = int(sys.argv[2]), Exception("enough")
host = Host()
host.otherwise = image(1)

def report(label, outcome):
    raise stop

with serving(host) as hosts, Journal(Path(sys.argv[1])) as journal:
    hosts = {f"{n}.test": hosts["0.test"] for n in range(3000)}
    urls = [f"http://{n % 3000}.test/pictures/of/something/{n:09}.jpg" for n in range(count)]
    candidates = candidates_of(urls)
    unasked = {"robots": False, "opt_outs": "none"}
    params = LIMITS.model_copy(update={"per_class": count} | unasked)
    try:
        module.fetch(candidates, params, journal, Web("x", hosts), report)
    except Exception as error:
        assert error is stop
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize(
    ("count", "most"), [(20_000, 250_000), pytest.param(100_000, 500_000, marks=pytest.mark.slow)]
)
def test_many_queued_candidates_take_little_memory(tmp_path, count, most):
    command = [sys.executable, "-c", MEMORY, str(tmp_path), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < most  # KiB


# seen at the server


def test_a_host_never_has_more_connections_than_allowed(tmp_path):
    # written in several ways, it is one host all the same
    host = Host({f"/{n}.jpg": image(n, seconds=0.03) for n in range(24)})
    with serving(host) as hosts:
        names = ["http://0.test", "http://0.TEST", "http://0.test:80", "HTTP://0.test:8080"]
        urls = [f"{names[n % 4]}/{n}.jpg" for n in range(24)]
        found = crawl(tmp_path, candidates_of(urls), hosts, connections_per_host=3)
    assert set(outcomes(found).values()) == {"ok"}
    assert host.most_at_once == 3


def test_a_redirect_counts_against_the_host_it_leads_to(tmp_path):
    target = Host({f"/{n}.jpg": image(n, seconds=0.03) for n in range(20)})
    doors = [
        Host({f"/{n}.jpg": redirect(f"http://4.test/{n}.jpg") for n in range(20)}) for _ in range(4)
    ]
    with serving(*doors, target) as hosts:
        urls = [f"http://{n % 4}.test/{n}.jpg" for n in range(20)]
        found = crawl(tmp_path, candidates_of(urls), hosts, connections_per_host=2)
    assert set(outcomes(found).values()) == {"ok"}
    assert target.most_at_once == 2


def test_requests_to_one_host_keep_their_distance(tmp_path):
    host = Host({f"/{n}.jpg": image(n) for n in range(5)})
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(5)]
        crawl(tmp_path, candidates_of(urls), hosts, host_gap=0.2, opt_outs="none")
    gaps = [later - earlier for earlier, later in zip(host.starts, host.starts[1:], strict=False)]
    assert len(gaps) == 5  # robots.txt is a request, too
    assert min(gaps) > 0.15


def test_waiting_for_a_host_does_not_count_against_the_time_of_an_image(tmp_path):
    host = Host({f"/{n}.jpg": image(n, seconds=0.15) for n in range(10)})
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(10)]
        found = crawl(tmp_path, candidates_of(urls), hosts, connections_per_host=1, timeout=0.6)
    assert set(outcomes(found).values()) == {"ok"}
    assert set(host.requests.values()) == {1}


def test_a_slow_host_does_not_hold_up_another(tmp_path):
    slow = Host({f"/{n}.jpg": image(n, seconds=0.4) for n in range(6)})
    quick = Host({f"/{n}.jpg": image(n + 50) for n in range(6)})
    with serving(slow, quick) as hosts:
        urls = [f"http://{host}.test/{n}.jpg" for n in range(6) for host in (0, 1)]
        crawl(tmp_path, candidates_of(urls), hosts, connections_per_host=2)
    assert quick.starts[-1] < slow.starts[-1]


@pytest.mark.slow
def test_a_host_that_is_busy_is_asked_less_until_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.0)
    host = Host()

    def route(request):
        if host.images_asked() <= 2:
            reply(b"", 429)(request)
        else:
            image(int(request.path[1:-4]))(request)

    host.routes = {f"/{n}.jpg": route for n in range(30)}
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(30)]
        found = crawl(tmp_path, candidates_of(urls), hosts, host_gap=0.02, connections_per_host=1)
    assert set(outcomes(found).values()) == {"ok"}
    starts = host.starts[1:]  # without robots.txt
    slow, fast = starts[10] - starts[4], starts[-1] - starts[-7]
    assert slow > 6 * 0.06  # four times the gap, for ten good answers
    assert fast < 0.8 * slow  # and at last as before


@pytest.mark.slow
def test_retry_after_is_kept_by_the_whole_host_and_by_no_other(tmp_path, monkeypatch):
    busy = Host({f"/{n}.jpg": image(n) for n in range(8)})
    busy.routes["/0.jpg"] = lambda request: (
        reply(b"", 503, Retry_After="1") if request.asked() == 1 else image(0)
    )(request)
    other = Host({f"/{n}.jpg": image(20 + n) for n in range(8)})
    with serving(busy, other) as hosts:
        urls = [f"http://{host}.test/{n}.jpg" for n in range(8) for host in (0, 1)]
        found = crawl(tmp_path, candidates_of(urls), hosts, opt_outs="none", connections_per_host=1)
    assert set(outcomes(found).values()) == {"ok"}
    assert busy.starts[2] - busy.starts[1] > 0.95
    assert other.starts[-1] < busy.starts[2]


def test_a_host_that_wants_a_longer_pause_than_patience_is_left_to_the_next_run(tmp_path):
    busy = Host({f"/{n}.jpg": reply(b"Come later", 503, Retry_After="31") for n in range(50)})
    other = Host({f"/{n}.jpg": image(n) for n in range(5)})
    start, notes, backlog = time.time(), [], Backlog()
    with serving(busy, other) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(50)]
        urls += [f"http://1.test/{n}.jpg" for n in range(5)]
        candidates = candidates_of(urls)
        found = crawl(
            *(tmp_path, candidates, hosts),
            **{"connections_per_host": 2, "patience": 30.0, "notes": notes, "backlog": backlog},
        )
        assert Counter(outcomes(found).values()) == {"not_now": 50, "ok": 5}
        asked = busy.images_asked()
        assert asked <= 2
        assert time.time() - start < 5
        details = Counter(one.detail for one in found.values() if one.outcome == "not_now")
        assert details == {
            "0.test: 503: Come later": asked,
            "not asked: 0.test asks for 31 s (503: Come later)": 50 - asked,
        }
        assert notes == ["0.test is left to the next run: it asks for 31 s (503: Come later)"]
        told = backlog.summary(found, 1000)
        again_at = datetime.fromisoformat(told["hosts"]["0.test"].pop("again_at"))
        assert 0 <= again_at.timestamp() - start - 30 < 5
        why = "asks for 31 s (503: Come later)"
        assert told == {"images": 50, "hosts": {"0.test": {"images": 50, "why": why}}}
        # another round of this run asks for none of them, the next run for all
        more = [*candidates, *candidates_of([f"http://0.test/{n}.jpg" for n in range(60)])]
        crawl(tmp_path, more, hosts, backlog=backlog, patience=30.0)
        assert busy.images_asked() == asked
        busy.routes = {f"/{n}.jpg": image(n + 10) for n in range(50)}
        found = crawl(tmp_path, candidates, hosts)
        assert Counter(outcomes(found).values()) == {"ok": 55}
        assert busy.images_asked() == asked + 50
        assert other.images_asked() == 5


def test_a_host_that_refuses_for_ever_is_put_off_after_a_few_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.002)
    host = Host()
    host.otherwise = reply(b"<h1>Too many\nrequests</h1>", 429, Content_Type="text/html")
    host.routes = {"/robots.txt": reply(b"", 404)}
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(300)]
        found = crawl(tmp_path, candidates_of(urls), hosts, patience=600.0, opt_outs="none")
    assert set(outcomes(found).values()) == {"not_now"}
    assert REFUSALS <= host.images_asked() < REFUSALS + LIMITS.connections_per_host
    # its addresses are asked for in turns: it may refuse one, and give another
    assert len(host.requests) > REFUSALS
    details = {record.detail for record in found.values()}
    assert details == {
        "0.test: 429: Too many",
        f"not asked: 0.test refused {REFUSALS} times in a row (429: Too many)",
    }


@pytest.mark.parametrize("status", [500, 503])
def test_a_host_that_is_ill_is_put_off_after_thirty_answers(tmp_path, monkeypatch, status):
    monkeypatch.setattr(module, "BACK_OFF", 0.001)
    host = Host({"/robots.txt": reply(b"", 404)} | {f"/{n}.jpg": image(n) for n in range(30, 60)})
    host.otherwise = reply(b"Oops", status)
    with serving(host) as hosts:
        candidates = candidates_of([f"http://0.test/{n}.jpg" for n in range(60)])
        limits = {"connections_per_host": 2, "opt_outs": "none"}
        found = crawl(tmp_path, candidates, hosts, **limits)
        assert set(outcomes(found).values()) == {"not_now"}
        asked = len(host.requests) - 1
        assert ILL_AFTER <= host.images_asked() < ILL_AFTER + 2
        details = Counter(record.detail for record in found.values())
        why = f"gave {ILL_AFTER} such answers in a row ({status}: Oops)"
        assert details == {
            f"not asked: 0.test {why}": 60 - asked,
            f"0.test: {status}: Oops": asked,
        }
        # the next run begins with what was not asked: these thirty cannot hide those for ever
        for _ in range(3):
            found = crawl(tmp_path, candidates, hosts, **limits)
    assert Counter(outcomes(found).values()) == {"not_now": 30, "ok": 30}


@pytest.mark.slow
def test_a_host_that_gives_too_little_for_its_pauses_is_put_off(tmp_path):
    host = Host()

    def route(request):
        if host.images_asked() % 2:
            image(host.images_asked())(request)
        else:
            reply(b"", 429, Retry_After="1")(request)

    host.otherwise, host.routes = route, {"/robots.txt": reply(b"", 404)}
    with serving(host) as hosts, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "EARNED", 0.5)
        urls = [f"http://0.test/{n}.jpg" for n in range(40)]
        limits = {"connections_per_host": 1, "patience": 2.0, "opt_outs": "none"}
        found = crawl(tmp_path, candidates_of(urls), hosts, **limits)
    assert Counter(outcomes(found).values()) == {"ok": 4, "not_now": 36}


def limited(count, seconds, named=True):
    """A host that gives so many images in so many seconds, and says when it gives more."""
    host, window = Host(), {"start": 0.0, "given": 0}

    def route(request):
        with host.lock:
            now = time.monotonic()
            if now >= window["start"] + seconds:
                window.update(start=now, given=0)
            window["given"] += 1
            left = window["start"] + seconds - now
            over = window["given"] > count
        if not over:
            return image(int(request.path[1:-4]))(request)
        headers = {"Retry-After": str(math.ceil(left))} if named else {}
        return request.reply(b"Too many requests", 429, headers)

    host.otherwise, host.routes = route, {"/robots.txt": reply(b"", 404)}
    return host


@pytest.mark.parametrize("named", [True, False])
def test_a_host_with_a_limit_gives_all_of_its_images_and_holds_nobody_up(
    tmp_path, monkeypatch, named
):
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(pauses, "TOLD", 0.3)
    host, other = limited(20, 1.0, named), Host()
    other.otherwise = image(0, seconds=0.02)
    with serving(host, other) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(70)]
        urls += [f"http://1.test/{n}.jpg" for n in range(60)]
        notes = []
        found = crawl(
            tmp_path, candidates_of(urls), hosts, notes=notes, patience=3.0, opt_outs="none"
        )
    assert set(outcomes(found).values()) == {"ok"}
    assert 3 < host.starts[-1] - host.starts[0] < 15
    refusals = host.images_asked() - 70
    assert 0 < refusals <= (8 + 3 * 2 if named else 8 + 3 * 7)
    assert sum(start > host.starts[40] for start in other.starts) == 0
    assert 1 <= len(notes) <= (4 if named else 12)
    says = "asks for 1 s" if named else "refuses, and is left alone for"
    assert notes[0].startswith(f"0.test {says}")
    assert "(429: Too many requests)" in notes[0]


def test_one_address_that_is_refused_for_ever_does_not_put_off_its_host(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.01)
    host = Host({f"/{n}.jpg": image(n) for n in range(100)})
    host.routes["/3.jpg"] = reply(b"not this", 429, Retry_After="0")
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(100)]
        found = crawl(tmp_path, candidates_of(urls), hosts, per_class=98, patience=30.0)
    got = outcomes(found)
    assert got.pop("http://0.test/3.jpg") == "not_now"
    assert set(got.values()) == {"ok"}
    assert 2 <= host.requests["/3.jpg"] <= REFUSALS


def test_a_few_addresses_that_are_refused_for_ever_do_not_put_off_what_comes_after(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.01)
    host = Host({f"/{n}.jpg": image(n) for n in range(90)})
    for number in (3, 33, 63):  # one of each class, and nothing else is left to ask for at last
        host.routes[f"/{number}.jpg"] = reply(b"not this", 429)
    candidates = [
        one
        for label in range(3)
        for one in candidates_of(
            [f"http://0.test/{n}.jpg" for n in range(30 * label, 30 * label + 30)], label
        )
    ]
    with serving(host) as hosts:
        for _ in range(2):  # nor in the run that begins with them
            found = crawl(tmp_path, candidates, hosts, per_class=20, patience=0.3)
            got = Counter((one.label, record.outcome) for one, record in found.items())
            assert [got[label, "ok"] for label in range(3)] == [20, 20, 20]
            assert [got[label, "not_now"] for label in range(3)] == [1, 1, 1]
    refused = sum(host.requests[f"/{number}.jpg"] for number in (3, 33, 63))
    assert refused <= 2 * (3 * REFUSALS)
    assert host.images_asked() - refused == 60


def test_a_host_that_refuses_all_is_put_off_by_the_next_run_as_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "FIRST_PAUSE", 0.01)
    host = Host()
    host.otherwise = reply(b"slow down", 429)
    with serving(host) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(60)]
        for _ in range(3):
            before = host.images_asked()
            found = crawl(tmp_path, candidates_of(urls), hosts, per_class=5, patience=30.0)
            assert set(outcomes(found).values()) == {"not_now"}
            assert host.images_asked() - before <= 3 * REFUSALS


def test_a_robots_txt_that_is_refused_for_now_is_waited_for(tmp_path):
    host = Host({"/a.jpg": image(1)})
    host.routes["/robots.txt"] = lambda request: (
        reply(b"", 429, Retry_After="1")
        if request.asked() == 1
        else reply(b"User-agent: *\nDisallow: /b")
    )(request)
    with serving(host) as hosts:
        urls = ["http://0.test/a.jpg", "http://0.test/b.jpg"]
        found = crawl(tmp_path, candidates_of(urls), hosts)
    assert outcomes(found) == {"http://0.test/a.jpg": "ok", "http://0.test/b.jpg": "robots"}
    assert host.requests["/robots.txt"] == 2


def test_a_host_that_is_down_is_given_up_and_asked_by_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.02)
    gone, other = Host(), Host({f"/{n}.jpg": image(n, seconds=0.02) for n in range(20)})
    gone.otherwise = silent(0.0)
    gone.routes = {"/robots.txt": reply(b"", 404)}
    limits = {"connections_per_host": 1, "opt_outs": "none"}
    with serving(gone, other) as hosts:
        urls = [f"http://{host}.test/{n}.jpg" for n in range(60) for host in (0, 1)][:100]
        found = crawl(tmp_path, candidates_of(urls), hosts, **limits)
        got = Counter((url[7], outcome) for url, outcome in outcomes(found).items())
        assert (got["0", "not_now"], got["1", "ok"]) == (50, 20)
        details = Counter(one.detail for one in found.values() if one.outcome == "not_now")
        assert details["not asked: 0.test gave no answer 5 times in a row"] >= 45
        assert gone.images_asked() == 2 * 5  # aiohttp asks twice where a connection just ends
        with Journal(tmp_path) as journal:
            assert all("1.test" in url for url in journal.records)
        gone.otherwise = image(99)
        again = crawl(tmp_path, candidates_of(urls), hosts, **limits)
        assert {url[7]: outcome for url, outcome in outcomes(again).items()}["0"] == "ok"
        assert gone.images_asked() == 2 * 5 + 50
        assert other.images_asked() == 50


def test_a_host_that_answers_now_and_then_is_not_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.0)
    routes = {f"/{n}.jpg": raw(b"") if n % 2 else image(n) for n in range(16)}
    with serving(Host(routes)) as hosts:
        urls = [f"http://0.test/{n}.jpg" for n in range(16)]
        found = crawl(tmp_path, candidates_of(urls[:-1]), hosts, connections_per_host=1)
    got = outcomes(found)
    assert {got[url] for url in urls[:-1:2]} == {"ok"}


# a network that is down


@pytest.fixture
def dead(monkeypatch):
    """Addresses of 40 hosts whose port is closed."""
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    gone = Host()
    gone.server_close()
    return {f"dead{n}.test": gone.server_address for n in range(40)}


def test_a_network_that_is_down_ends_the_crawl_and_leaves_no_record(tmp_path, dead):
    urls = [f"http://dead{n % 40}.test/{n}.jpg" for n in range(400)]
    with pytest.raises(ExternalError, match="the network seems to be down") as caught:
        crawl(tmp_path, candidates_of(urls), dead)
    assert "same command goes on" in caught.value.hint
    with Journal(tmp_path) as journal:
        assert journal.records == {}


def test_a_network_that_goes_down_is_noticed_and_the_crawl_goes_on_later(tmp_path, dead):
    servers = [Host({f"/{n}.jpg": image(n + 10 * host) for n in range(4)}) for host in range(12)]
    urls = [f"http://{n % 12}.test/{n // 12}.jpg" for n in range(48)]
    with serving(*servers) as hosts:
        whole = crawl(tmp_path / "whole", candidates_of(urls), hosts)
        known = crawl(tmp_path / "some", candidates_of(urls[:9]), hosts)
        gone = dict.fromkeys(hosts, dead["dead0.test"])
        with pytest.raises(ExternalError, match="the network seems to be down"):
            crawl(tmp_path / "some", candidates_of(urls), gone)
        with Journal(tmp_path / "some") as journal:
            assert journal.records == {record.url: record for record in known.values()}
        assert crawl(tmp_path / "some", candidates_of(urls), hosts) == whole


def test_a_crawl_of_few_hosts_notices_as_well(tmp_path, dead):
    urls = [f"http://dead{n % 2}.test/{n}.jpg" for n in range(10)]
    with pytest.raises(ExternalError, match="the network seems to be down"):
        crawl(tmp_path, candidates_of(urls), dead)


def test_one_dead_host_is_no_outage(tmp_path, dead):
    live = Host({f"/{n}.jpg": image(n, seconds=0.3) for n in range(2)})
    with serving(live) as hosts:
        # the dead one fails long before the other one is asked
        urls = [f"http://dead0.test/{n}.jpg" for n in range(200)]
        urls += [f"http://0.test/{n}.jpg" for n in range(2)]
        found = crawl(tmp_path, candidates_of(urls), dead | hosts, per_class=1, robots=False)
        assert Counter(outcomes(found).values())["ok"] == 1
        with Journal(tmp_path) as journal:
            assert (len(journal.records), len(journal.put_off)) == (1, 200)
        # the class is full without the dead host, so that is not asked again
        again = crawl(tmp_path, candidates_of(urls), dead | hosts, per_class=1)
    assert again == found
    assert live.images_asked() == 1


def test_many_dead_hosts_at_the_end_are_no_outage_while_another_one_answers(tmp_path, dead):
    live = Host({"/0.jpg": image(0)})
    with serving(live) as hosts:
        urls = ["http://0.test/0.jpg"]
        urls += [f"http://dead{n % 40}.test/{n}.jpg" for n in range(200)]
        first = crawl(tmp_path, candidates_of(urls[:1]), hosts)
        # what is left to ask for is dead, and the journal knows who was not
        found = crawl(tmp_path, candidates_of(urls), dead | hosts)
    assert len(first) == 1
    assert Counter(outcomes(found).values())["ok"] == 1
    assert len(found) == 201
    with Journal(tmp_path) as journal:
        assert (len(journal.records), len(journal.put_off)) == (1, 200)
