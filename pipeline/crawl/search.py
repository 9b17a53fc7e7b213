"""Search results by class name, on icrawler's feeder and parser threads.

icrawler 0.6.10 drops results silently when a queue is full, goes on when a page cannot be had, and
lets a parser's thread die. So plain queues connect its threads here, and every page is asked for
and read in one place that knows what happened to it.
"""

import queue
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import requests
from icrawler import Parser
from icrawler.feeder import UrlListFeeder
from icrawler.utils import Signal

from pipeline.classes import ClassSet
from pipeline.console import Advance
from pipeline.crawl.engines.engine import Engine, Result, Unreadable
from pipeline.crawl.pagelog import PageLog
from pipeline.crawl.pages import EnginePages, PageError, advice, hidden
from pipeline.errors import ExternalError
from pipeline.manifest import Candidate


def search(
    engine: Engine,
    classes: ClassSet,
    wanted: Sequence[int],
    licence: str,
    session: requests.Session,
    log: PageLog,
    folder: Path,
    advance: Advance,
) -> list[Candidate]:
    """Candidates of every class, in the order of classes, ranks and queries.

    A page that is in `log` is not asked for. A query that gave results ends where its next page
    cannot be had; that is noted through `advance`, and the page is asked for again next time.

    Args:
        wanted: results to ask for, for each class; its queries share them.
        licence: a licence filter of `params.yaml`, "any" for none.
        folder: where a page is kept that could not be read.

    Raises:
        UserError: the engine cannot filter by this licence.
        ExternalError: the engine cannot be reached, a page is none of results, or a class has none.
    """
    asked = EnginePages(engine, session, folder)
    licence_filter = "" if licence == "any" else licence
    candidates = []
    for label, (one, count) in enumerate(zip(classes.classes, wanted, strict=True)):
        share = -(-count // len(one.queries))
        ranked: list[tuple[int, int, str, Result]] = []
        empty = []
        for index, query in enumerate(one.queries if share else ()):
            parser = _read(asked, log, query, share, licence)
            ranked += [(rank, index, query, result) for rank, result in enumerate(parser.found)]
            empty += parser.empty
            ended = f"; '{query}' ends early: {parser.ended}" if parser.ended else ""
            advance(0, f"{one.name}: {len(ranked)} results{ended}")
        if share and not ranked:
            raise asked.alarm(
                f"no results for class '{one.name}' (searched for: {', '.join(one.queries)})"
            )
        for address in empty:  # with none in the class, they would have been asked for again
            log.add((engine.name, address), [])
        seen: set[str] = set()
        for rank, _, query, result in sorted(ranked, key=lambda entry: entry[:2]):
            if result.url not in seen:
                seen.add(result.url)
                candidates.append(
                    Candidate(
                        label,
                        one.name,
                        engine.name,
                        query,
                        rank,
                        **asdict(result),
                        licence_filter=licence_filter,
                    )
                )
        advance(1)
    return candidates


class _PageParser(Parser):
    """icrawler's parser thread over the pages of one query; it is its own session.

    Attributes:
        found: results, each address once, in order.
        empty: addresses of pages without results before any with some.
        ended: why no more pages were asked for, if there may be more.
        error: what ended the thread.
    """

    def __init__(self, asked: EnginePages, log: PageLog, query: str, wanted: int) -> None:
        signal = Signal()
        signal.set(feeder_exited=False, parser_exited=False, reach_max_num=False)
        super().__init__(1, signal, session=self)
        self.logger.disabled = True  # it would print every address
        self.in_queue = queue.Queue()  # icrawler's own drop what does not fit
        self.asked, self.log, self.query, self.wanted = asked, log, query, wanted
        self.found: list[Result] = []
        self.urls: set[str] = set()
        self.empty: list[str] = []
        self.ended = ""
        self.error: BaseException | None = None

    def get(self, address: str, **_: object) -> list[Result]:
        """The results of a page; the thread asks its session for this."""
        try:
            return self._results(address)
        except BaseException as error:  # the thread would go on, or die without a word
            self.error = error
            self.signal.set(reach_max_num=True)
            raise

    def parse(self, results: list[Result]) -> Iterator[dict[str, str]]:
        """Takes what is new; the thread hands it what `get` gave."""
        before = len(self.found)
        for result in results:
            if result.url not in self.urls and len(self.found) < self.wanted:
                self.urls.add(result.url)
                self.found.append(result)
        # past the last page an engine gives none, or the same one again
        if len(self.found) in (before, self.wanted):
            self.signal.set(reach_max_num=True)
        yield from ()

    def _results(self, address: str) -> list[Result]:
        asked, key = self.asked, (self.asked.engine.name, address)
        if key in self.log.pages:
            return self.log.pages[key]
        try:
            page = asked.page(address)
            if page.status == 404 and not self.found:
                raise PageError("it answered 404")
        except PageError as error:
            if self.found:
                self.ended = str(error)
                return []
            raise ExternalError(
                f"search for '{self.query}' failed: {asked.engine.host}: {error}",
                f"check the network; {advice(asked.engine)}",
            ) from None
        if self.found and not page.body.strip():
            self.ended = "its next page is empty"
            return []
        try:
            results = asked.engine.results(page.body) if page.status == 200 else []
        except Unreadable as error:
            reason = hidden(asked.engine, str(error))
            raise asked.alarm(f"no page of results for '{self.query}': {reason}") from None
        if results or self.found:
            self.log.add(key, results)
        else:
            self.empty.append(address)
        return results


def _read(asked: EnginePages, log: PageLog, query: str, wanted: int, licence: str) -> _PageParser:
    addresses = list(asked.engine.pages(query, wanted, licence))
    parser = _PageParser(asked, log, query, wanted)
    feeder = UrlListFeeder(1, parser.signal, None)
    feeder.logger.disabled = True
    feeder.out_queue = parser.in_queue
    feeder.start(url_list=addresses)
    parser.start(queue_timeout=0.01, max_retry=1)
    try:
        for worker in feeder.workers:
            worker.join()
        parser.signal.set(feeder_exited=True)
        for worker in parser.workers:
            worker.join()
    finally:
        parser.signal.set(reach_max_num=True)  # an interrupt leaves no thread that goes on
    if parser.error is not None:
        raise parser.error
    return parser
