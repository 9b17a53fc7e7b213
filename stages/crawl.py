"""`pipeline crawl`: class names to images and a manifest."""

import os
from typing import Annotated

import typer

from kd3_pipeline.registry import SEARCH_ENGINES
from kd3_stages.command import Json, Quiet, Set, start
from kd3_stages.paths import TEACHER


def crawl(
    classes: Annotated[
        str | None, typer.Option(help="A named set, a YAML file, or names with commas.")
    ] = None,
    per_class: Annotated[int | None, typer.Option(help="Distinct images a class.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help=f"auto, {', '.join(SEARCH_ENGINES.entries)}, captions, site, urls, files."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Engines captions, files, urls and site: where to look.")
    ] = None,
    retry_failed: Annotated[
        str, typer.Option(help="Try failed addresses again: 404,truncated,… as in the manifest.")
    ] = "",
    search_again: Annotated[
        bool, typer.Option("--search-again", help="Ask the engine anew: the web has changed.")
    ] = False,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Crawl images by class name into data/crawl."""
    options = {"classes": classes, "per_class": per_class, "engine": engine, "source": source}
    params, console = start("crawl", overrides, quiet, as_json, **options)
    from kd3_pipeline.crawl.outcomes import retried
    from kd3_pipeline.engine import Engine

    retry = retried(retry_failed)
    from kd3_stages.steps.crawl import run
    from kd3_stages.steps.crawl_remarks import refuse_empty

    unseen = params.teacher.source != "train" and not TEACHER.exists()
    if unseen and "DVC_STAGE" not in os.environ:  # `dvc repro` has begun with a look at it
        console.say("the teacher was not read yet: `pipeline teacher --check` says what it is")
    section = params.crawl.model_copy(update={"side": params.picture_side})
    with Engine.chosen() as workers:
        text, summary = run(section, console, retry, search_again, params.embed, workers)
    console.result(text, summary)
    refuse_empty(section, summary)
