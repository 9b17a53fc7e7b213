"""`pipeline report`: one page that shows what happened."""

from typing import Annotated

import typer

from kd3_stages.command import Json, Quiet, Set, start


def report(
    open_page: Annotated[
        bool, typer.Option("--open", help="Show the page in the browser, too.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page anew as files change, until Ctrl-C.")
    ] = False,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write reports/index.html, which needs no network and no server."""
    params, console = start("report", overrides, quiet, as_json)
    from kd3_stages.steps.report import run

    run(params.report, console, open_page, watch)
