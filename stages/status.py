"""`pipeline status`: `dvc status` that has looked at the files outside the project."""

import typer

from kd3_pipeline.console import Console


def status(context: typer.Context) -> None:
    """Run `dvc status ARGS` after a look at the files outside the project (`pipeline inputs`)."""
    from kd3_stages.steps.inputs import note_inputs
    from kd3_stages.steps.run_dvc import dvc

    note_inputs(Console())
    raise typer.Exit(dvc("status", *context.args))
