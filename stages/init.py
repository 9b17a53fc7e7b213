"""`pipeline init`: a folder that the stages work in."""

from pathlib import Path
from typing import Annotated

import typer

from kd3_pipeline.console import Console
from kd3_stages.command import Json, Quiet
from kd3_stages.completion import presets


def init(
    folder: Annotated[Path, typer.Argument(help="Made if it is not there.")],
    preset: Annotated[
        str,
        typer.Option(
            help="Of its params.yaml; `pipeline preset` lists them.", autocompletion=presets
        ),
    ] = "demo",
    git: Annotated[
        bool, typer.Option("--git", help="Make it a git repository, with a first commit.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a project: params.yaml, dvc.yaml, DVC's folder, .gitignore and a README.

    A file that is there is never overwritten.
    """
    from kd3_stages.steps.init import run

    run(folder, preset, git, Console(quiet=quiet, as_json=as_json))
