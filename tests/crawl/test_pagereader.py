"""Reading of pages in a process of its own, which hostile pages cannot hold."""

import asyncio
import json
import os
import sys
import time

import pytest

from kd3_pipeline.crawl import pagereader
from kd3_pipeline.crawl.pagereader import PageContent, PageReader, Unread
from kd3_pipeline.crawl.pageworker import content

# libxml2 compares every attribute with all before it
BOMB = b"<img " + b" ".join(b"a%d=1" % number for number in range(300_000)) + b"><img src=/a.jpg>"
PAGE = b"<meta name=robots content=noai><img src=a.jpg alt=cat><a href=/b>b</a>"


async def read(reader: PageReader, body: bytes) -> PageContent:
    return await reader.read(body, "text/html", "http://0.test/", "robot")


def test_a_page_is_read() -> None:
    async def run() -> PageContent:
        async with PageReader() as reader:
            return await read(reader, PAGE)

    found = asyncio.run(run())
    assert found.images == [("http://0.test/a.jpg", "cat", False)]
    assert (found.words, found.links) == ({"noai"}, ["http://0.test/b"])


def test_a_page_that_takes_too_long_is_ended_and_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with PageReader() as reader:
            await read(reader, PAGE)
            monkeypatch.setattr(pagereader, "SECONDS", 0.3)
            with pytest.raises(Unread, match=r"it takes more than 0\.3 s to read"):
                await read(reader, BOMB)
            assert len((await read(reader, PAGE)).images) == 1

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 20


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count its memory")
@pytest.mark.parametrize(
    "body",
    [  # the parser's memory, and Python's
        b"<p>" * 1_700_000,
        b"<script type=application/ld+json>[" + b"[]," * 1_700_000 + b"1]</script>",
    ],
)
def test_a_page_that_takes_too_much_memory_is_told_and_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    async def run() -> None:
        async with PageReader() as reader:
            with monkeypatch.context() as patch:
                patch.setattr(pagereader, "MEMORY", 60 * 2**20)
                with pytest.raises(Unread, match="it takes more than 60 MiB of memory to read"):
                    await read(reader, body)
            assert len((await read(reader, PAGE)).images) == 1

    asyncio.run(run())


def test_who_waits_for_a_page_can_stop_at_once_and_nothing_is_left() -> None:
    async def run() -> int:
        async with PageReader() as reader:
            await read(reader, PAGE)
            assert reader._process is not None
            number = reader._process.pid
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await read(reader, BOMB)
            with pytest.raises(ProcessLookupError):
                os.kill(number, 0)
            assert len((await read(reader, PAGE)).images) == 1  # and not what came late
            return reader._process.pid

    start = time.monotonic()
    number = asyncio.run(run())
    assert time.monotonic() - start < 4
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_reader_that_dies_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with PageReader() as reader:
            await read(reader, PAGE)
            assert reader._process is not None
            os.kill(reader._process.pid, 9)
            with pytest.raises(Unread, match="its reader ended with -9"):
                await read(reader, PAGE)
            # an error of its own, not one of the page
            monkeypatch.setattr(pagereader, "SECONDS", -1.0)
            with pytest.raises(Unread, match="itimer_error"):
                await read(reader, PAGE)

    asyncio.run(run())


def test_the_title_of_a_page_of_many_images_is_told_and_kept_once() -> None:
    images = b"".join(b"<meta property=og:image content=/%d.jpg>" % number for number in range(500))
    page = b"<title>" + b"long " * 400 + b"</title><img src=/a.jpg alt=cat>" + images
    told = content(page, "text/html", "http://0.test/", "robot")
    assert len(json.dumps(told)) < 50_000

    async def run() -> PageContent:
        async with PageReader() as reader:
            return await read(reader, page)

    titles = [title for _, title, _ in asyncio.run(run()).images]
    assert titles == ["cat", *[("long " * 400).strip()] * 500]
    assert len(set(map(id, titles))) == 2


def test_of_a_page_of_nothing_there_is_nothing() -> None:
    nothing = {"words": [], "signals": [], "licences": [], "images": [], "titles": [], "links": []}
    assert content(b"", "text/html", "http://0.test/", "robot") == nothing
