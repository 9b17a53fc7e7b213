"""Which search engine a crawl asks, and as whom."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.classes import DEMO_SETS, ClassSet
from pipeline.console import Console
from pipeline.crawl.engines import ENGINES
from pipeline.crawl.engines.bing import Bing
from pipeline.crawl.engines.engine import Engine
from pipeline.crawl.guard import HostTable
from pipeline.params import Crawl
from pipeline.version import __version__

DEMO_SURPLUS = 1.2  # results of a demo query for each image wanted
SEARCH_ENGINES = ("demo", *ENGINES)  # the other values of crawl.engine search for nothing
BREAKS = "icrawler's parser of it is known to break; bing, flickr and commons are kept working"
NOTES = {
    "openverse": "Openverse's terms forbid to scrape its catalogue: ask for few images, and with"
    " a token of your own in OPENVERSE_TOKEN",
    "google": f"google: {BREAKS}",
    "baidu": f"baidu: {BREAKS}",
}


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
        if name in NOTES:
            console.note(NOTES[name])
        yield ENGINES[name](), {}
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
    """An honest name, with the user's address if given."""
    return f"kd3-pipeline/{__version__}" + (f" (+{contact})" if contact else "")
