"""`pipeline teacher`: the teacher as a checkpoint, wherever it comes from."""

from pathlib import Path
from typing import Annotated

import typer

from kd3_pipeline.errors import UserError
from kd3_stages.command import Json, Quiet, Set, start


def teacher(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what it is and whether it is read rightly.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="With --check: pictures, without labels, to check mean and std with."),
    ] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Get the teacher, or train one, into models/teacher; or check it before a crawl starts."""
    params, console = start("teacher", overrides, quiet, as_json)
    if images is not None and not check:
        raise UserError("teacher: --images needs --check")
    if check:
        from kd3_stages.steps.teacher_check import run as run_check

        if worst := run_check(params, images, console):
            raise typer.Exit(worst)
        return
    from kd3_stages.steps.teacher import run

    run(params.teacher, console, params.embed)
