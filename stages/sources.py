"""Search engine of a crawl, and a check of what it answers."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.classes import DEMO_SETS, ClassSet, load_classes
from pipeline.console import Console
from pipeline.crawl.engines.bing import Bing
from pipeline.crawl.engines.engine import Engine, Unreadable
from pipeline.crawl.guard import PRODUCT, HostTable
from pipeline.crawl.http import Client, Page, Unanswered, Web
from pipeline.crawl.result_pages import ask, hidden, keep_page
from pipeline.errors import ExternalError, UserError
from pipeline.paramfile import read_params
from pipeline.params import Crawl
from pipeline.registry import SEARCH_ENGINES
from pipeline.version import __version__
from stages import paths

FEW = 3  # addresses shown
DEMO_SURPLUS = 1.2  # results of a demo query for each image wanted


@contextmanager
def engine_for(
    section: Crawl, classes: ClassSet, console: Console
) -> Iterator[tuple[Engine, HostTable]]:
    """The engine, and the names that stand for loopback addresses while the demo's web is up.

    Raises:
        UserError: the engine needs a key, and there is none.
    """
    name = engine_name(section, classes)
    if name != "demo":
        if not section.contact:
            console.note("set crawl.contact, so that site owners can reach you")
        engine = SEARCH_ENGINES.load(name)()
        if engine.note:
            console.note(engine.note)
        yield engine, {}
        return
    from pipeline.demo.server import DemoWeb

    with DemoWeb(round(DEMO_SURPLUS * section.per_class), section.seed) as web:
        yield Bing("demo", f"http://{web.search_name}/images/async", 0.0), web.names


def engine_name(section: Crawl, classes: ClassSet) -> str:
    """The engine that `section` means: `auto` is the demo's for sets that only it has."""
    if section.engine != "auto":
        return section.engine
    return "demo" if classes.name in DEMO_SETS else "bing"


def user_agent(contact: str) -> str:
    """An honest name in the form that robots usually have, with the user's address if given."""
    more = f"; +{contact}" if contact else ""
    return f"Mozilla/5.0 (compatible; {PRODUCT}/{__version__}{more})"


def check_engine(name: str, query: str | None, console: Console) -> None:
    """Asks a search engine for one page, and says what came back.

    Raises:
        UserError: there is no such engine.
        ExternalError: it does not answer, or not with a page of results.
    """
    known = ("demo", *SEARCH_ENGINES.entries)
    if name not in known:
        raise UserError(f"doctor: no search engine named '{name}'", f"known: {', '.join(known)}")
    section = read_params(paths.PARAMS).crawl.model_copy(update={"engine": name})
    classes = load_classes(section.classes)
    query = query or classes.classes[0].queries[0]
    with engine_for(section, classes, console) as (engine, hosts):
        address = next(engine.pages(query, 1, section.licence))
        try:
            page = asyncio.run(_one_page(engine, address, Web(user_agent(section.contact), hosts)))
        except Unanswered as error:
            raise ExternalError(
                f"{name}: {engine.host}: {error}", "check the network, or take another engine"
            ) from None
        said = f"{name}: '{query}': HTTP {page.status}, {len(page.body):,} bytes"
        try:
            if page.status != 200:
                raise Unreadable("it is no page of results")
            results = engine.results(page.body)
            if not results:
                raise Unreadable("it has no results")
        except Unreadable as error:
            kept = keep_page(engine, page.body, paths.CACHE / "crawl")
            raise ExternalError(
                f"{said}: {hidden(engine, str(error))}; kept as {kept}",
                "open it to see why (a captcha, a consent page, a new layout); wait, try another"
                " --query, or take another engine (crawl.engine)",
            ) from None
    licences = sorted({result.licence for result in results if result.licence})
    urls = [result.url for result in results[:FEW]]
    lines = [
        f"{said}, {len(results)} results",
        *(f"  {url}" for url in urls),
        f"  licences: {', '.join(licences) or 'none told'}",
    ]
    console.result(
        "\n".join(lines),
        {
            "engine": name,
            "query": query,
            "address": address,
            "status": page.status,
            "bytes": len(page.body),
            "results": len(results),
            "urls": urls,
            "licences": licences,
        },
    )


async def _one_page(engine: Engine, address: str, web: Web) -> Page:
    async with Client(web) as client:
        return await ask(engine, address, client)
