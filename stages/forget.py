"""`pipeline forget`: images out of the crawl, for good."""

from typing import Annotated

import typer

from kd3_stages.command import Json, Quiet, Set, start


def forget(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URL|HOST|ID…",
            help="An address of an image or of a page that shows it, a host with all below it, or"
            " an id (8 digits of it or more).",
        ),
    ] = None,
    blocklist: Annotated[
        bool, typer.Option("--blocklist", help="All that crawl.blocklist refuses.")
    ] = False,
    why: Annotated[str, typer.Option(help="A reason, for the manifest.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be dropped, and drop nothing.")
    ] = False,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Drop images from data/crawl, and say what was made of them."""
    params, console = start("crawl", overrides, quiet, as_json)
    from kd3_stages.steps.forget import run

    run(params.crawl, console, what or [], blocklist, why, dry_run)
