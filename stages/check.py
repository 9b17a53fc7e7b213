"""`pipeline check`: all that can be known before a run begins."""

import typer

from kd3_stages.command import Json, Quiet, Set, start


def check(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Say in seconds whether params.yaml fits this machine, its files, and itself; asks no network.

    `dvc repro` begins with it and stops where a stage is sure to fail; PIPELINE_CHECK=off leaves it
    out there. `pipeline teacher --check` also gets a teacher that is not here, and takes a minute.
    """
    params, console = start("check", overrides, quiet, as_json)
    from kd3_stages.steps.check import run

    if worst := run(params, console):
        raise typer.Exit(worst)
