"""Bing's image search, read from the HTML that its own pages load; it has no interface for this."""

import json
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote_plus, urlsplit

from bs4 import BeautifulSoup, SoupStrainer
from bs4.exceptions import ParserRejectedMarkup
from icrawler.builtin.bing import BingFeeder
from icrawler.utils import Signal

from pipeline.crawl.engines.engine import Engine, Result, Unreadable, filter_of, link, text

ADDRESS = "https://www.bing.com/images/async"
MOST_RESULTS = 1000  # of a query; Bing repeats itself beyond
MARKS = (b"dgControl", b"imgpt", b"iusc", b"mmComponent_images")  # of a page of image results
LICENCES = {  # ours: icrawler's
    "creative-commons": "creativecommons",
    "commercial": "commercial",
    "modify": "noncommercial,modify",
    "public-domain": "publicdomain",
}


class Bing(Engine):
    """Bing, or the demo's engine, whose pages have the same form.

    The addresses and filters are those of icrawler's feeder, which does not encode the query; its
    parser knows `.jpg` addresses only.
    """

    def __init__(self, name: str = "bing", base: str = ADDRESS, page_gap: float = 1.0) -> None:
        self.name, self.base, self.page_gap = name, base, page_gap
        self.host = urlsplit(base).netloc

    def pages(self, query: str, wanted: int, licence: str) -> Iterator[str]:
        code = filter_of(self.name, LICENCES, licence)
        feeder = BingFeeder(1, Signal(), None)
        feeder.out_queue = SimpleQueue()
        feeder.feed(
            quote_plus(query, errors="replace"),
            offset=0,
            max_num=min(wanted, MOST_RESULTS),
            filters={"license": code} if code else None,
        )
        while not feeder.out_queue.empty():
            yield self.base + feeder.out_queue.get().removeprefix(ADDRESS)

    def results(self, page: bytes) -> list[Result]:
        try:
            strainer = SoupStrainer("a", class_="iusc")
            soup = BeautifulSoup(page.decode("utf-8", "ignore"), "lxml", parse_only=strainer)
            links = soup.find_all("a", class_="iusc")
        except (ParserRejectedMarkup, RecursionError) as error:
            raise Unreadable(f"it is no HTML: {error}") from None
        found = [result for one in links if (result := _result(one.get("m"))) is not None]
        if not found and links:
            raise Unreadable(f"none of its {len(links)} results can be read")
        if not found and not any(mark in page for mark in MARKS):
            raise Unreadable(
                "it has neither results nor the marks of a page of results"
                if page.strip()
                else "it is empty"
            )
        return found


def _result(attribute: Any) -> Result | None:
    try:
        record = json.loads(str(attribute))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not link(record.get("murl")):
        return None
    return Result(
        url=link(record["murl"]),
        page_url=link(record.get("purl")),
        title=text(record.get("t")),
        thumbnail=link(record.get("turl")),
        licence=text(record.get("lic")),
    )
