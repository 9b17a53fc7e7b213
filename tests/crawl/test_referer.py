"""The page that shows an image, and hosts that answer otherwise to who does not name it."""

from dataclasses import replace
from pathlib import Path

import pytest

from kd3_pipeline.crawl.exchange import _referer
from kd3_pipeline.crawl.placeholders import given_for_many
from kd3_pipeline.crawl.scheduler import Host as Asked
from kd3_pipeline.crawl.scheduler import Job
from kd3_pipeline.manifest import Candidate, Fetched
from tests.crawl.hosts import Host, Request, candidates_of, crawl, image, outcomes, picture, serving

URLS = [f"http://0.test/{index}.jpg" for index in range(6)]


def on_pages(urls: list[str] = URLS) -> list[Candidate]:
    return [
        replace(one, page_url=f"http://blog.test/post/{one.rank}?id=1#part")
        for one in candidates_of(urls)
    ]


def choosy(without: int | None) -> Host:
    """A host that shows its pictures on their pages; elsewhere it refuses, or has one for all."""

    def route(request: Request) -> None:
        if request.headers["Referer"]:
            request.reply(picture(int(request.path[1:-4]) + 10))
        elif without is None:
            request.reply(b"not here", 403)
        else:
            request.reply(picture(without))

    host = Host({f"/{index}.jpg": route for index in range(6)})
    return host


def referers(host: Host) -> list[str | None]:
    return [
        headers.get("Referer")
        for target, headers in zip(host.targets, host.headers, strict=True)
        if target.endswith(".jpg")
    ]


def test_no_page_is_named_unless_asked_for(tmp_path: Path) -> None:
    host = Host({"/0.jpg": image(0)})
    with serving(host) as hosts:
        crawl(tmp_path, on_pages(URLS[:1]), hosts)
    assert referers(host) == [None]


def test_the_page_is_named_without_its_fragment_and_to_no_robots_txt(tmp_path: Path) -> None:
    host = choosy(0)
    with serving(host) as hosts:
        found = crawl(tmp_path, on_pages(URLS[:1]), hosts, referer=True)
    assert referers(host) == ["http://blog.test/post/0?id=1"]
    assert all("Referer" not in one for one in host.headers[:-1])
    assert set(outcomes(found).values()) == {"ok"}


@pytest.mark.parametrize(
    "page", ["", "http://10.0.0.1/x", "http://a:b@blog.test/", "http://b.test/\r\nX: 1", "x" * 9]
)
def test_what_is_no_public_page_is_not_named(tmp_path: Path, page: str) -> None:
    host = Host({"/0.jpg": image(0)})
    candidates = [replace(one, page_url=page) for one in candidates_of(URLS[:1])]
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates, hosts, referer=True)
    assert referers(host) == [None] and set(outcomes(found).values()) == {"ok"}


def test_a_page_of_https_is_not_told_in_the_clear() -> None:
    page = "https://blog.test/post"
    for address, told in (("http://0.test/a", {}), ("https://0.test/a", {"Referer": page})):
        assert _referer(Job("x", address, Asked("0.test", 1, 0.0, 1, 0.0), page=page)) == told


def test_what_was_refused_without_the_page_is_asked_for_again_with_it_and_once(
    tmp_path: Path,
) -> None:
    host = choosy(None)
    with serving(host) as hosts:
        assert set(outcomes(crawl(tmp_path, on_pages(), hosts)).values()) == {"http_error"}
        assert set(outcomes(crawl(tmp_path, on_pages(), hosts)).values()) == {"http_error"}
        assert len(referers(host)) == 6
        for _ in range(2):
            found = crawl(tmp_path, on_pages(), hosts, referer=True)
            assert set(outcomes(found).values()) == {"ok"} and len(referers(host)) == 12


def test_one_picture_for_many_addresses_is_asked_for_again_with_the_page(tmp_path: Path) -> None:
    host = choosy(0)
    with serving(host) as hosts:
        first = crawl(tmp_path, on_pages(), hosts)
        assert len({one.id for one in first.values()}) == 1
        found = crawl(tmp_path, on_pages(), hosts, referer=True)
    assert len({one.id for one in found.values()}) == 6


def test_a_good_picture_is_not_asked_for_again(tmp_path: Path) -> None:
    host = Host({f"/{index}.jpg": image(index) for index in range(6)})
    with serving(host) as hosts:
        crawl(tmp_path, on_pages(), hosts)
        crawl(tmp_path, on_pages(), hosts, referer=True)
    assert host.images_asked() == 6


def test_what_one_host_gives_for_many_addresses_is_counted_by_host() -> None:
    given = [(f"https://a.test/{index}.jpg", "x") for index in range(7)]
    given += [(f"https://a.test/one.jpg?utm_source={index}#{index}", "y") for index in range(7)]
    given += [(f"https://{index}.test/x.jpg", "z") for index in range(7)]
    given += [(f"https://b.test/image.php?id={index}", "w") for index in range(5)]
    given += [(f"photos/{index}.jpg", "v") for index in range(9)]
    assert given_for_many(given) == {"x": {"a.test": 7}, "w": {"b.test": 5}}


SPELLINGS = {
    "fragments": [f"#{index}" for index in range(6)],
    "tracking": [f"?utm_source={index}&w=9" for index in range(6)],
    "mixed": ["?w=9", "?w=9&fbclid=1", "?GCLID=2&w=9#x", "?w=9&utm_campaign=z", "?w=9#"],
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_spellings_of_one_address_are_asked_for_once_as_the_first_is_written(
    tmp_path: Path, kind: str
) -> None:
    host = Host({"/a.jpg": image(0), "/b.jpg": image(1)})
    spellings = [f"http://0.test/a.jpg{end}" for end in SPELLINGS[kind]]
    reports: list[tuple[int, str]] = []
    with serving(host) as hosts:
        found = crawl(
            tmp_path, candidates_of([*spellings, "http://0.test/b.jpg"]), hosts, reports=reports
        )
    asked = [target for target in host.targets if target.startswith("/a.jpg")]
    assert asked == ["/a.jpg" + SPELLINGS[kind][0].partition("#")[0]]
    assert len(found) == len(spellings) + 1
    said = [outcome for _, outcome in reports]
    assert said.count("ok") == 2 and said.count("duplicate") == len(spellings) - 1


def test_other_parameters_are_other_addresses(tmp_path: Path) -> None:
    host = Host({"/a.jpg": image(0)})
    ends = ["?id=1", "?id=2", "?utm=1", "?id=1&source=utm_x", "?ref=a", "?a=&id=1"]
    with serving(host) as hosts:
        crawl(tmp_path, candidates_of([f"http://0.test/a.jpg{end}" for end in ends]), hosts)
    assert host.requests["/a.jpg"] == len(ends)


def test_a_record_of_an_older_version_was_asked_without_a_page() -> None:
    assert not Fetched("x", "ok").referer
