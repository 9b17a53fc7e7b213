"""`pipeline recheck`: what owners say today of the images that are kept."""

from typing import Annotated

import typer

from kd3_stages.command import Json, Quiet, Set, start


def recheck(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask, say what would be dropped, and drop nothing.")
    ] = False,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Ask anew whether the images of the crawl may be used; drop those that may not any more."""
    params, console = start("crawl", overrides, quiet, as_json)
    from kd3_stages.steps.recheck import run

    run(params.crawl, console, dry_run)
