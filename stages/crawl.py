"""`pipeline crawl`: class names to images and a manifest."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from stages import paths
from stages.command import Json, Quiet, Set, start

SURPLUS = 2  # candidates to search for, for each image wanted


def crawl(
    classes: Annotated[
        str | None, typer.Option(help="A named set, a YAML file, or names with commas.")
    ] = None,
    per_class: Annotated[int | None, typer.Option(help="Distinct images a class.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, bing, demo or files.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Engine files: folder, .tar or .parquet.")
    ] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Crawl images by class name into data/crawl."""
    options = {"classes": classes, "per_class": per_class, "engine": engine, "source": source}
    params, console = start("crawl", overrides, quiet, as_json, **options)
    from pipeline.classes import load_classes
    from pipeline.crawl.collection import collect, read_collection
    from pipeline.crawl.fetch import Limits, fetch
    from pipeline.crawl.journal import Journal
    from pipeline.crawl.pack import pack
    from pipeline.crawl.search import search
    from pipeline.runkey import fields_of
    from pipeline.store import replacing, write_json
    from stages.engines import engine_for, user_agent

    section = params.crawl
    agent = user_agent(section.contact)
    with Journal(paths.CACHE / "crawl") as journal, contextlib.ExitStack() as stack:
        if section.engine == "files":
            names: list[str] = []
            entries = read_collection(
                Path(section.source), section.sample, section.seed, section.max_bytes
            )
            with console.progress("crawl: reading", section.sample or None) as advance:
                candidates, found = collect(entries, section.min_side, journal, advance)
        else:
            class_set = load_classes(section.classes)
            names = [one.name for one in class_set.classes]
            search_engine, hosts = stack.enter_context(engine_for(section, class_set, console))
            wanted = SURPLUS * section.per_class
            with console.progress("crawl: searching", len(names)) as advance:
                candidates = search(
                    search_engine, class_set, wanted, agent, journal.folder, advance
                )
            with console.progress("crawl: fetching", len(names) * section.per_class) as advance:
                limits = Limits(**fields_of(Limits, section))
                found = fetch(candidates, limits, journal, agent, advance, hosts)
        with replacing(paths.CRAWL) as folder:
            summary = pack(folder, candidates, found, journal, names)
    write_json(paths.summary("crawl"), summary)
    console.result(
        f"crawl: {summary['stored']:,} images from {summary['candidates']:,} candidates"
        f" → {paths.CRAWL}",
        summary,
    )
