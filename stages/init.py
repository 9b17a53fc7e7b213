"""`pipeline init`: a folder that the stages work in."""

from pathlib import Path
from typing import Annotated

import typer

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_stages.command import Json, Quiet
from kd3_stages.completion import presets


def init(
    folder: Annotated[Path, typer.Argument(help="Made if it is not there.")],
    preset: Annotated[
        str | None,
        typer.Option(
            help="Of its params.yaml, demo if none is named; `pipeline preset` lists them.",
            autocompletion=presets,
        ),
    ] = None,
    git: Annotated[
        bool, typer.Option("--git", help="Make it a git repository, with a first commit.")
    ] = False,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew", help="After an upgrade: dvc.yaml and plots of a project that is there, anew."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a project: params.yaml, dvc.yaml, DVC's folder, .gitignore and a README.

    A file that is there is never overwritten. With --renew, params.yaml and results stay as they
    are, and of what is renewed the file that was there is kept beside it.
    """
    console = Console(quiet=quiet, as_json=as_json)
    if renew:
        if preset is not None or git:
            raise UserError("--renew takes no --preset and no --git", "it leaves params.yaml alone")
        from kd3_stages.steps import renew as step

        step.run(folder, console)
        return
    from kd3_stages.steps.init import run

    run(folder, preset or "demo", git, console)
