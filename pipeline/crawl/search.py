"""Search results by class name, with icrawler's feeders and parsers.

icrawler 0.6.10 drops results silently when a queue is full, keeps only `.jpg` addresses, and does
not encode the query. So its threads run here with plain queues, and its Bing classes are refined.
"""

import json
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import requests
from bs4 import BeautifulSoup
from icrawler.builtin.bing import BingFeeder, BingParser
from icrawler.utils import Signal

from pipeline.classes import ClassSet
from pipeline.console import Advance
from pipeline.crawl.candidates import Candidate
from pipeline.errors import WorldError

BING = "https://www.bing.com/images/async"
PAGE_RESULTS = 20
PAGE_TIMEOUT = 15  # seconds
MOST_CHARACTERS = 2000  # of an address, which is left out when longer, or of a text, which is cut


@dataclass(frozen=True)
class SearchEngine:
    """Where to ask: `name` goes into the manifest, `page_gap` is seconds between two pages."""

    name: str
    address: str
    page_gap: float


class PageFeeder(BingFeeder):
    """Feeds the addresses of the result pages of one query, properly encoded."""

    def feed(self, address: str, query: str, wanted: int) -> None:
        for first in range(0, wanted, PAGE_RESULTS):
            self.output(f"{address}?q={quote_plus(query)}&first={first}")


class ResultParser(BingParser):
    """Reads the whole record of every result, and stops at the first page without any."""

    page_gap = 0.0
    last_page = b""
    failure = ""

    def parse(self, response: requests.Response) -> Iterator[dict[str, str]]:
        self.last_page = response.content
        records = []
        if response.status_code != 200:
            self.failure = f"it answered {response.status_code}"
        else:
            records = list(result_records(response.content))
        if records:
            time.sleep(self.page_gap)
        else:
            self.signal.set(reach_max_num=True)
        yield from records


def result_records(page: bytes) -> Iterator[dict[str, str]]:
    """The results of one page: `url`, `page_url`, `title`, `licence`. Malformed ones are left out.

    The page comes from outside: any bytes are survived.
    """
    soup = BeautifulSoup(page.decode("utf-8", "ignore"), "lxml")
    for link in soup.find_all("a", class_="iusc"):
        try:
            record = json.loads(str(link.get("m", "")))
        except (ValueError, RecursionError):
            continue
        url = record.get("murl") if isinstance(record, dict) else None
        if isinstance(url, str) and 0 < len(url.strip()) <= MOST_CHARACTERS:
            yield {
                "url": url.strip(),
                "page_url": _text(record.get("purl")),
                "title": _text(record.get("t")),
                "licence": _text(record.get("lic")),
            }


def search(
    engine: SearchEngine,
    classes: ClassSet,
    wanted: int,
    user_agent: str,
    page_folder: Path,
    advance: Advance,
) -> list[Candidate]:
    """Candidates of every class, in the order of classes, ranks and queries.

    Args:
        wanted: results to ask for, for each class.
        page_folder: where the page is kept that gave no results.

    Raises:
        WorldError: the engine cannot be reached, or a class has no result at all.
    """
    with requests.Session() as session:
        session.trust_env = False  # no proxy or credentials by accident
        session.headers["User-Agent"] = user_agent
        candidates = []
        for label, one in enumerate(classes.classes):
            share = -(-wanted // len(one.queries))
            results: list[tuple[int, int, str, dict[str, str]]] = []
            for index, query in enumerate(one.queries):
                found = _results(engine, query, share, session, page_folder)
                results += [(rank, index, query, record) for rank, record in enumerate(found)]
                advance(0, f"{one.name}: {len(results)} results")
            if not results:
                raise WorldError(
                    f"{urlsplit(engine.address).netloc} gave no results for '{one.queries[0]}'",
                    "check the query; if the engine asks for a captcha or has changed,"
                    f" {_last_page(page_folder)} shows it",
                )
            seen: set[str] = set()
            for rank, _, query, record in sorted(results, key=lambda result: result[:2]):
                if record["url"] not in seen:
                    seen.add(record["url"])
                    candidates.append(
                        Candidate(label, one.name, engine.name, query, rank, **record)
                    )
            advance(1)
    return candidates


def _results(
    engine: SearchEngine, query: str, wanted: int, session: requests.Session, page_folder: Path
) -> list[dict[str, str]]:
    signal = Signal()
    signal.set(feeder_exited=False, parser_exited=False, reach_max_num=False)
    feeder = PageFeeder(1, signal, session)
    parser = ResultParser(1, signal, session)
    parser.page_gap = engine.page_gap
    for logger in (feeder.logger, parser.logger):
        logger.disabled = True  # it would print every page
    feeder.out_queue = parser.in_queue = queue.Queue()
    parser.out_queue = queue.Queue()
    _run(feeder, address=engine.address, query=query, wanted=wanted)
    signal.set(feeder_exited=True)
    probe = _Probe(session, parser, signal)
    parser.session = probe
    _run(parser, queue_timeout=0.01, req_timeout=PAGE_TIMEOUT, max_retry=1)
    host = urlsplit(engine.address).netloc
    if parser.failure:
        raise WorldError(
            f"search for '{query}' failed: {host}: {parser.failure}",
            "check the network, or use images that you have with crawl.engine 'files'",
        )
    results = []
    while not parser.out_queue.empty():
        results.append(parser.out_queue.get_nowait())
    if not results:
        page_folder.mkdir(parents=True, exist_ok=True)
        _last_page(page_folder).write_bytes(parser.last_page)
    return results[:wanted]


def _last_page(page_folder: Path) -> Path:
    return page_folder / "no-results.html"


class _Probe:
    """A session that remembers why a page could not be fetched, which icrawler only logs."""

    def __init__(self, session: requests.Session, parser: ResultParser, signal: Signal) -> None:
        self.session, self.parser, self.signal = session, parser, signal

    def get(self, url: str, **options: Any) -> requests.Response:
        try:
            return self.session.get(url, **options)
        except requests.RequestException as error:
            self.parser.failure = _network_reason(error)
            self.signal.set(reach_max_num=True)
            raise


def _run(pool: Any, **options: Any) -> None:
    pool.start(**options)
    for worker in pool.workers:
        worker.join()


def _network_reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer in {PAGE_TIMEOUT} s"
    text = str(error)
    if "NameResolution" in text or "getaddrinfo" in text or "Name or service" in text:
        return "its name cannot be resolved"
    if "refused" in text:
        return "connection refused"
    return text.splitlines()[0][:160]


def _text(value: object) -> str:
    return value.strip()[:MOST_CHARACTERS] if isinstance(value, str) else ""
