"""`pipeline doctor --engine`: what it says of a good, a stuck, a decoy and a refusing service."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from kd3_pipeline.crawl.canary import NOUNS
from kd3_stages import sources
from tests.crawl.world.rules import (
    Rule,
    always,
    at,
    busy,
    empty,
    limit,
    needs_contact,
    nothing,
    odd,
    one_page_for_all,
    page_of,
    results,
    same_page,
)
from tests.crawl.world.service import World, command, running
from tests.crawl.world.shape import Answer
from tests.crawl.world.shapes import SHAPES, FlickrShape

every_engine = pytest.mark.parametrize("name", SHAPES)


def doctor(
    folder: Path, name: str, *rules: Rule, arguments: tuple[str, ...] = (), contact: str = ""
) -> tuple[Result, World]:
    """`pipeline doctor` of a service with these rules."""
    (folder / "params.yaml").write_text(f"crawl: {{classes: [cat, dog], contact: '{contact}'}}\n")
    with (
        pytest.MonkeyPatch.context() as patch,
        running(World(SHAPES[name], *rules), patch, folder) as world,
    ):
        return command("doctor", "--engine", name, *arguments), world


@every_engine
def test_a_good_service_is_told_with_all_that_a_crawl_needs_to_know(
    tmp_path: Path, name: str
) -> None:
    done, world = doctor(tmp_path, name, results(700))
    lines = done.stdout.splitlines()
    assert (done.exit_code, done.stderr) == (0, "")
    count = SHAPES[name].page_results
    assert lines[0].startswith(f"{name}: 'cat': HTTP 200, ")
    assert lines[0].endswith(f" bytes, {count} results")
    assert [line.strip() for line in lines[1:4]] == [
        f"http://images.test/cat/{number}.jpg" for number in range(3)
    ]
    assert [line.strip().partition(":")[0] for line in lines[4:]] == [
        *("licences", "second page", "canary", "budget", "pace", "contact", "key")
    ]
    assert f"{count} results, {count} of them new" in lines[5]
    assert f"passed: '{NOUNS[0]}' and '{NOUNS[1]}' bring different images" in lines[6]
    assert [one.query for one in world.asked] == ["cat", "cat", NOUNS[0], NOUNS[1]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bing", ["none told", "35 results a page, 1,000 a query", "states no limits"]),
        ("commons", ["CC BY-SA 4.0", "50 results a page, 10,000 a query", "contact: needed;"]),
        ("flickr", ["CC BY 2.0", "60 requests a minute", "FLICKR_API_KEY is set"]),
        ("openverse", ["20 requests a minute, 200 requests a day", "OPENVERSE_TOKEN is not set"]),
    ],
)
def test_budget_contact_and_key_are_told(tmp_path: Path, name: str, said: list[str]) -> None:
    done, _ = doctor(tmp_path, name, results(700))
    for words in said:
        assert words in done.stdout
    assert "crawl.contact is not set" in done.stdout
    done, _ = doctor(tmp_path, name, results(700), contact="https://example.org/me")
    assert "crawl.contact is set" in done.stdout


def test_json_has_the_same(tmp_path: Path) -> None:
    done, _ = doctor(tmp_path, "openverse", results(700), arguments=("--json",))
    found = json.loads(done.stdout)
    assert (found["ok"], found["problems"]) == (True, [])
    assert (found["engine"], found["query"], found["status"]) == ("openverse", "cat", 200)
    assert found["urls"] == [f"http://images.test/cat/{number}.jpg" for number in range(3)]
    assert found["licences"] == ["CC BY 2.0"]
    assert found["second_page"] == {"asked": True, "start": 2, "results": 20, "new": 20}
    assert found["canary"] == {"queries": list(NOUNS[:2]), "results": [20, 20], "alarm": ""}
    assert (found["budget"]["per_minute"], found["budget"]["per_day"]) == (20, 200)
    assert found["contact"] == {"needed": False, "set": False}
    assert found["key"] == {"name": "OPENVERSE_TOKEN", "set": False}


@every_engine
def test_a_service_that_is_stuck_on_its_first_page_is_told(tmp_path: Path, name: str) -> None:
    done, world = doctor(tmp_path, name, same_page(12))
    assert done.exit_code == 3
    assert "12 results, 0 of them new" in done.stdout
    assert f"error: {name}: its second page for 'cat' is the first one again" in done.stderr
    assert "a crawl gets 12 images of a query" in done.stderr
    assert "crawl.engine" in done.stderr
    assert len(world.asked) == 4


@every_engine
def test_one_page_for_whatever_is_asked_fails_the_canary(tmp_path: Path, name: str) -> None:
    done, _ = doctor(tmp_path, name, one_page_for_all(SHAPES[name].page_results))
    assert done.exit_code == 3
    assert "  canary: failed: " in done.stdout
    assert f"error: {name}: canary: '{NOUNS[0]}' and '{NOUNS[1]}' have nothing to do" in done.stderr
    assert "100% of the addresses are the same" in done.stderr
    assert "another engine (crawl.engine)" in done.stderr


def test_a_page_of_another_query_is_told_with_both(tmp_path: Path) -> None:
    done, _ = doctor(tmp_path, "bing", page_of("wallpaper", 35))
    assert (done.exit_code, done.stdout) == (3, "")
    assert "its page is an answer to 'wallpaper', and 'cat' was asked for" in done.stderr


def test_a_query_of_one_page_is_good(tmp_path: Path) -> None:
    done, world = doctor(tmp_path, "bing", results(35))
    assert done.exit_code == 0
    assert "second page: none, by what the first one says" in done.stdout
    assert len(world.asked) == 3


def test_words_that_everybody_has_images_of_must_have_results(tmp_path: Path) -> None:
    done, _ = doctor(tmp_path, "commons", at(4, give=nothing), results(700))
    assert done.exit_code == 3
    assert f"it has no results for '{NOUNS[1]}', of which there are thousands" in done.stderr


@every_engine
def test_a_refusal_is_told_with_its_status_and_its_first_line_and_nothing_more_is_asked(
    tmp_path: Path, name: str
) -> None:
    page = b"<html><style>p {}</style>\n<title>Robots are\x1b[31m not welcome</title><p>at all"
    done, world = doctor(tmp_path, name, always(page, 403))
    assert (done.exit_code, done.stdout) == (3, "")
    assert "HTTP 403, " in done.stderr
    assert "it refuses" in done.stderr and "Robots are [31m not welcome" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / ".cache/crawl/unreadable.html").read_bytes() == page
    assert len(world.asked) == 1


def test_who_needs_a_contact_is_told_to_set_it_and_it_helps(tmp_path: Path) -> None:
    rules = (needs_contact(), results(700))
    done, _ = doctor(tmp_path, "commons", *rules)
    assert done.exit_code == 3
    assert "Please set a user-agent that names you" in done.stderr
    assert "set crawl.contact to your address or page" in done.stderr
    done, world = doctor(tmp_path, "commons", *rules, contact="me@example.org")
    assert done.exit_code == 0
    agents = {one.headers["User-Agent"] for one in world.asked}
    assert agents == {sources.user_agent("me@example.org")}


def test_a_wrong_key_is_told_with_its_variable_and_never_shown(tmp_path: Path) -> None:
    def wrong(shape: FlickrShape, asked: object) -> Answer:
        return shape.failure(100, "Invalid API Key (key 'key' has invalid format)")

    done, _ = doctor(tmp_path, "flickr", at(1, give=wrong))
    assert done.exit_code == 3
    assert "Invalid API Key" in done.stderr
    assert "environment variable FLICKR_API_KEY" in done.stderr
    assert "'***'" in done.stderr.casefold()


@every_engine
def test_a_limit_is_for_now_and_told_with_when_to_ask_again(tmp_path: Path, name: str) -> None:
    done, world = doctor(tmp_path, name, limit(0, 90.0))
    assert done.exit_code == 3
    assert "HTTP 429, " in done.stderr and "it refuses for now" in done.stderr
    assert "ask again in 90 s, at " in done.stderr
    assert len(world.asked) == 1


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (408, {}, "it refuses for now"),
        (425, {}, "it refuses for now"),
        (502, {}, "it refuses for now"),
        (403, {"Retry_After": "30"}, "it refuses for now"),
        (403, {}, "it refuses:"),
        (410, {}, "it refuses:"),
    ],
)
def test_doctor_takes_a_refusal_for_now_where_a_crawl_does(
    tmp_path: Path, status: int, headers: dict[str, str], said: str
) -> None:
    done, _ = doctor(tmp_path, "bing", always(b"no", status, **headers))
    assert f"HTTP {status}, 2 bytes: {said}" in done.stderr
    assert done.exit_code == 3


@pytest.mark.parametrize("name", ["bing", "commons", "flickr"])
def test_a_limit_that_names_no_pause_is_for_now_too(tmp_path: Path, name: str) -> None:
    done, _ = doctor(tmp_path, name, always(b"slow down", 429))
    assert "HTTP 429, 9 bytes: it refuses for now" in done.stderr
    assert "slow down" in done.stderr
    assert "it names no time: ask again in some minutes" in done.stderr


@every_engine
def test_too_busy_with_status_200_is_for_now(tmp_path: Path, name: str) -> None:
    done, _ = doctor(tmp_path, name, at(1, give=busy))
    assert done.exit_code == 3
    assert "it refuses for now" in done.stderr


def test_a_second_page_that_is_refused_leaves_what_the_first_one_showed(tmp_path: Path) -> None:
    done, world = doctor(tmp_path, "bing", at(2, give=empty), results(700))
    assert done.exit_code == 3
    assert "35 results\n" in done.stdout
    assert "  second page: not read\n  canary: not asked\n" in done.stdout
    assert "it refuses for now: its page is empty" in done.stderr
    assert len(world.asked) == 2


@every_engine
def test_a_page_of_no_known_form_is_kept(tmp_path: Path, name: str) -> None:
    done, _ = doctor(tmp_path, name, at(1, give=odd))
    if name == "commons":  # whose pages without results have any fields but `query`
        assert "it has no results" in done.stderr
    assert done.exit_code == 3
    assert "kept as .cache/crawl/unreadable.html" in done.stderr
    assert (tmp_path / ".cache/crawl/unreadable.html").exists()


def test_json_tells_a_refusal_too(tmp_path: Path) -> None:
    done, _ = doctor(tmp_path, "commons", always(b"no", 403), arguments=("--json",))
    found = json.loads(done.stdout)
    assert done.exit_code == 3
    assert (found["ok"], found["status"], found["results"]) == (False, 403, 0)
    assert "it refuses: no" in found["problems"][0]["what"]
    assert "crawl.contact" in found["problems"][0]["hint"]
