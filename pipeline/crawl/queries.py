"""One query on its way through its result pages, and where those come from."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kd3_pipeline.console import printable
from kd3_pipeline.crawl.canary import wrong_page
from kd3_pipeline.crawl.engines.engine import NoMore, Query, Refused, Result, ResultPage
from kd3_pipeline.crawl.pagelog import Key, PageLog
from kd3_pipeline.crawl.result_pages import EnginePages, PutOff

Before = Callable[[], Awaitable[None]]


class OtherPage(PutOff):
    """A page says, twice, that it answers another query."""


class Source:
    """Result pages: those that the log has, and the others from the engine.

    Args:
        before: awaited before the first page that the engine is asked for.
        judging: pages that say what they answer have to answer what was asked.
    """

    def __init__(self, pages: EnginePages, log: PageLog, before: Before, *, judging: bool) -> None:
        self.pages, self.log = pages, log
        self._before: Before | None = before
        self._judging = judging

    def key(self, query: Query, start: int) -> Key:
        """Where the log has a page; of some engines its results depend on the side asked for."""
        engine = self.pages.engine
        side = f"#side={query.side}" if engine.sized and query.side else ""
        return (engine.name, engine.address(query, start) + side)

    async def ask(self, query: Query, start: int) -> ResultPage:
        """A page from the engine; raises as `EnginePages.read`."""
        if self._before is not None:
            before, self._before = self._before, None
            await before()
        page = await self.pages.read(query, start)
        if self._judging and wrong_page(query, page):
            page = await self.ask_again(query, start)
        return page

    async def ask_again(self, query: Query, start: int) -> ResultPage:
        """The same page after a pause; raises OtherPage if it is another query's once more."""
        await self.pages.pause()
        page = await self.pages.read(query, start)
        if self._judging and (said := wrong_page(query, page)):
            self.pages.keep()
            raise OtherPage(printable(said))
        return page


def picture(result: Result) -> str:
    """Address by which a picture is known, whatever the size that the engine offers."""
    return result.original or result.url


MOST_EMPTY = 3  # pages in a row


@dataclass(eq=False)
class QueryRun:
    """A query, and what its pages have brought so far.

    Attributes:
        variant: filter or expansion by which a class's query was varied, "" for its own.
        found: results by address, in order.
        pages: how many were read.
        first_page: addresses of the first one that has any.
        ended: why no more pages are read, "" while there may be more.
        waits: it ended because there was no answer in this run, and not by its results.
        refused: that is for good.
        brought: results that the class did not have.
        barren: pages in a row without such.
        keys: of its pages in the log.
        asked: the engine was asked for one of its pages in this run.
    """

    query: Query
    variant: str = ""
    found: dict[str, Result] = field(default_factory=dict)
    pages: int = 0
    first_page: frozenset[str] = frozenset()
    ended: str = ""
    waits: bool = False
    refused: bool = False
    brought: int = 0
    barren: int = 0
    keys: list[Key] = field(default_factory=list)
    asked: bool = False
    _start: int | None = None
    _empty: int = 0

    async def read_page(self, source: Source) -> list[tuple[int, Result]]:
        """Reads one page more: the results that are new to the query, with their ranks."""
        engine = source.pages.engine
        start = engine.first if self._start is None else self._start
        try:
            page, ended = await self._page(source, start)
        except NoMore as end:
            self.ended = str(end)
            if self.found:
                self._keep(source, start, ResultPage([], None), self.ended)
            return []
        except (PutOff, Refused) as error:
            if isinstance(error, OtherPage) and self.variant:
                # an engine that leaves words out has no more for it by the next run either
                self.ended = str(error)
                self._keep(source, start, ResultPage([], None), self.ended)
                return []
            self.waits, self.refused = True, isinstance(error, Refused)
            self.ended = f"{'refused' if self.refused else 'put off'}: {error}"
            return []
        before = len(self.found)
        for result in page.results:
            self.found.setdefault(picture(result), result)
        if not before:
            self.first_page = frozenset(self.found)
        self.pages += 1
        self._empty = 0 if page.results else self._empty + 1
        if ended:
            self.ended = ended
        elif len(self.found) == before and not self._goes_on(page, start):
            self.ended = self._nothing_new(page)
        elif page.next is None:
            self.ended = self._last_page(engine.budget.query_results)
        else:
            self._start = page.next
        return list(enumerate(self.found.values()))[before:]

    async def _page(self, source: Source, start: int) -> tuple[ResultPage, str]:
        """A page, and why the query ends with it if the log knows.

        A page that brings nothing new is asked for once more before it counts. The first page of
        a class's own query is never kept without results: the next run asks for it again. Of a
        variation it is: many have none, and each run would ask for all of them.
        """
        key = source.key(self.query, start)
        logged = source.log.pages.get(key)
        if logged is not None:
            self.keys.append(key)
            return logged.page, logged.ended
        self.asked = True
        page = await source.ask(self.query, start)
        if not self._new(page):
            page = await source.ask_again(self.query, start)
        if page.results or self.found or self.variant:
            self._keep(source, start, page)
        return page, ""

    def _keep(self, source: Source, start: int, page: ResultPage, ended: str = "") -> None:
        key = source.key(self.query, start)
        source.log.add(key, page, ended)
        self.keys.append(key)

    def _new(self, page: ResultPage) -> bool:
        return any(picture(result) not in self.found for result in page.results)

    def _goes_on(self, page: ResultPage, start: int) -> bool:
        """Whether a page without results says where the next one begins: all of it was left out."""
        later = page.next is not None and page.next > start
        return later and not page.results and self._empty < MOST_EMPTY

    def _nothing_new(self, page: ResultPage) -> str:
        if not self.found:
            return "no results, twice"
        return "it repeats itself" if page.results else "its next page is empty, twice"

    def _last_page(self, most: int) -> str:
        if len(self.found) >= most:
            return f"its limit of {most:,} results a query"
        return "there are no more"
