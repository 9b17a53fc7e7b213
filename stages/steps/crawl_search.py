"""How `pipeline crawl` searches, by params.yaml, and what it says before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kd3_pipeline.classes import ClassSet, renamed
from kd3_pipeline.crawl.class_search import Manner
from kd3_pipeline.crawl.engines.engine import Engine, forecast
from kd3_pipeline.crawl.gather import SURPLUS
from kd3_pipeline.crawl.optouts.signals import obeyed_kinds
from kd3_pipeline.crawl.pagelog import PageLog
from kd3_pipeline.params import Crawl
from kd3_pipeline.version import __version__
from kd3_stages.sources import user_agent


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


def made_how(section: Crawl) -> dict[str, Any]:
    """What a crawl says of itself to whoever gets its results: by what, as whom, what it obeyed.

    Of paths on this machine there are names only, and of a proxy, which may hold a password,
    nothing.
    """
    values = section.model_dump(mode="json", exclude={"proxy"})
    for key in ("blocklist", "source", "classes"):
        if isinstance(values[key], str) and "://" not in values[key]:
            values[key] = Path(values[key]).name
    reads_files = section.engine == "files"
    return {
        "software": f"kd3-pipeline {__version__}",
        "user_agent": "" if reads_files else user_agent(section.contact),
        "robots": None if reads_files else section.robots,
        "opt_outs": None if reads_files else sorted(obeyed_kinds(section)),
        "parameters": values,
    }


def told_before(classes: ClassSet, log: PageLog) -> Iterator[str]:
    """What a person may not expect to be asked for, in lines."""
    yield from renamed(classes)
    if log.outdated and not log.pages:  # once: the next run has pages of this version
        count = len(log.outdated)
        pages = "page" if count == 1 else "pages"
        yield (
            f"{count:,} {pages} of results that an earlier version kept cannot be gone on with:"
            " what is needed is asked for again"
        )


def plan(section: Crawl, classes: ClassSet, engine: Engine) -> str:
    """How many pages the queries take at most, and how long that is."""
    wanted = SURPLUS * section.per_class
    every = [-(-wanted // len(one.queries)) for one in classes.classes for _ in one.queries]
    return forecast(engine, every)
