"""`pipeline`: every stage is a command. Heavy imports wait until a command runs."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from kd3_pipeline.console import printable, write_any_text
from kd3_pipeline.diskerrors import disk_trouble
from kd3_pipeline.engine import FORMS, VARIABLE, Engine
from kd3_pipeline.errors import PipelineError, UserError
from kd3_pipeline.version import __version__
from kd3_stages import (
    check,
    crawl,
    dag,
    dedup,
    distill,
    doctor,
    duplicates,
    embed,
    evaluate,
    export,
    forget,
    import_,
    init,
    inputs,
    neighbours,
    predict,
    preset,
    recheck,
    report,
    repro,
    serve_demo,
    status,
    teacher,
    trace,
    tune,
)
from kd3_stages.workfolder import enter_project

ANYWHERE = ("init", "serve_demo")  # commands that need no project


def with_exit_codes(command: Callable[..., None]) -> Callable[..., None]:
    """0 done, 1 a bug, 2 the user's mistake, 3 the world did not deliver, 130 interrupted."""

    @functools.wraps(command)
    def guarded(**options: object) -> None:
        try:
            _stand()
            if command.__name__ not in ANYWHERE:
                enter_project()
            command(**options)
        except (typer.Exit, typer.Abort, typer.BadParameter):  # with codes of their own
            raise
        except PipelineError as error:
            raise _told(error) from None
        except KeyboardInterrupt:
            print("interrupted: the same command goes on where it stopped", file=sys.stderr)
            raise typer.Exit(130) from None
        except Exception as error:
            trouble = disk_trouble(error)
            if trouble is None:
                raise
            raise _told(trouble) from None

    return guarded


def _stand() -> None:
    """Raises a UserError where the folder that one stands in was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the folder that you stand in is gone", "`cd` to a project") from None


def _told(error: PipelineError) -> typer.Exit:
    """Prints an error, and gives the end of the process that goes with it."""
    for line in str(error).splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)
    return typer.Exit(error.exit_code)


app = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"kd3-pipeline {__version__}")
        raise typer.Exit


def _in_short(command: Callable[..., None]) -> str:
    """The first paragraph of a command's help, whole; by default the list would cut it short."""
    return " ".join((command.__doc__ or "").split("\n\n")[0].split())


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
    engine: Annotated[
        str, typer.Option(envvar=VARIABLE, metavar="ENGINE", help=f"Where work runs: {FORMS}.")
    ] = "",
) -> None:
    """Distil a trained classifier into a small one, from images crawled by class name."""
    if engine:
        os.environ[VARIABLE] = engine  # for the stages that DVC runs as commands, too
        try:
            Engine.chosen()
        except PipelineError as error:
            raise _told(error) from None


for command in (
    init.init,
    check.check,
    crawl.crawl,
    dedup.dedup,
    teacher.teacher,
    embed.embed,
    distill.distill,
    import_.import_,
    evaluate.evaluate,
    export.export,
    report.report,
    tune.tune,
    predict.predict,
    trace.trace,
    forget.forget,
    recheck.recheck,
    neighbours.neighbours,
    duplicates.duplicates,
    inputs.inputs,
    preset.preset,
    dag.dag,
    serve_demo.serve_demo,
    doctor.doctor,
):
    name = command.__name__.rstrip("_").replace("_", "-")
    app.command(name, short_help=_in_short(command))(with_exit_codes(command))
for around_dvc in (repro.repro, status.status):
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        short_help=_in_short(around_dvc),
    )(with_exit_codes(around_dvc))


def main() -> None:
    """Runs the command that `sys.argv` names, and exits."""
    write_any_text()
    app()
