"""`pipeline doctor`: checks of the environment, or of one search engine's answers."""

from typing import Annotated

import typer

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_pipeline.registry import SEARCH_ENGINES
from kd3_stages.command import Json, Quiet


def doctor(
    engine: Annotated[
        str | None,
        typer.Option(help=f"Ask it for pages: {', '.join(SEARCH_ENGINES.entries)}."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="What to ask the engine for; else the first class's query.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check this environment, or what a search engine answers."""
    console = Console(quiet=quiet, as_json=as_json)
    if engine is not None:
        from kd3_stages.steps.engine_check import check_engine

        check_engine(engine, query, console)
        return
    if query is not None:
        raise UserError("doctor: --query needs --engine")
    from kd3_stages.steps.doctor import check_environment

    worst = check_environment(console)
    if worst:
        raise typer.Exit(worst)
