"""`pipeline crawl` against search services that misbehave, and the same command again."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.canary import NOUNS
from tests.crawl.world.rules import (
    first_times,
    nothing,
    one_page_for_all,
    page_of,
    results,
    same_page,
)
from tests.crawl.world.service import World
from tests.crawl.world.shape import Answer, Question, Shape
from tests.crawl.world.shapes import SHAPES
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


def test_an_engine_that_leaves_out_what_a_query_is_varied_by_is_not_asked_so_again(
    tmp_path: Path,
) -> None:
    def first_word(shape: Shape, asked: Question) -> Answer | None:
        shorter = replace(asked, query=asked.query.split()[0])
        return results(40)(shape, shorter) if asked.query not in NOUNS else None

    world = World(SHAPES["bing"], first_word, results(40))
    with crawling(tmp_path, world, per_class=100, classes=("cat", "dog"), varied=True) as crawl:
        done = crawl()
        assert (done.code, done.stored()) == (0, {"cat": 40, "dog": 40}), done.err
        assert done.report["later"]["pages"] == 0
        varied = [one for one in done.of("cat")["queries"] if one["variant"] == "context-photo"]
        assert varied[0]["ended"] == "its page is an answer to 'cat', and 'cat photo' was asked for"
        again = crawl()
    assert (again.code, again.pages, again.stored()) == (0, 0, done.stored())


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
    world = World(SHAPES["bing"], one_page_for_all(30))
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
