"""Google's image search by icrawler's own classes. Known to break.

Google changes its pages often, and icrawler's parser has been reported as finding nothing again
and again; then the page is unreadable, and another engine is the remedy.
"""

import queue
import re
from collections.abc import Iterator
from types import SimpleNamespace

from icrawler.builtin.google import GoogleFeeder, GoogleParser
from icrawler.utils import Signal

from pipeline.crawl.engines.engine import Result, Unreadable, filter_of, link

MOST_RESULTS = 1000  # of a query
LICENCES = {"commercial": "commercial", "modify": "noncommercial,modify"}  # ours: icrawler's
_URL = re.compile(r"https?://[^\s\"'<>\\]+")  # the parser also matches code between addresses


class Google:
    """Google, as far as icrawler can read it: addresses of images and nothing else."""

    name, host, page_gap = "google", "www.google.com", 2.0

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.secrets: dict[str, str] = {}

    def pages(self, query: str, wanted: int, licence: str) -> Iterator[str]:
        code = filter_of(self.name, LICENCES, licence)
        feeder = GoogleFeeder(1, Signal(), None)
        feeder.out_queue = addresses = queue.Queue()
        filters = {"license": code} if code else None
        feeder.feed(query, 0, min(wanted, MOST_RESULTS), filters=filters)
        yield from addresses.queue

    def results(self, page: bytes) -> list[Result]:
        try:
            found = GoogleParser(1, Signal(), None).parse(SimpleNamespace(content=page))
        except Exception as error:  # whatever a parser does that is known to break
            raise Unreadable(f"icrawler's parser failed: {error!r}"[:200]) from None
        urls = [link(one["file_url"]) for one in found or []]
        good = [Result(url) for url in urls if _URL.fullmatch(url)]
        if not good:
            raise Unreadable("icrawler's parser finds no address of an image in it")
        return good
