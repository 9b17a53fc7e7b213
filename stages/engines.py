"""Which search engine a crawl asks, and as whom."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.classes import DEMO_SETS, ClassSet
from pipeline.console import Console
from pipeline.crawl.guard import HostTable
from pipeline.crawl.search import BING, SearchEngine
from pipeline.params import Crawl
from pipeline.version import __version__

BING_PAGE_GAP = 1.0  # seconds
DEMO_SURPLUS = 1.2  # results of a demo query for each image wanted


@contextmanager
def engine_for(
    section: Crawl, classes: ClassSet, console: Console
) -> Iterator[tuple[SearchEngine, HostTable]]:
    """The engine, and the names that stand for loopback addresses while the demo's web is up."""
    demo = section.engine == "demo" or (section.engine == "auto" and classes.name in DEMO_SETS)
    if not demo:
        if not section.contact:
            console.note("set crawl.contact, so that site owners can reach you")
        yield SearchEngine("bing", BING, BING_PAGE_GAP), {}
        return
    from pipeline.demo.server import DemoWeb

    with DemoWeb(round(DEMO_SURPLUS * section.per_class), section.seed) as web:
        yield SearchEngine("demo", web.search_url, 0.0), web.names


def user_agent(contact: str) -> str:
    """An honest name, with the user's address if given."""
    return f"kd3-pipeline/{__version__}" + (f" (+{contact})" if contact else "")
