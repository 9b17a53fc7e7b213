"""Blocklist of a crawl at work: what is asked, what is stored, what goes, what comes back."""

import hashlib
import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.console import no_progress
from kd3_pipeline.crawl.blocklist import Blocklist
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.removal.targets import refusals
from kd3_pipeline.crawl.site import site_candidates
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import Candidate
from tests.crawl.hosts import (
    AGENT,
    Host,
    candidates_of,
    crawl,
    image,
    outcomes,
    picture,
    redirect,
    reply,
    serving,
)
from tests.crawl.stored import candidate, crawled, holding, labels_of, manifest_of

IDS = {index: hashlib.sha256(picture(index)).hexdigest() for index in range(6)}


def test_a_host_of_the_list_is_asked_for_nothing_not_even_after_a_redirect(tmp_path):
    bad = Host({"/1.jpg": image(1), "/2.jpg": image(2)})
    good = Host({"/to.jpg": redirect("http://0.test/2.jpg"), "/3.jpg": image(3)})
    with serving(bad, good) as hosts:
        hosts["sub.0.test"] = hosts["0.test"]
        urls = ["http://0.test/1.jpg", "http://sub.0.test/1.jpg", "http://1.test/to.jpg",
                "http://1.test/3.jpg"]  # fmt: skip
        original = Candidate(
            0, "cat", "x", "q", 9, "http://1.test/3.jpg", original="http://0.test/"
        )
        given = [*candidates_of(urls), original]
        rules = Blocklist(frozenset(["0.test"]))
        found = crawl(tmp_path, given, hosts, blocklist=rules)
        assert bad.targets == []
        again = crawl(tmp_path, candidates_of(urls), hosts)
    assert [found[one].outcome for one in given] == [*["blocked"] * 3, "ok", "blocked"]
    assert {record.detail for record in found.values()} == {"host 0.test", ""}
    assert outcomes(again) == dict.fromkeys(urls, "ok")  # without the list they are asked
    assert good.requests["/3.jpg"] == 1


def test_nothing_of_a_blocked_host_is_asked(tmp_path):
    with serving(Host({"/1.jpg": image(1)})) as hosts:
        rules = Blocklist(frozenset(["0.test"]))
        for _ in range(2):
            crawl(tmp_path, candidates_of(["http://0.test/1.jpg"]), hosts, blocklist=rules)
        with Journal(tmp_path) as journal:
            assert journal.records == {}  # what was never asked is never recorded


@pytest.mark.parametrize("kind", ["id", "phash", "forgotten"])
def test_an_image_of_the_list_reaches_no_file(tmp_path, kind):
    phash = int(str(imagehash.phash(Image.open(io.BytesIO(picture(1))))), 16)
    rules = {
        "id": Blocklist(ids=frozenset([IDS[1]])),
        "phash": Blocklist(hashes=np.array([phash], np.uint64)),
        "forgotten": Blocklist(forgotten=frozenset([IDS[1]])),
    }[kind]
    with serving(Host({"/1.jpg": image(1), "/2.jpg": image(2)})) as hosts:
        urls = ["http://0.test/1.jpg", "http://0.test/2.jpg"]
        found = crawl(tmp_path, candidates_of(urls), hosts, blocklist=rules)
    expected = "forgotten" if kind == "forgotten" else "blocked"
    assert outcomes(found) == {urls[0]: expected, urls[1]: "ok"}
    assert not holding(tmp_path, picture(1))
    assert holding(tmp_path, picture(2))


def test_a_blocked_address_is_asked_again_once_the_list_lets_it(tmp_path):
    host = Host({"/1.jpg": image(1)})
    with serving(host) as hosts:
        given = candidates_of(["http://0.test/1.jpg"])
        rules = Blocklist(ids=frozenset([IDS[1]]))
        for blocklist in (rules, rules, Blocklist(ids=frozenset([IDS[2]]))):
            found = crawl(tmp_path, given, hosts, blocklist=blocklist)
    assert host.requests["/1.jpg"] == 2
    assert outcomes(found) == {"http://0.test/1.jpg": "ok"}


def test_a_class_goes_on_past_what_is_blocked(tmp_path):
    routes = {f"/{number}.jpg": image(number) for number in range(6)}
    with serving(Host(routes)) as hosts:
        given = candidates_of([f"http://0.test{path}" for path in routes])
        rules = Blocklist(ids=frozenset([IDS[0], IDS[1]]))
        found = crawl(tmp_path, given, hosts, blocklist=rules, per_class=2)
    assert [found[one].outcome for one in given[:4]] == ["blocked", "blocked", "ok", "ok"]
    assert len(found) == 4


@pytest.fixture
def world(tmp_path):
    routes = {f"/{number}.jpg": image(number) for number in range(1, 5)}
    hosts = [Host(routes), Host(routes)]
    given = [candidate(0, number, f"http://0.test/{number}.jpg") for number in range(1, 4)]
    given += [candidate(1, 0, "http://1.test/4.jpg")]
    with serving(*hosts) as table:
        crawled(tmp_path, given, table)
        yield tmp_path, given, table, hosts


def again(world, *rules, retry=frozenset()):
    """Crawls as the stage does with a list; what was asked, and the outcomes."""
    folder, given, table, hosts = world
    (folder / "blocked.txt").write_text("\n".join(rules))
    before = [len(host.targets) for host in hosts]
    with Journal(folder / ".cache/crawl") as journal:
        blocklist = refusals(str(folder / "blocked.txt"), journal, retry)
    summary = crawled(folder, given, table, retry, blocklist=blocklist)
    asked = [
        target
        for host, seen in zip(hosts, before, strict=True)
        for target in host.targets[seen:]
        if target.endswith(".jpg")
    ]
    return asked, summary


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ("1.test", [4]),
        (IDS[2], [2]),
        (str(imagehash.phash(Image.open(io.BytesIO(picture(3))))), [3]),
        ("nowhere.example", []),
    ],
)
def test_what_is_stored_already_goes_with_the_next_crawl(world, rule, gone):
    folder = world[0]
    for _ in range(2):
        asked, summary = again(world, rule)
        assert asked == []
        assert summary["blocked"] == len(gone)
        for number in range(1, 5):
            assert bool(holding(folder, picture(number))) == (number not in gone)
            assert (IDS[number] in labels_of(folder)) == (number not in gone)
    asked, _ = again(world)
    assert asked == [f"/{number}.jpg" for number in gone]
    assert len(labels_of(folder)) == 4


def test_the_manifest_of_a_crawl_names_no_blocked_address(world):
    again(world, "1.test", IDS[2])
    assert sorted(manifest_of(world[0])) == ["", "http://0.test/1.jpg", "http://0.test/3.jpg"]
    data = (world[0] / "data/crawl/manifest.parquet").read_bytes()
    assert b"1.test/" not in data


def test_a_crawl_of_which_nothing_is_left_names_the_list(world):
    with pytest.raises(ExternalError, match=r"\(4 blocked\): crawl\.blocklist refuses them"):
        again(world, "0.test", "1.test")


@pytest.mark.parametrize("start", ["http://0.test/", "http://1.test/"])
def test_no_page_of_a_blocked_host_is_asked_for_not_even_after_a_redirect(start):
    bad = Host({"/": reply(b"<img src=/1.jpg>", Content_Type="text/html")})
    good = Host({"/": redirect("http://0.test/")})
    rules = Blocklist(frozenset(["0.test"]))
    with serving(bad, good) as hosts, pytest.raises(ExternalError, match=r"host 0\.test"):
        site_candidates(start, 1, 0.0, Web(AGENT, hosts), no_progress, rules)
    assert bad.targets == []
