"""Search by class name: the results of an engine's pages, in the order of classes and ranks.

icrawler's own threads are not used: version 0.6.10 drops results silently when a queue is full,
goes on when a page cannot be had, and lets a parser's thread die. The engines take from it what
reads today's pages and says how to ask for them.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from kd3_pipeline.classes import ClassSet
from kd3_pipeline.console import Advance, no_progress, printable
from kd3_pipeline.crawl.canary import (
    CLASS_SHARE,
    SharedLists,
    canary_alarm,
    canary_queries,
    wrong_page,
)
from kd3_pipeline.crawl.class_search import ClassSearch, Manner
from kd3_pipeline.crawl.engines.engine import Engine, NoMore, Query, Refused, Result
from kd3_pipeline.crawl.http import Client, Web
from kd3_pipeline.crawl.pagelog import PageLog
from kd3_pipeline.crawl.queries import QueryRun, Source, picture
from kd3_pipeline.crawl.result_pages import EnginePages, PutOff
from kd3_pipeline.crawl.search_account import ClassAccount, QueryAccount, SearchAccount
from kd3_pipeline.crawl.wording import clock
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import Candidate

MOST_CHECKS = 3  # by unrelated queries, in one run


class Search:
    """The search of one run: what every class has brought, and what is not asked in this run.

    A page that is in the log is not asked for. What comes out depends on the answers alone.

    Args:
        folder: where an answer is kept that is none of results.
        announce: called before the first page that the engine is asked for.

    Attributes:
        doubts: lists that two classes were given, where that need not be the engine's fault.
    """

    def __init__(
        self,
        engine: Engine,
        classes: ClassSet,
        manner: Manner,
        web: Web,
        log: PageLog,
        folder: Path,
        announce: Callable[[], object] = lambda: None,
    ) -> None:
        self._announce = announce
        self.engine, self.manner, self.web, self.log = engine, manner, web, log
        self._advance: Advance = no_progress
        self.pages = EnginePages(engine, folder, manner.patience, self._tell)
        self.classes = [
            ClassSearch(label, one, engine, manner, self._judge_page)
            for label, one in enumerate(classes.classes)
        ]
        self.doubts: list[str] = []
        self._checks = 0
        self._lists = SharedLists()
        self._source = Source(self.pages, log, self._begin, judging=manner.canary)

    def candidates(self, wanted: Sequence[int], advance: Advance) -> list[Candidate]:
        """Candidates of every class, in the order of classes; each class's only grow at the end.

        Args:
            wanted: results to ask for, for each class.

        Raises:
            UserError: the engine cannot filter by this licence.
            ExternalError: no class has results, or the engine does not answer what it is asked.
        """
        self._advance = advance
        asyncio.run(self._fill(wanted))
        if not any(one.chosen for one in self.classes) and any(wanted):
            raise self._nothing()
        return [candidate for one in self.classes for candidate in one.chosen.values()]

    def account(self) -> SearchAccount:
        """What was asked and found, and why it ended."""
        stopped = self.pages.stopped
        runs = [run for one in self.classes for run in one.runs]
        waiting = sum(run.waits and not run.refused for run in runs)
        return SearchAccount(
            self.engine.name,
            self.engine.host,
            tuple(_class_account(one) for one in self.classes),
            waiting=waiting,
            again_at=stopped.again_at if isinstance(stopped, PutOff) else None,
            refused=str(stopped) if isinstance(stopped, Refused) else "",
            stopped=str(stopped) if isinstance(stopped, PutOff) else "",
        )

    def remarks(self) -> list[str]:
        """What a person has to know, in lines."""
        found, account = list(self.doubts), self.account()
        if account.reason:
            kept = f"; its answer is kept as {self.pages.kept}" if self.pages.kept else ""
            asked = "was not asked for all" if self.pages.stopped else "did not answer all"
            found.append(f"{self.engine.name} {asked}: {account.reason}{kept}")
        return found

    async def _fill(self, wanted: Sequence[int]) -> None:
        async with Client(self.web) as client:
            self.pages.client = client
            for one, count in zip(self.classes, wanted, strict=True):
                await one.fill(count, self._source)
                self._advance(1, f"{one.one.name}: {len(one.chosen):,} results")

    def _tell(self, text: str) -> None:
        self._advance(0, printable(text))

    async def _begin(self) -> None:
        self._announce()
        if self.manner.canary:
            await self._check()

    async def _check(self) -> None:
        """Raises ExternalError if two unrelated queries are answered as if they were none."""
        self._checks += 1
        texts = [run.query.text for one in self.classes for run in one.own]
        queries, lists = canary_queries(texts), []
        for text in queries:
            query = Query(text, self.manner.licence)
            try:
                page = await self.pages.read(query, self.engine.first)
            except NoMore:
                return
            except PutOff as error:
                # whoever cannot be looked at is not believed
                self.pages.stopped = error
                raise
            if said := wrong_page(query, page):
                raise self._alarm(said)
            lists.append(page.results)
        if said := canary_alarm(queries, lists):
            raise self._alarm(said)

    async def _judge_page(
        self, searched: ClassSearch, run: QueryRun, results: Sequence[Result]
    ) -> None:
        """Raises ExternalError if a page's new results are those of another class."""
        if not self.manner.canary:
            return
        said = self._lists.add(searched.one.name, run.query.text, results)
        if not said:
            return
        found = set(map(picture, results))
        alike = [
            other
            for one in self.classes
            if one is not searched
            for other in one.runs
            if len(found & other.found.keys())
            >= CLASS_SHARE * max(1, min(len(found), len(other.first_page)))
        ]
        try:
            if not all(_words(run) & _words(other) for other in alike):
                raise self._alarm(
                    f"{said}: it does not answer what it is asked (if both mean the same,"
                    " crawl.canary: false goes on)"
                )
            # an engine may go by the word that both queries have, and answer others well
            if run.asked and self._checks < MOST_CHECKS:
                await self._check()
        except ExternalError:
            for other in (run, *alike):
                self.log.forget(other.keys)
            raise
        self.doubts.append(f"{self.engine.name}: {printable(said)}: give them other queries")

    def _alarm(self, said: str) -> ExternalError:
        self.pages.keep()
        return self.pages.alarm(printable(said))

    def _nothing(self) -> ExternalError:
        """Why there is no result at all."""
        stopped = self.pages.stopped
        if not any(run.waits for one in self.classes for run in one.runs):
            texts = [run.query.text for one in self.classes for run in one.own]
            some = ", ".join(f"'{text}'" for text in texts[:3])
            more = f" and {len(texts) - 3:,} more" if len(texts) > 3 else ""
            return self._alarm(f"no results for {some}{more}")
        why = self.account().reason
        again = ""
        if not isinstance(stopped, Refused):
            when = stopped.again_at if stopped is not None else None
            after = f"after {clock(when)}" if when is not None else "later"
            again = f"; run the same command again {after}"
        return self.pages.alarm(f"no results: {self.engine.host}: {why}{again}")


def _words(run: QueryRun) -> set[str]:
    return set(re.findall(r"\w+", run.query.text.casefold()))


def _class_account(one: ClassSearch) -> ClassAccount:
    queries = tuple(
        QueryAccount(run.query.text, run.variant, len(run.found), run.brought, run.ended, run.waits)
        for run in one.runs
    )
    return ClassAccount(one.one.name, len(one.chosen), queries, tuple(one.given_up))
