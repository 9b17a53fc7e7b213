"""`pipeline preset`: a ready parameter file as params.yaml."""

import sys
from typing import Annotated

import typer

from kd3_pipeline.presets import preset_titles, runs_alone, write_preset
from kd3_stages import paths
from kd3_stages.completion import presets


def preset(
    name: Annotated[
        str | None,
        typer.Argument(help="demo, cifar10, …; without it, a list.", autocompletion=presets),
    ] = None,
) -> None:
    """Make a preset the project's params.yaml; a file that a person wrote is kept beside it."""
    if name is None:
        titles = preset_titles()
        width = max(map(len, titles))
        print("\n".join(f"{one:{width}}  {title}" for one, title in titles.items()))
        return
    kept = write_preset(name, paths.PARAMS)
    if kept:
        print(f"note: your {paths.PARAMS} is kept as {kept}", file=sys.stderr)
    then = (
        "`dvc repro` runs it" if runs_alone(name) else "`pipeline check` says what it still wants"
    )
    print(f"{paths.PARAMS} is now the preset '{name}'; {then}")
