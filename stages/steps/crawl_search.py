"""How `pipeline crawl` searches, by params.yaml, and what it says before."""

from collections.abc import Iterator

from pipeline.classes import ClassSet, renamed
from pipeline.crawl.class_search import Manner
from pipeline.crawl.engines.engine import Engine, forecast
from pipeline.crawl.gather import SURPLUS
from pipeline.crawl.pagelog import PageLog
from pipeline.params import Crawl


def manner_of(section: Crawl, engine: Engine) -> Manner:
    """How to search; `crawl.side` has to be a number by now."""
    real = engine.name != "demo"
    return Manner(
        licence=section.licence,
        side=section.side if isinstance(section.side, int) else 0,
        # the demo's web has pictures of its classes and of nothing else, and no filters
        filters=section.filters and real,
        expand=section.expand if real else "none",
        patience=section.patience,
        canary=section.canary and real,
    )


def told_before(classes: ClassSet, log: PageLog) -> Iterator[str]:
    """What a person may not expect to be asked for, in lines."""
    yield from renamed(classes)
    if log.outdated:
        yield (
            f"{len(log.outdated):,} pages of results that an earlier version kept do not say where"
            " the next one begins: those that are needed are asked for again"
        )


def plan(section: Crawl, classes: ClassSet, engine: Engine) -> str:
    """How many pages the queries take at most, and how long that is."""
    wanted = SURPLUS * section.per_class
    every = [-(-wanted // len(one.queries)) for one in classes.classes for _ in one.queries]
    return forecast(engine, every)
