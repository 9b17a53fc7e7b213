"""`pipeline crawl` against services that refuse, for now or for good; and the next run."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crawl.world.rules import (
    Rule,
    always,
    at,
    busy,
    empty,
    every,
    first_results,
    first_times,
    limit,
    most_of_a_query,
    needs_contact,
    nothing,
    odd,
    results,
)
from tests.crawl.world.service import World
from tests.crawl.world.shape import Answer, Question, Shape
from tests.crawl.world.shapes import SHAPES, FlickrShape
from tests.stages.crawling import CLASSES, crawling

every_engine = pytest.mark.parametrize("name", SHAPES)
FULL = dict.fromkeys(CLASSES, 30)


@every_engine
@pytest.mark.parametrize(
    "trouble",
    [
        at(5, give=busy),
        every(3, busy),
        at(5, give=empty),
        first_times(1, "dog", nothing),
        first_times(1, "dog", odd),
        first_times(1, "cat", empty),
    ],
    ids=["busy", "often busy", "empty", "nothing", "odd", "first page empty"],
)
def test_what_passes_at_the_second_try_leaves_no_trace(
    tmp_path: Path, name: str, trouble: Rule
) -> None:
    world = World(SHAPES[name], trouble, results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.stored()) == (0, FULL), done.err
        assert done.report["later"]["pages"] == 0
        again = crawl()
    assert (again.code, again.pages, again.images) == (0, 0, 0), again.asked


@pytest.mark.parametrize("name", ["bing", "commons", "flickr"])
def test_a_pause_that_is_named_with_status_200_is_one_as_well(tmp_path: Path, name: str) -> None:
    def busy_for_a_while(shape: Shape, asked: Question) -> Answer | None:
        if asked.query != "dog" or asked.times > 4:  # more often than a page is tried unasked
            return None
        answer = shape.busy()
        return Answer(answer.body, answer.status, {**answer.headers, "Retry-After": "0"})

    world = World(SHAPES[name], busy_for_a_while, results(200))
    with crawling(tmp_path, world, classes=CLASSES[:2]) as crawl:
        done = crawl()
    assert (done.code, done.stored()) == (0, {"cat": 30, "dog": 30}), done.err


@every_engine
def test_busy_for_longer_than_a_run_is_put_off_and_told_and_asked_for_by_the_next(
    tmp_path: Path, name: str
) -> None:
    def dog_is_busy(shape: Shape, asked: Question) -> Answer | None:
        return shape.busy() if asked.query == "dog" else None

    world = World(SHAPES[name], dog_is_busy, results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert done.code == 3  # a class without an image
        assert done.report["empty"] == ["dog"]
        assert done.report["later"]["pages"] >= 1
        assert "again" in done.err
        assert done.stored()["cat"] == done.stored()["owl"] == 30
        world.rules = (results(200),)
        again = crawl()
    assert (again.code, again.stored()) == (0, FULL), again.err
    assert set(again.asked) == {"dog"}
    assert again.images >= 30 and again.report["later"]["pages"] == 0


@every_engine
def test_a_refusal_for_good_ends_the_search_with_its_reason(tmp_path: Path, name: str) -> None:
    world = World(SHAPES[name], always(b"Robots are not welcome here\nat all", 403))
    with crawling(tmp_path, world) as crawl:
        for _ in range(2):
            done = crawl()
            assert (done.code, done.pages, done.images) == (3, 1, 0)
            assert "403" in done.err
            assert "Robots are not welcome here" in done.err
        world.rules = (results(200),)
        done = crawl()
    assert (done.code, done.stored()) == (0, FULL)


@every_engine
def test_a_refusal_for_good_in_the_middle_keeps_what_came_before(tmp_path: Path, name: str) -> None:
    def no_dogs(shape: Shape, asked: Question) -> Answer | None:
        return Answer(b"no more for you", 403) if asked.query in CLASSES[1:] else None

    world = World(SHAPES[name], no_dogs, results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.report["empty"]) == (3, ["dog", "owl"])
        assert done.stored()["cat"] == 30
        assert "no more for you" in done.of("dog")["why"]
        assert "no more for you" in done.out
        world.rules = (results(200),)
        again = crawl()
    assert (again.code, again.stored(), set(again.asked)) == (0, FULL, {"dog", "owl"})


def test_who_needs_a_contact_says_so_and_then_answers(tmp_path: Path) -> None:
    world = World(SHAPES["commons"], needs_contact(), results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.images) == (3, 0)
        assert "Please set a user-agent that names you" in done.err
        assert "crawl.contact" in done.err
        done = crawl("-S", "crawl.contact=https://example.org/me")
    assert (done.code, done.stored()) == (0, FULL)


def test_a_wrong_key_is_for_good_and_stays_a_secret(tmp_path: Path) -> None:
    def wrong(shape: FlickrShape, asked: Question) -> Answer:
        return shape.failure(100, "Invalid API Key (Key has invalid format)")

    world = World(SHAPES["flickr"], every(1, wrong))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
    assert (done.code, done.pages) == (3, 1)
    assert "Invalid API Key" in done.err and "FLICKR_API_KEY" in done.err
    assert "api_key=key" not in done.err


@every_engine
def test_a_limit_that_names_its_end_is_waited_for(tmp_path: Path, name: str) -> None:
    world = World(SHAPES[name], limit(6, 0.9), results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
    assert (done.code, done.stored()) == (0, FULL), done.err
    assert done.report["later"]["pages"] == 0


@pytest.mark.parametrize("name", ["bing", "commons"])
def test_a_limit_that_names_no_end_is_tried_again(tmp_path: Path, name: str) -> None:
    world = World(SHAPES[name], limit(3, 0.03, told=False), results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
    assert (done.code, done.stored()) == (0, FULL), done.err


@every_engine
def test_a_limit_a_day_puts_the_rest_off_to_when_it_ends(tmp_path: Path, name: str) -> None:
    first = 2 + -(-60 // SHAPES[name].page_results)  # the canary's, and one class's
    world = World(SHAPES[name], limit(first, 86_000.0), results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert done.stored()["cat"] == 30
        assert done.code == 3  # classes without an image
        assert done.report["empty"] == ["dog", "owl"]
        later = done.report["later"]
        assert later["pages"] >= 2
        assert later["again_at"] > datetime.datetime.now(datetime.UTC).isoformat()
        assert "again" in done.err
        world.rules = (results(200),)
        again = crawl()
    assert (again.code, again.stored(), set(again.asked)) == (0, FULL, {"dog", "owl"})


def test_a_limit_from_the_start_is_exit_3_and_nothing_is_written_down(tmp_path: Path) -> None:
    world = World(SHAPES["openverse"], limit(0, 86_000.0), results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.pages, done.images) == (3, 1, 0)
        assert "again" in done.err
        world.rules = (results(200),)
        again = crawl()
    assert (again.code, again.stored()) == (0, FULL)


@pytest.mark.parametrize("status", [401, 400])
def test_the_most_of_a_query_is_an_end_and_no_failure(tmp_path: Path, status: int) -> None:
    world = World(SHAPES["openverse"], most_of_a_query(60, status), results(400))
    with crawling(tmp_path, world, per_class=80, classes=CLASSES[:2]) as crawl:
        done = crawl()
        assert (done.code, done.stored()) == (0, {"cat": 60, "dog": 60}), done.err
        assert "60 results" in done.of("cat")["queries"][0]["ended"]
        again = crawl()
    assert (again.code, again.pages, again.images) == (0, 0, 0), again.asked


def captcha_after(requests: int) -> Rule:
    """A page for people to prove that they are some, from then on."""
    page = b"<html><title>One last step</title><body>Please solve the challenge below</body></html>"
    return lambda shape, asked: Answer(page) if asked.number > requests else None


@every_engine
def test_a_captcha_ends_the_search_and_is_kept_and_the_next_run_goes_on(
    tmp_path: Path, name: str
) -> None:
    first = 2 + -(-60 // SHAPES[name].page_results)
    world = World(SHAPES[name], captcha_after(first), results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.report["empty"]) == (3, ["dog", "owl"])
        assert done.stored()["cat"] == 30
        # once more each: it may be for one query, and three of them end the search
        assert first + 2 <= done.pages <= first + 6
        assert "unreadable.html" in done.err
        assert b"One last step" in (tmp_path / ".cache/crawl/unreadable.html").read_bytes()
        world.rules = (results(200),)
        again = crawl()
    assert (again.code, again.stored(), set(again.asked)) == (0, FULL, {"dog", "owl"})


@pytest.mark.parametrize("name", ["bing", "commons", "openverse"])
@pytest.mark.parametrize("passing", [nothing, first_results], ids=["nothing", "the first again"])
def test_a_next_page_that_is_wrong_once_does_not_end_the_query(
    tmp_path: Path, name: str, passing: Callable[[Shape, Question], Answer]
) -> None:
    def once(shape: Shape, asked: Question) -> Answer | None:
        return passing(shape, asked) if asked.start and asked.times == 1 else None

    world = World(SHAPES[name], once, results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
    assert (done.code, done.stored()) == (0, FULL)
    assert [one["results"] >= 60 for one in done.report["classes"]] == [True] * 3


@every_engine
def test_a_fault_of_the_service_is_for_now(tmp_path: Path, name: str) -> None:
    def fault(shape: Shape, asked: Question) -> Answer | None:
        page = b"<html><style>p {}</style><title>Error</title><p>Our servers are under maintenance"
        return Answer(page, 503, {"Content-Type": "text/html"}) if asked.query == "dog" else None

    world = World(SHAPES[name], fault, results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.report["empty"]) == (3, ["dog"])
        assert "503" in done.of("dog")["why"] and "Error" in done.of("dog")["why"]
        assert "run the same command again" in done.err
        world.rules = (results(200),)
        again = crawl()
    assert (again.code, again.stored(), set(again.asked)) == (0, FULL, {"dog"})
