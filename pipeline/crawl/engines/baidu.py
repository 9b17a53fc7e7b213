"""Baidu's image search by icrawler's own classes. Known to break.

icrawler 0.6.10 fails on many of Baidu's answers (KeyError 'data'); then the page is unreadable,
and another engine is the remedy.
"""

import json
import queue
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import quote_plus

from icrawler.builtin.baidu import BaiduFeeder, BaiduParser
from icrawler.utils import Signal

from pipeline.crawl.engines.engine import Result, Unreadable, filter_of, link

MOST_RESULTS = 1000  # of a query


class Baidu:
    """Baidu, as far as icrawler can read it: addresses of images and nothing else."""

    name, host, page_gap = "baidu", "image.baidu.com", 2.0

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.secrets: dict[str, str] = {}

    def pages(self, query: str, wanted: int, licence: str) -> Iterator[str]:
        filter_of(self.name, {}, licence)
        feeder = BaiduFeeder(1, Signal(), None)
        feeder.out_queue = addresses = queue.Queue()
        # the feeder does not encode the query
        feeder.feed(quote_plus(query, errors="replace"), 0, min(wanted, MOST_RESULTS))
        yield from addresses.queue

    def results(self, page: bytes) -> list[Result]:
        parser = BaiduParser(1, Signal(), None)
        parser.logger.disabled = True
        try:
            found = list(parser.parse(SimpleNamespace(content=page)))
        except Exception as error:  # whatever a parser does that is known to break
            raise Unreadable(f"icrawler's parser failed: {error!r}"[:200]) from None
        results = [Result(url) for one in found if (url := link(one["file_url"]))]
        if not results and not _is_empty_page(page):
            raise Unreadable("icrawler's parser finds no address of an image in it")
        return results


def _is_empty_page(page: bytes) -> bool:
    """Past the last result Baidu's list holds nothing, or one empty object."""
    try:
        return json.loads(page)["data"] in ([], [{}])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
