"""`pipeline import`: a student that was distilled on another machine."""

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
    """Bring back what `pipeline distill` wrote on another machine, and tell DVC that it is current.

    It is taken if parameters, data/embed and models/teacher were the same there, and if all files
    have arrived whole. Nothing is written through links into DVC's cache.
    """
    from kd3_stages.steps.import_ import run

    run(Path(given(str(folder))), any_version, Console(quiet=quiet, as_json=as_json))
