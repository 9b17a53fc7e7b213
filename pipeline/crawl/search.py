"""Search by class name: the results of an engine's pages, in the order of classes and ranks.

icrawler's own threads are not used: version 0.6.10 drops results silently when a queue is full,
goes on when a page cannot be had, and lets a parser's thread die. The engines take from it what
reads today's pages and says how to ask for them.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.classes import ClassSet
from pipeline.console import Advance
from pipeline.crawl.engines.engine import Engine, Result, Unreadable
from pipeline.crawl.http import Client, Unanswered, Web
from pipeline.crawl.pagelog import PageLog
from pipeline.crawl.result_pages import EnginePages, advice, hidden
from pipeline.errors import ExternalError
from pipeline.manifest import Candidate


def search(
    engine: Engine,
    classes: ClassSet,
    wanted: Sequence[int],
    licence: str,
    web: Web,
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

    async def run() -> list[Candidate]:
        async with Client(web) as client:
            asked = EnginePages(engine, client, folder)
            return await _search(asked, classes, wanted, licence, log, advance)

    return asyncio.run(run())


async def _search(
    asked: EnginePages,
    classes: ClassSet,
    wanted: Sequence[int],
    licence: str,
    log: PageLog,
    advance: Advance,
) -> list[Candidate]:
    name, licence_filter = asked.engine.name, "" if licence == "any" else licence
    candidates = []
    for label, (one, count) in enumerate(zip(classes.classes, wanted, strict=True)):
        share = -(-count // len(one.queries))
        ranked: list[tuple[int, int, str, Result]] = []
        empty = []
        for index, query in enumerate(one.queries if share else ()):
            answer = await _results(asked, log, query, share, licence)
            ranked += [
                (rank, index, query, result) for rank, result in enumerate(answer.found.values())
            ]
            empty += answer.empty
            ended = f"; '{query}' ends early: {answer.ended}" if answer.ended else ""
            advance(0, f"{one.name}: {len(ranked)} results{ended}")
        if share and not ranked:
            raise asked.alarm(
                f"no results for class '{one.name}' (searched for: {', '.join(one.queries)})"
            )
        for address in empty:  # with none in the class, they would have been asked for again
            log.add((name, address), [])
        seen: set[str] = set()
        for rank, _, query, result in sorted(ranked, key=lambda entry: entry[:2]):
            if result.url not in seen:
                seen.add(result.url)
                texts = asdict(result) | {"licence_filter": licence_filter}
                candidates.append(Candidate(label, one.name, name, query, rank, **texts))
        advance(1)
    return candidates


@dataclass
class QueryAnswer:
    """Results of one query.

    Attributes:
        found: by address, in order.
        empty: addresses of pages without results before any with some.
        ended: why no more pages were asked for, if there may be more.
    """

    found: dict[str, Result] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    ended: str = ""


async def _results(
    asked: EnginePages, log: PageLog, query: str, wanted: int, licence: str
) -> QueryAnswer:
    """Reads the pages of one query until there are enough results, or no new ones."""
    answer = QueryAnswer()
    for address in asked.engine.pages(query, wanted, licence):
        before = len(answer.found)
        for result in await _page_results(asked, log, query, address, answer):
            if len(answer.found) < wanted:
                answer.found.setdefault(result.url, result)
        # past the last page an engine gives none, or the same one again
        if len(answer.found) in (before, wanted):
            break
    return answer


async def _page_results(
    asked: EnginePages, log: PageLog, query: str, address: str, answer: QueryAnswer
) -> list[Result]:
    engine, key = asked.engine, (asked.engine.name, address)
    if key in log.pages:
        return log.pages[key]
    try:
        page = await asked.page(address)
        if page.status == 404 and not answer.found:
            raise Unanswered("it answered 404")
    except Unanswered as error:
        if answer.found:
            answer.ended = str(error)
            return []
        raise ExternalError(
            f"search for '{query}' failed: {engine.host}: {error}",
            f"check the network; {advice(engine)}",
        ) from None
    if answer.found and not page.body.strip():
        answer.ended = "its next page is empty"
        return []
    try:
        results = engine.results(page.body) if page.status == 200 else []
    except Unreadable as error:
        reason = hidden(engine, str(error))
        raise asked.alarm(f"no page of results for '{query}': {reason}") from None
    if results or answer.found:
        log.add(key, results)
    else:
        answer.empty.append(address)
    return results
