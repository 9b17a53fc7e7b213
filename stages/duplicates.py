"""`pipeline duplicates`: what of the crawl shows the same as new images."""

from typing import Annotated

import typer

from kd3_stages.command import Json, Quiet, Set, start


def duplicates(
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.")],
    k: Annotated[int, typer.Option("--k", min=1, help="Stored images to show of each.")] = 10,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Tell which images of data/crawl new ones repeat, and whether they show a test image.

    Exits with 0 whether any is found or not; with 2 where an image that was named cannot be read.
    """
    params, console = start("dedup", overrides, quiet, as_json)
    from kd3_pipeline.engine import Engine
    from kd3_stages.steps.duplicates import Lookup

    with Engine.chosen() as engine:
        Lookup(params, console, engine).run(images, k)
