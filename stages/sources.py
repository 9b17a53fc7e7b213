"""Search engine of a crawl, and the name that we go by."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from kd3_pipeline.classes import DEMO_SETS, ClassSet
from kd3_pipeline.console import Console
from kd3_pipeline.crawl.engines.bing import Bing
from kd3_pipeline.crawl.engines.engine import Engine
from kd3_pipeline.crawl.guard import PRODUCT, HostTable
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.proxy import Proxy, unused_proxies
from kd3_pipeline.params import Crawl
from kd3_pipeline.registry import SEARCH_ENGINES
from kd3_pipeline.version import __version__

CONTACT_KEPT = " !\"#$%&'*+,/:;<=>?@[]^`{|}"  # of what quote does not keep anyway
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
        engine = SEARCH_ENGINES.load(name)()
        if not section.contact:
            _unnamed(engine, console)
        if engine.note:
            console.say(f"note: {engine.note}")  # before anything is asked: it is about terms
        yield engine, {}
        return
    from kd3_pipeline.demo.server import DemoWeb

    with DemoWeb(round(DEMO_SURPLUS * section.per_class), section.seed) as web:
        yield Bing("demo", f"http://{web.search_name}/images/async", 0.0), web.names


def _unnamed(engine: Engine, console: Console) -> None:
    """Takes the pace that an engine leaves to robots without a contact, and says so."""
    if few := engine.budget.per_minute_unnamed:
        engine.page_gap = max(engine.page_gap, 60 / few)
        console.say(
            f"note: without crawl.contact {engine.name} gives {few:g} requests a minute, or none"
        )
    else:
        console.note("set crawl.contact, so that site owners can reach you")


def engine_name(section: Crawl, classes: ClassSet) -> str:
    """The engine that `section` means: `auto` is the demo's for sets that only it has."""
    if section.engine != "auto":
        return section.engine
    return "demo" if classes.name in DEMO_SETS else "bing"


def web_of(section: Crawl, console: Console, hosts: HostTable | None = None) -> Web:
    """The web as a crawl with these parameters reaches it.

    Args:
        hosts: the names of the demo's web, while that is up; they are asked without a proxy.

    Raises:
        UserError: the proxy is none.
    """
    proxy = Proxy(section.proxy) if section.proxy and not hosts else None
    if not section.proxy and not hosts and (unused := unused_proxies()):
        # before anything is asked: without its proxy a network may answer nothing
        console.say(f"note: {', '.join(unused)} not used: crawl.proxy names the proxy of a crawl")
    return Web(user_agent(section.contact), hosts or {}, proxy=proxy)


def user_agent(contact: str) -> str:
    """The usual form of an honest robot's name, with the user's address if given.

    Robots that call themselves NAME/VERSION and no more are refused here and there, or fed with
    other pages than people are. What is not ASCII, and what would end the comment, is escaped as in
    an address: not every server takes it otherwise, and in one it leads to the same place.
    """
    reach = f"; +{quote(contact, safe=CONTACT_KEPT)}" if contact else ""
    return f"Mozilla/5.0 (compatible; {PRODUCT}/{__version__}{reach})"
