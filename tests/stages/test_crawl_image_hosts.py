"""`pipeline crawl` with image hosts that have limits, and the same command again."""

import json
from pathlib import Path

import pytest

from tests.crawl.world.rules import results
from tests.crawl.world.service import World, broken, image_limit
from tests.crawl.world.shape import Answer
from tests.crawl.world.shapes import SHAPES
from tests.stages.crawling import CLASSES, crawling

SERVICE = SHAPES["commons"]
FULL = dict.fromkeys(CLASSES, 30)


def journalled(folder: Path) -> list[dict]:
    """What the journal has of addresses."""
    path = folder / ".cache/crawl/journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def refusing(status: int = 429, **headers: str):
    """An image host that refuses everything."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda path, number, now: Answer(b"Too many requests\n", status, named)


def test_a_limit_of_an_image_host_is_waited_for(tmp_path: Path) -> None:
    world = World(SERVICE, results(200), images=image_limit(50, 1.0))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
    assert (done.code, done.stored()) == (0, FULL), done.err
    assert done.report["later"]["images"] == 0
    assert {row["outcome"] for row in journalled(tmp_path)} == {"ok"}


def test_a_limit_longer_than_the_patience_puts_the_rest_off(tmp_path: Path) -> None:
    world = World(SERVICE, results(200), images=image_limit(40, 3000.0))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        later = done.report["later"]
        assert sum(done.stored().values()) == 40
        assert later["images"] > 0 and list(later["hosts"]) == ["images.test"]
        assert later["hosts"]["images.test"]["again_at"]
        assert sum(found["not_now"] for found in done.outcomes.values()) > 0
        assert {row["outcome"] for row in journalled(tmp_path)} == {"ok"}
        assert done.images < 60, "a host that said no was asked on"
        assert "again" in done.err
        world.image_rule = None
        again = crawl()
    assert (again.code, again.stored(), again.pages) == (0, FULL, 0), again.err
    assert again.images == 50
    assert again.report["later"]["images"] == 0


def test_a_host_that_refuses_everything_for_now_is_exit_3_and_no_failure(tmp_path: Path) -> None:
    world = World(SERVICE, results(200), images=refusing(Retry_After="3000"))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert done.code == 3
        assert journalled(tmp_path) == []
        assert done.images < 10
        assert "images.test" in done.err and "again" in done.err
        world.image_rule = None
        again = crawl()
    assert (again.code, again.stored(), again.pages) == (0, FULL, 0), again.err


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_names_no_pause_is_for_now_too(tmp_path: Path, status: int) -> None:
    world = World(SERVICE, results(200), images=refusing(status))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert done.code == 3
        assert journalled(tmp_path) == []
        assert done.images < 60
        world.image_rule = None
        again = crawl()
    assert (again.code, again.stored(), again.pages) == (0, FULL, 0), again.err


def test_images_that_are_gone_are_gone_for_good(tmp_path: Path) -> None:
    world = World(SERVICE, results(200), images=broken(40))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert (done.code, done.stored()) == (0, FULL), done.err
        again = crawl()
    assert (again.code, again.pages, again.images) == (0, 0, 0)


def test_a_class_under_half_for_images_that_are_gone_says_so(tmp_path: Path) -> None:
    world = World(SERVICE, results(60), images=broken(90))
    with crawling(tmp_path, world) as crawl:
        done = crawl()
        assert done.code == 0
        assert done.report["short"]
        assert all(one["why"] for one in done.report["classes"])
        assert "warning" in done.err.casefold()
        again = crawl()
    assert (again.code, again.images, again.stored()) == (0, 0, done.stored())


def test_without_patience_a_limit_is_left_to_the_next_run(tmp_path: Path) -> None:
    world = World(SERVICE, results(200), images=image_limit(20, 3000.0))
    with crawling(tmp_path, world, patience=0) as crawl:
        done = crawl()
    assert sum(done.stored().values()) == 20
    assert done.report["later"]["images"] > 0
