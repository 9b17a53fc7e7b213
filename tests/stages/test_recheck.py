"""`pipeline recheck`: owners are asked again by HEAD, and what has closed since goes."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.removal import recheck as rechecking
from tests.crawl.hosts import Host, Route, image, picture, reply, serving
from tests.crawl.stored import (
    World,
    candidate,
    crawled,
    holding,
    labels_of,
    manifest_of,
    project,
)
from tests.stages.workspace import invoke

IDS = {index: hashlib.sha256(picture(index)).hexdigest() for index in range(8)}
ROBOTS = "User-agent: *\nContent-Signal: ai-train=no\nAllow: /\n"


@dataclass
class Rechecked(World):
    asked: list[str] = field(default_factory=list)

    def told(self, *options: str) -> dict:
        """What a recheck says; the images that it asks for are in `asked`."""
        said: list[str] = []
        self.asked = self.images_asked(
            lambda: said.append(invoke(self.folder, "recheck", "--json", *options).stdout)
        )
        return json.loads(said[0])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rechecked]:
    """Pictures 1 to 5 at two hosts; picture 1 is at both, for both classes."""
    hosts = [
        Host({"/1.jpg": image(1), "/2.jpg": image(2), "/3.jpg": image(3)}),
        Host({"/1.jpg": image(1), "/4.jpg": image(4), "/5.jpg": image(5)}),
    ]
    given = [
        candidate(0, 0, "http://0.test/1.jpg"),
        candidate(0, 1, "http://0.test/2.jpg"),
        candidate(0, 2, "http://0.test/3.jpg"),
        candidate(0, 3, "http://0.test/missing.jpg"),
        candidate(1, 0, "http://1.test/1.jpg"),
        candidate(1, 1, "http://1.test/4.jpg"),
        candidate(1, 2, "http://1.test/5.jpg"),
    ]
    folder = project(tmp_path / "project")
    with serving(*hosts) as table:
        crawled(folder, given, table)

        @contextmanager
        def ours(*_: object) -> Iterator[dict]:
            yield table

        monkeypatch.setattr("kd3_stages.steps.recheck._hosts", ours)
        yield Rechecked(folder, hosts, table, given)


def test_what_is_open_stays_and_is_asked_by_head_alone(world: Rechecked) -> None:
    said = world.told()
    assert (said["open"], said["closed"], said["gone"], said["unknown"]) == (6, 0, 0, 0)
    assert sorted(world.asked) == sorted(
        f"{number}/{name}.jpg" for number, names in ((0, "123"), (1, "145")) for name in names
    )
    assert [host.heads["/1.jpg"] for host in world.hosts] == [1, 1]
    assert [host.requests["/1.jpg"] for host in world.hosts] == [2, 2]  # with the crawl's own
    assert len(labels_of(world.folder)) == 5
    assert world.again() == []


def test_a_header_closes_one_image(world: Rechecked) -> None:
    world.hosts[0].routes["/2.jpg"] = reply(picture(2), X_Robots_Tag="noai")
    said = world.told()
    assert (said["open"], said["closed"], said["images"]) == (5, 1, 1)
    assert said["closed_by"] == {"x-robots-tag": 1}
    assert said["ids"] == [IDS[2]]
    assert not holding(world.folder, picture(2))
    rows = pq.read_table(world.folder / "data/crawl/manifest.parquet").to_pylist()
    (row,) = [row for row in rows if row["url"] == "http://0.test/2.jpg"]
    assert (row["outcome"], row["id"]) == ("opted_out", None)
    assert row["detail"].startswith("X-Robots-Tag: noai; since ")
    assert "noai" in row["signals"]
    assert world.again() == []  # it is not asked again, and does not come back
    assert manifest_of(world.folder)["http://0.test/2.jpg"] == "opted_out"
    counted = json.loads((world.folder / "reports/crawl.json").read_text())["outcomes"]
    assert counted["opted_out"] == 1


def test_a_host_that_closes_takes_its_images_unless_another_has_them(world: Rechecked) -> None:
    world.hosts[0].routes["/robots.txt"] = reply(ROBOTS.encode())
    said = world.told()
    assert (said["open"], said["closed"]) == (3, 3)
    assert sorted(said["ids"]) == sorted([IDS[2], IDS[3]])
    assert sorted(world.asked) == ["1/1.jpg", "1/4.jpg", "1/5.jpg"]  # a closed host is not asked
    # picture 1 stays: it is open at the other host, where it was found for the other class
    assert labels_of(world.folder) == {IDS[1]: 1, IDS[4]: 1, IDS[5]: 1}
    assert manifest_of(world.folder)["http://1.test/1.jpg"] == "stored"
    before = pq.read_table(world.folder / "data/crawl/manifest.parquet")
    assert world.again() == []
    after = pq.read_table(world.folder / "data/crawl/manifest.parquet")
    assert after["outcome"].to_pylist() == before["outcome"].to_pylist()
    assert labels_of(world.folder) == {IDS[1]: 1, IDS[4]: 1, IDS[5]: 1}


def test_what_robots_txt_disallows_now_has_the_crawls_own_word(world: Rechecked) -> None:
    world.hosts[1].routes["/robots.txt"] = reply(b"User-agent: *\nDisallow: /4")
    assert world.told()["closed_by"] == {"robots": 1}
    assert manifest_of(world.folder)["http://1.test/4.jpg"] == "robots"
    assert world.again() == []


def test_what_is_gone_or_does_not_answer_is_told_and_kept(world: Rechecked) -> None:
    world.hosts[0].routes |= {"/2.jpg": reply(b"", 404), "/3.jpg": reply(b"", 500)}
    said = world.told()
    assert (said["open"], said["closed"], said["gone"], said["unknown"]) == (4, 0, 1, 1)
    assert said["images"] == 0
    assert len(labels_of(world.folder)) == 5
    text = invoke(world.folder, "recheck").output
    assert "1 gone from the web: kept" in text
    assert "0.test: 1, HTTP 500" in text


def test_a_host_that_says_nothing_is_left_alone(
    world: Rechecked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rechecking, "PATIENCE", 1)
    for path in ("/1.jpg", "/2.jpg", "/3.jpg"):
        world.hosts[0].routes[path] = reply(b"", 503)
    said = world.told("--set", "crawl.connections_per_host=1")
    assert said["unknown"] == 3
    assert [one for one in world.asked if one[0] == "0"] == ["0/1.jpg"]
    for number in (1, 2, 3):
        world.hosts[0].routes[f"/{number}.jpg"] = image(number)
    assert world.told()["open"] == 6


def test_without_any_answer_it_fails_and_drops_nothing(world: Rechecked) -> None:
    for host in world.hosts:
        host.routes = dict.fromkeys(host.routes, reply(b"", 503))
        host.otherwise = reply(b"", 503)
    result = invoke(world.folder, "recheck", check=False)
    assert result.exit_code == 3
    assert "none of 6 addresses answers" in result.stderr
    assert len(labels_of(world.folder)) == 5


def test_a_dry_run_drops_nothing_and_its_answers_count(world: Rechecked) -> None:
    world.hosts[0].routes["/2.jpg"] = reply(picture(2), X_Robots_Tag="noai")
    said = world.told("--dry-run")
    assert (said["images"], said["dry_run"]) == (1, True)
    assert len(labels_of(world.folder)) == 5
    assert world.told()["images"] == 1
    assert world.asked == []
    assert len(labels_of(world.folder)) == 4
    world.told()  # a new one asks all that is left
    assert len(world.asked) == 5


def test_an_interrupted_recheck_goes_on(world: Rechecked, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(log: rechecking.Log, one: rechecking.Finding) -> None:
        real(log, one)
        if len(log.heard) == 2:
            signal.raise_signal(signal.SIGINT)

    real = rechecking.Log.add
    monkeypatch.setattr(rechecking.Log, "add", interrupted)
    slowly = ["--set", "crawl.connections_per_host=1"]
    assert invoke(world.folder, "recheck", *slowly, check=False).exit_code == 130
    monkeypatch.setattr(rechecking.Log, "add", real)
    (log,) = (world.folder / ".cache/recheck").glob("*.jsonl")
    known = log.read_bytes().count(b"\n")
    assert 2 <= known < 6
    with log.open("ab") as file:
        file.write(b'{"url": "torn')
    assert world.told()["open"] == 6
    assert len(world.asked) == 6 - known
    assert not list((world.folder / ".cache/recheck").glob("*.jsonl"))


def test_old_answers_and_those_for_other_opt_outs_do_not_count(world: Rechecked) -> None:
    world.told("--dry-run")
    (log,) = (world.folder / ".cache/recheck").glob("*.jsonl")
    long_ago = time.time() - rechecking.FRESH - 60
    os.utime(log, (long_ago, long_ago))
    world.told("--dry-run")
    assert len(world.asked) == 6
    world.told("--dry-run", "--set", "crawl.opt_outs=none")
    assert len(world.asked) == 6


def test_opt_outs_that_are_not_obeyed_close_nothing(world: Rechecked) -> None:
    world.hosts[0].routes["/robots.txt"] = reply(ROBOTS.encode())
    assert world.told("--set", "crawl.opt_outs=[tdm-reservation]")["closed"] == 0


def test_a_redirect_is_followed_to_who_speaks(world: Rechecked) -> None:
    def moved(request: object) -> None:
        reply(b"", 302, Location="http://1.test/4.jpg")(request)

    route: Route = moved
    world.hosts[0].routes["/3.jpg"] = route
    world.hosts[1].routes["/robots.txt"] = reply(b"User-agent: *\nDisallow: /4")
    said = world.told()
    assert said["closed"] == 2
    assert sorted(said["ids"]) == sorted([IDS[3], IDS[4]])


def test_without_a_crawl_it_is_the_users_error(tmp_path: Path) -> None:
    folder = project(tmp_path / "empty")
    result = invoke(folder, "recheck", check=False)
    assert result.exit_code == 2
    assert "manifest.parquet not found" in result.stderr
