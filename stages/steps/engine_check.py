"""Step of `pipeline doctor --engine`: four pages of a search engine, and what is wrong."""

import asyncio
import time
from dataclasses import dataclass

from kd3_pipeline.classes import load_classes
from kd3_pipeline.console import Advance, Console, printable
from kd3_pipeline.crawl.canary import addresses, canary_alarm, canary_queries, wrong_page
from kd3_pipeline.crawl.engines.engine import (
    Engine,
    NoMore,
    NotNow,
    Query,
    Refused,
    ResultPage,
    Unreadable,
)
from kd3_pipeline.crawl.http import Client, Page, Unanswered, Web, first_line, retry_after
from kd3_pipeline.crawl.result_pages import ask, hidden, keep_page, passing
from kd3_pipeline.crawl.wording import clock, duration
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Crawl
from kd3_pipeline.registry import SEARCH_ENGINES
from kd3_stages import paths, sources
from kd3_stages.steps.engine_findings import Findings, limits, lines, values

MOST_LETTERS = 200  # shown of what an engine says
ANOTHER = "wait, or take another engine (crawl.engine)"


class Trouble(Exception):
    """What is wrong with an answer, and what the user can do.

    `status` and `size` are the answer's, 0 without one.
    """

    def __init__(self, what: str, hint: str, status: int = 0, size: int = 0) -> None:
        super().__init__(what)
        self.what, self.hint, self.status, self.size = what, hint, status, size


def check_engine(name: str, query: str | None, console: Console) -> None:
    """Asks a search engine for two pages and for two unrelated words, and says what came back.

    Raises:
        UserError: there is no such engine, or it lacks a key.
        ExternalError: it does not answer, or not as a crawl needs it.
    """
    known = ("demo", *SEARCH_ENGINES.entries)
    if name not in known:
        raise UserError(f"doctor: no search engine named '{name}'", f"known: {', '.join(known)}")
    section = read_params(paths.PARAMS).crawl.model_copy(update={"engine": name})
    classes = load_classes(section.classes)
    query = query or classes.classes[0].queries[0]
    with sources.engine_for(section, classes, console) as (engine, hosts):
        web = sources.web_of(section, console, hosts)
        with console.progress(f"doctor: asking {name}", 4) as advance:
            asked = asyncio.run(_ask_all(engine, section, web, query, advance))
        text = "\n".join(lines(engine, section, query, asked))
        found = values(engine, section, query, asked)
    if asked.results or console.as_json:
        console.result(text, found)
    if asked.problems:
        what = "; ".join(one for one, _ in asked.problems)
        hints = dict.fromkeys(hint for _, hint in asked.problems)
        raise ExternalError(f"{name}: {what}", "; ".join(hints))


async def _ask_all(
    engine: Engine, section: Crawl, web: Web, query: str, advance: Advance
) -> Findings:
    """Stops at the first answer that is none: a service that says no is not asked for more."""
    found = Findings()
    async with Client(web) as client:
        asking = Asking(engine, section, client, advance)
        try:
            first = await asking.first_page(query, found)
            await asking.second_page(query, first, found)
            if engine.name != "demo":  # which knows no words but its own
                await asking.canary(query, found)
        except Trouble as trouble:
            found.problems.append((trouble.what, trouble.hint))
            if not found.results:
                found.status, found.size = trouble.status, trouble.size
    return found


@dataclass
class Asking:
    """An engine that is asked at its own pace."""

    engine: Engine
    section: Crawl
    client: Client
    advance: Advance
    pages: int = 0

    async def first_page(self, query: str, found: Findings) -> ResultPage:
        """The page that shows whether the engine answers at all.

        Raises:
            Trouble: it does not, or has no results.
        """
        found.address, page, first = await self._page(query, self.engine.first)
        found.status, found.size, found.results = page.status, len(page.body), first.results
        if not first.results:
            raise self._trouble(query, page, "it has no results")
        return first

    async def second_page(self, query: str, first: ResultPage, found: Findings) -> None:
        """Whether the next page goes on, or is the same again.

        Raises:
            Trouble: it is no page of results.
        """
        if first.next is None:
            found.second = {"asked": False}
            return
        try:
            _, _, second = await self._page(query, first.next)
        except NoMore as error:
            found.second = {"asked": True, "start": first.next, "ended": self._clean(str(error))}
            return
        fresh = addresses(second.results) - addresses(first.results)
        found.second = {
            "asked": True,
            "start": first.next,
            "results": len(second.results),
            "new": len(fresh),
        }
        if second.results and not fresh:
            what = (
                f"its second page for '{query}' is the first one again: a crawl gets"
                f" {len(first.results)} images of a query; it may take this client for a robot"
            )
            found.problems.append((what, ANOTHER))

    async def canary(self, query: str, found: Findings) -> None:
        """Whether other words bring other images.

        Raises:
            Trouble: an answer is no page of results.
        """
        words = canary_queries([query])
        lists = [(await self._page(word, self.engine.first))[2].results for word in words]
        empty = [f"'{word}'" for word, one in zip(words, lists, strict=True) if not one]
        alarm = canary_alarm(words, lists)
        if empty:
            alarm = f"it has no results for {' nor '.join(empty)}, of which there are thousands"
        found.canary = {"queries": words, "results": [len(one) for one in lists], "alarm": alarm}
        if alarm:
            what = f"canary: {alarm}, and its images would be of anything"
            found.problems.insert(0, (what, ANOTHER))

    async def _page(self, query: str, start: int) -> tuple[str, Page, ResultPage]:
        """One page: its address, the answer, and what is in it.

        Raises:
            Trouble: there is no answer, or it is no page of results, or one of another query.
            NoMore: the engine says that this query has no more results.
        """
        engine, asked = self.engine, Query(query, self.section.licence)
        address = engine.address(asked, start)
        if self.pages:
            await asyncio.sleep(engine.page_gap)
        self.pages += 1
        try:
            page = await ask(engine, address, self.client)
        except Unanswered as error:
            hint = "check the network, or take another engine"
            raise Trouble(f"{engine.host}: {error}", hint) from None
        finally:
            self.advance(1)
        if page.status != 200:
            self._raise_for(query, start, page)
        try:
            found = engine.read(page.body, asked, start)
        except NotNow as error:
            raise self._refused_for_now(query, page, error) from None
        except Refused as error:
            raise self._refused(query, page, self._clean(str(error))) from None
        except NoMore as error:
            if start != engine.first:
                raise
            raise self._trouble(query, page, self._clean(str(error))) from None
        except Unreadable as error:
            raise self._trouble(query, page, self._clean(str(error))) from None
        if wrong := wrong_page(asked, found):
            raise self._trouble(query, page, wrong)
        return address, page, found

    def _raise_for(self, query: str, start: int, page: Page) -> None:
        """Raises what an answer that is not 200 means."""
        meaning = self.engine.refusal(page.status, page.body)
        if isinstance(meaning, NoMore) and start != self.engine.first:
            raise meaning
        if meaning is None and passing(page):
            meaning = NotNow("")
        if isinstance(meaning, NotNow):
            raise self._refused_for_now(query, page, meaning)
        raise self._refused(query, page, "")

    def _refused_for_now(self, query: str, page: Page, error: NotNow) -> Trouble:
        pause = retry_after(page.headers)
        pause = error.pause if pause is None else pause
        when = "it names no time: ask again in some minutes"
        if pause is not None:
            when = f"ask again in {duration(pause)}, at {clock(time.time() + pause)}"
        said = self._clean(str(error)) or self._first_line(page.body)
        said = said.rstrip(".")
        hint = f"{when}; {limits(self.engine)}, or take another engine (crawl.engine)"
        return self._told(query, page, f"it refuses for now: {said}", hint)

    def _refused(self, query: str, page: Page, said: str) -> Trouble:
        """For good: what the user can change is its contact or its key."""
        budget, hints = self.engine.budget, []
        if budget.contact and not self.section.contact:
            hints.append("set crawl.contact to your address or page: it refuses robots without one")
        if budget.key:
            hints.append(f"see to the environment variable {budget.key}")
        kept = keep_page(self.engine, page.body, paths.CACHE / "crawl")
        hints.append(f"its answer is kept as {kept}; or take another engine (crawl.engine)")
        return self._told(
            query,
            page,
            f"it refuses: {(said or self._first_line(page.body)).rstrip('.')}",
            "; ".join(hints),
        )

    def _trouble(self, query: str, page: Page, what: str) -> Trouble:
        kept = keep_page(self.engine, page.body, paths.CACHE / "crawl")
        return self._told(
            query,
            page,
            f"{what}; kept as {kept}",
            "open it to see why (a captcha, a consent page, a new layout); wait, try another"
            " --query, or take another engine (crawl.engine)",
        )

    def _told(self, query: str, page: Page, what: str, hint: str) -> Trouble:
        size = len(page.body)
        said = f"'{query}': HTTP {page.status}, {size:,} bytes: {what}"
        return Trouble(said, hint, page.status, size)

    def _first_line(self, body: bytes) -> str:
        return self._clean(first_line(body)) or "it does not say why"

    def _clean(self, text: str) -> str:
        return printable(hidden(self.engine, text)).strip()[:MOST_LETTERS]
