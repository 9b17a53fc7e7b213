"""`pipeline report`: one page that shows what happened."""

import os
import shlex
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

    run(params, console, open_page, watch, _command(open_page, watch, overrides))


def _command(open_page: bool, watch: bool, overrides: list[str] | None) -> str:
    """The command that writes the page, as a person gives it."""
    if "DVC_STAGE" in os.environ:
        return "dvc repro"
    options = [*(["--open"] if open_page else []), *(["--watch"] if watch else [])]
    changes = [word for change in overrides or [] for word in ("--set", change)]
    return shlex.join(["pipeline", "report", *options, *changes])
