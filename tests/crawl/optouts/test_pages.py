"""Opt-outs of the pages that `crawl.engine: site` reads."""

import pytest

from tests.crawl.hosts import reply
from tests.crawl.test_site import crawled, page, urls

RSL = "https://rslstandard.org/rsl"
LICENCE = (
    f'<rsl xmlns="{RSL}"><content url="/$"><license><prohibits type="usage">ai-train</prohibits>'
    "</license></content></rsl>"
)
LINK = '</l.xml>; rel="license"; type="application/rsl+xml"'
ELEMENT = '<link rel="license" type="application/rsl+xml" href="/l.xml">'


def of_robots(*lines):
    return {"/robots.txt": reply("\n".join(["User-agent: *", *lines]).encode())}


def of_tdmrep(text):
    return {"/.well-known/tdmrep.json": reply(text.encode())}


def routes(more, headers, head):
    """A page with an image, and one behind it that says nothing."""
    body = "<img src=a.jpg><a href=/y>y</a>"
    return {
        "/": page(body, head, **headers),
        "/y": page("<img src=b.jpg>"),
        "/l.xml": reply(LICENCE.encode()),
    } | more


CLOSED = [
    (of_robots("Content-Signal: /$ ai-train=no"), {}, ""),
    (of_robots("Content-Usage: /$ train-ai=n"), {}, ""),
    (of_robots("License: http://0.test/l.xml"), {}, ""),
    (of_tdmrep('[{"location": "/$", "tdm-reservation": 1}]'), {}, ""),
    ({}, {"Content_Usage": "train-ai=n"}, ""),
    ({}, {"TDM_Reservation": "1"}, ""),
    ({}, {"Link": LINK}, ""),
    ({}, {}, ELEMENT),
    ({}, {}, '<meta name="TDM-Reservation" content=" 1 ">'),
]
OPEN = [
    ({}, {}, ""),
    (of_robots("Content-Signal: /y ai-train=yes", "Content-Usage: search=n"), {}, ""),
    (of_tdmrep('[{"location": "/z", "tdm-reservation": 1}]'), {}, ""),
    (of_tdmrep('[{"location": "/", "tdm-reservation": 1}]'), {"TDM_Reservation": "0"}, ""),
    ({}, {"Link": '</l.xml>; rel="license"; type="text/html"'}, ""),
    ({}, {}, '<link rel="license" href="/l.xml">'),
    ({}, {}, '<link rel="license" type="application/rsl+xml" href="http://[">'),
    ({}, {}, f"<!-- {ELEMENT} -->"),
    ({}, {}, '<meta name="tdm-reservation" content="0">'),
]


@pytest.mark.parametrize("said", CLOSED)
def test_images_of_a_page_that_opts_out_are_left_its_links_followed(said):
    assert urls(routes(*said)) == ["http://0.test/b.jpg"]


@pytest.mark.parametrize("said", OPEN)
def test_images_of_other_pages_are_taken(said):
    assert urls(routes(*said), depth=0) == ["http://0.test/a.jpg"]


def test_files_of_an_origin_are_asked_for_once():
    pages = {f"/{n}": page(f"<img src={n}.jpg>", ELEMENT) for n in range(3)}
    start = page("".join(f"<a href=/{n}>x</a>" for n in range(3)), ELEMENT)
    found, host = crawled({"/": start, "/l.xml": reply(LICENCE.encode())} | pages)
    assert len(found) == 3
    files = ("/robots.txt", "/.well-known/tdmrep.json", "/l.xml")
    assert {path: host.requests[path] for path in files} == dict.fromkeys(files, 1)


def test_an_ill_tdmrep_json_closes_nothing():
    said = {"/.well-known/tdmrep.json": reply(b"", 500)}
    assert urls(routes(said, {}, ""), depth=0) == ["http://0.test/a.jpg"]
