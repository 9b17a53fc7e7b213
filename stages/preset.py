"""`pipeline preset`: a ready parameter file as params.yaml."""

import sys
from typing import Annotated

import typer

from kd3_pipeline.presets import preset_names, write_preset
from kd3_stages import paths


def preset(
    name: Annotated[
        str | None, typer.Argument(help="demo, cifar10, …; without it, a list.")
    ] = None,
) -> None:
    """Make a preset the project's params.yaml; a file that a person wrote is kept beside it."""
    if name is None:
        print("\n".join(preset_names()))
        return
    kept = write_preset(name, paths.PARAMS)
    if kept:
        print(f"note: your {paths.PARAMS} is kept as {kept}", file=sys.stderr)
    print(f"{paths.PARAMS} is now the preset '{name}'; `dvc repro` runs it")
