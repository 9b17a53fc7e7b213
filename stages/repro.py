"""`pipeline repro`: `dvc repro` with this environment's commands on the path."""

import typer


def repro(context: typer.Context) -> None:
    """Run `dvc repro ARGS` with this environment's commands on the path.

    The exit code is that of the stage that failed.
    """
    from kd3_stages.steps.links import own_copies
    from kd3_stages.steps.run_dvc import dvc

    try:
        code = dvc("repro", *context.args)
    finally:
        own_copies()  # DVC leaves links to its cache, and whoever writes over one changes that
    raise typer.Exit(code)
