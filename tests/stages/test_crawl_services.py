"""`pipeline crawl` against search services that misbehave, and the same command again."""

import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.crawl.canary import NOUNS
from tests.crawl.world.rules import (
    Rule,
    always,
    at,
    busy,
    empty,
    every,
    first_times,
    limit,
    most_of_a_query,
    needs_contact,
    nothing,
    odd,
    one_page_for_all,
    page_of,
    results,
    same_page,
)
from tests.crawl.world.service import World
from tests.crawl.world.shapes import SHAPES, Answer, FlickrShape
from tests.stages.crawling import CLASSES, crawling

every_engine = pytest.mark.parametrize("name", SHAPES)
FULL = dict.fromkeys(CLASSES, 30)


@every_engine
def test_a_good_service_fills_every_class_and_is_not_asked_again(tmp_path: Path, name: str) -> None:
    world = World(SHAPES[name], results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.stored()) == (0, FULL), done.err
        assert [one["wanted"] for one in done.report["classes"]] == [30] * 3
        assert [one["why"] for one in done.report["classes"]] == [""] * 3
        assert (done.report["empty"], done.report["short"]) == ([], [])
        assert done.report["later"]["images"] == done.report["later"]["pages"] == 0
        again = crawl()
    assert (again.code, again.pages, again.images) == (0, 0, 0), again.asked
    assert again.stored() == FULL


@every_engine
@pytest.mark.parametrize("beyond", ["nothing", "last page"])
def test_a_query_of_few_results_is_told_with_wanted_got_and_why(
    tmp_path: Path, name: str, beyond: str
) -> None:
    count = SHAPES[name].page_results + 4
    world = World(SHAPES[name], results(count, beyond=beyond))
    with crawling(tmp_path, world, per_class=3 * count, classes=CLASSES[:2]) as crawl:
        done = crawl()
        assert done.code == 0
        assert done.stored() == {"cat": count, "dog": count}
        assert done.report["short"] == ["cat", "dog"]
        cat = done.of("cat")
        assert (cat["wanted"], cat["results"], cat["stored"]) == (3 * count, count, count)
        assert cat["why"] and cat["queries"][0]["ended"]
        assert cat["queries"][0]["results"] == count
        assert "warning" in done.err.casefold()
        assert "cat" in done.out + done.err and str(3 * count) in done.out + done.err
        again = crawl()
    assert (again.code, again.images, again.stored()) == (0, 0, done.stored())
    assert again.pages == 0, again.asked


@every_engine
def test_filters_and_contexts_fill_a_class_whose_query_is_exhausted(
    tmp_path: Path, name: str
) -> None:
    world = World(SHAPES[name], results(20))
    with crawling(tmp_path, world, per_class=50, classes=("cat", "dog"), varied=True) as crawl:
        done = crawl()
        assert done.code == 0
        assert done.stored() == {"cat": 50, "dog": 50}, done.of("cat")
        rows = pq.read_table(tmp_path / "data/crawl/manifest.parquet").to_pylist()
        variants = {row["variant"] for row in rows if row["outcome"] == "stored"}
        assert "" in variants and len(variants) > 2, variants
        assert all(row["query"] != "cat" for row in rows if row["variant"].startswith("context"))
        again = crawl()
    assert (again.code, again.pages, again.images) == (0, 0, 0), again.asked


@every_engine
def test_the_same_page_for_every_offset_ends_the_query_and_is_told(
    tmp_path: Path, name: str
) -> None:
    world = World(SHAPES[name], same_page(12))
    with crawling(tmp_path, world, per_class=100) as crawl:
        done = crawl()
        assert (done.code, done.stored()) == (0, dict.fromkeys(CLASSES, 12)), done.err
        assert done.report["short"] == list(CLASSES)
        assert done.of("cat")["queries"][0]["ended"]
        assert done.asked.count("cat") <= 3
        again = crawl()
    assert (again.code, again.images) == (0, 0)
    assert again.stored() == done.stored()


@every_engine
def test_one_unrelated_page_for_all_is_found_before_anything_is_fetched(
    tmp_path: Path, name: str
) -> None:
    world = World(SHAPES[name], one_page_for_all(SHAPES[name].page_results))
    with crawling(tmp_path, world) as crawl:
        for _ in range(2):
            done = crawl()
            assert (done.code, done.images, done.asked) == (3, 0, [])
            assert f"'{NOUNS[0]}' and '{NOUNS[1]}'" in done.err
            assert f"doctor --engine {name}" in done.err
        world.rules = (results(200),)
        done = crawl()
    assert (done.code, done.stored()) == (0, FULL), done.err


@every_engine
def test_a_service_that_turns_into_a_decoy_is_found_by_its_second_class(
    tmp_path: Path, name: str
) -> None:
    decoy = one_page_for_all(SHAPES[name].page_results, but=NOUNS)
    world = World(SHAPES[name], decoy, results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert done.code == 3
        assert "'cat'" in done.err and "'dog'" in done.err
        assert done.images == 0
        world.rules = (results(200),)
        done = crawl()
    assert (done.code, done.stored()) == (0, FULL), done.err


def test_without_the_canary_a_decoy_is_taken_for_what_it_is(tmp_path: Path) -> None:
    world = World(SHAPES["bing"], one_page_for_all(35))
    with crawling(tmp_path, world, canary=False) as crawl:
        done = crawl()
    assert done.code == 3  # two classes without an image
    assert done.report["empty"] == ["dog", "owl"]
    assert done.stored()["cat"] == 30
    assert NOUNS[0] not in world.queries()


def test_a_page_of_another_query_is_not_taken(tmp_path: Path) -> None:
    world = World(SHAPES["bing"], page_of("wallpaper", 35))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
    assert (done.code, done.images) == (3, 0)
    assert "wallpaper" in done.err


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


@every_engine
def test_busy_for_longer_than_a_run_is_put_off_and_told_and_asked_for_by_the_next(
    tmp_path: Path, name: str
) -> None:
    def dog_is_busy(shape: object, asked: object) -> Answer | None:
        return SHAPES[name].busy() if asked.query == "dog" else None

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
def test_a_class_without_results_is_exit_3_with_the_others_kept_and_is_asked_again(
    tmp_path: Path, name: str
) -> None:
    world = World(SHAPES[name], first_times(99, "dog", nothing), results(200))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert done.code == 3
        assert done.stored()["cat"] == done.stored()["owl"] == 30
        assert done.report["empty"] == ["dog"]
        assert "dog" in done.err
        assert done.asked.count("dog") == 2
        again = crawl()
        assert (again.code, set(again.asked), again.images) == (3, {"dog"}, 0)
        world.rules = (results(200),)
        again = crawl()
    assert (again.code, again.stored()) == (0, FULL)


def test_empty_classes_may_be_kept(tmp_path: Path) -> None:
    world = World(SHAPES["bing"], first_times(99, "dog", nothing), results(200))
    with crawling(tmp_path, world, empty_classes="keep") as crawl:
        done = crawl()
    assert (done.code, done.report["empty"]) == (0, ["dog"])
    assert "dog" in done.err


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
    def no_dogs(shape: object, asked: object) -> Answer | None:
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
    def wrong(shape: FlickrShape, asked: object) -> Answer:
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
