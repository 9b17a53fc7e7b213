"""`pipeline import`: what the stages wrote on another machine."""

from pathlib import Path
from typing import Annotated

import typer

from kd3_pipeline.console import Console
from kd3_stages.command import Json, Quiet
from kd3_stages.workfolder import given


def import_(
    folder: Annotated[Path, typer.Argument(help="The project as it was copied back from there.")],
    any_version: Annotated[
        bool,
        typer.Option("--any-version", help="Take it although other code of the software made it."),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Bring back what stages wrote on another machine, and tell DVC that it is current.

    A stage is taken if it is stale here, its parameters, code and all that it read were the same
    there, and all its files have arrived whole. Nothing is written through links into DVC's cache.
    """
    from kd3_stages.steps.import_ import run

    run(Path(given(str(folder))), any_version, Console(quiet=quiet, as_json=as_json))
