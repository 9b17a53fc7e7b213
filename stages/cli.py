"""`pipeline`: every stage is a command. Heavy imports wait until a command runs."""

import functools
import sys
from collections.abc import Callable

import typer

from kd3_pipeline.console import printable
from kd3_pipeline.errors import PipelineError
from kd3_stages import (
    check,
    crawl,
    dedup,
    distill,
    doctor,
    duplicates,
    embed,
    evaluate,
    export,
    forget,
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


def with_exit_codes(command: Callable[..., None]) -> Callable[..., None]:
    """0 done, 1 a bug, 2 the user's mistake, 3 the world did not deliver, 130 interrupted."""

    @functools.wraps(command)
    def guarded(**options: object) -> None:
        try:
            command(**options)
        except PipelineError as error:
            for line in str(error).splitlines():
                print(f"error: {printable(line)}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted: the same command goes on where it stopped", file=sys.stderr)
            raise typer.Exit(130) from None

    return guarded


app = typer.Typer(
    name="pipeline",
    help="Distil a trained classifier into a small one, from images crawled by class name.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    init.init,
    check.check,
    crawl.crawl,
    dedup.dedup,
    teacher.teacher,
    embed.embed,
    distill.distill,
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
    serve_demo.serve_demo,
    doctor.doctor,
):
    app.command()(with_exit_codes(command))
for around_dvc in (repro.repro, status.status):
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        with_exit_codes(around_dvc)
    )


def main() -> None:
    """Runs the command that `sys.argv` names, and exits."""
    app()
