"""`pipeline crawl` of a site, through the whole command."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.crawl.hosts import Host, Request, picture, reply, serving
from tests.crawl.middle import proxied
from tests.stages.workspace import invoke

CRAWL = ("crawl", "--engine", "site", "--source", "http://0.test/", "--set", "crawl.host_gap=0")
BODY = """<title>Six</title><meta name=twitter:image content=/0.jpg>
<script type=application/ld+json>{"image": ["/1.jpg", {"url": "/2.jpg"}]}</script>
<img src=/blank.gif data-original=/3.jpg><img data-lazy-src=/4.jpg src=data:,>
<img srcset="/5.jpg 900w, /small.jpg 90w"><a href=/odd>odd</a>"""


def shown(request: Request) -> None:
    """A picture of its own on the page of the host, and the same for all elsewhere."""
    known = request.headers["Referer"] == "http://0.test/"
    request.reply(picture(int(request.path[1]) + 1 if known else 0))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("distill: {batch_size: 8}\n")
    return tmp_path


def test_what_a_host_gives_elsewhere_than_on_its_page_is_told_and_asked_for_again(
    place: Path,
) -> None:
    page = reply(BODY.encode(), Content_Type="text/html")
    odd = reply(b"x", Content_Type="text/\x1b[2Jodd")
    host = Host({"/": page, "/odd": odd} | {f"/{index}.jpg": shown for index in range(6)})
    with serving(host) as hosts, proxied(hosts) as middle:
        through = ("--set", f"crawl.proxy={middle.address}")
        first = invoke(place, *CRAWL, *through)
        report = json.loads((place / "reports/crawl.json").read_text())
        second = invoke(place, *CRAWL, *through, "--set", "crawl.referer=true")
    assert "one picture for many addresses: 0.test 6; crawl.referer: true sends" in first.output
    assert "1 pages could not be read: 1 (it is no HTML page but 'text/[2jodd')" in first.output
    assert "\x1b" not in first.output
    assert (report["stored"], report["one_for_many"]) == (1, {"0.test": 6})
    assert "one picture for many" not in second.output
    rows = pq.read_table(place / "data/crawl/manifest.parquet").to_pylist()
    assert [(row["url"], row["outcome"]) for row in rows] == [
        (f"http://0.test/{index}.jpg", "stored") for index in range(6)
    ]


def test_hosts_that_give_one_picture_for_many_are_told_with_a_page_too(place: Path) -> None:
    page = reply(BODY.encode(), Content_Type="text/html")
    same = reply(picture(0))
    host = Host({"/": page} | {f"/{index}.jpg": same for index in range(6)})
    with serving(host) as hosts, proxied(hosts) as middle:
        through = ("--set", f"crawl.proxy={middle.address}", "--set", "crawl.referer=true")
        done = invoke(place, *CRAWL, *through)
    assert "0.test 6; although crawl.referer sent the page" in done.output


def test_a_start_that_sends_control_characters_sends_none_to_the_terminal(place: Path) -> None:
    host = Host({"/": reply(b"x", Content_Type="\x1b[2J\x1b[31mred")})
    with serving(host) as hosts, proxied(hosts) as middle:
        done = invoke(place, *CRAWL, "--set", f"crawl.proxy={middle.address}", check=False)
    assert done.exit_code == 3 and "red" in done.output and "\x1b" not in done.output


def test_a_contact_that_no_header_may_have_is_the_users_mistake(place: Path) -> None:
    done = invoke(place, *CRAWL, "--set", "crawl.contact=a\nX-Evil: 1", check=False)
    assert done.exit_code == 2 and "crawl.contact" in done.output
