"""`pipeline teacher`: the teacher as a checkpoint, wherever it comes from."""

from stages.command import Json, Quiet, Set, start


def teacher(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Get the teacher, or train one, into models/teacher."""
    params, console = start("teacher", overrides, quiet, as_json)
    from stages.steps.teacher import run

    run(params.teacher, console, params.embed)
