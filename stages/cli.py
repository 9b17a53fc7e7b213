"""`pipeline`: every stage is a command. Heavy imports wait until a command runs."""

import sys
from typing import NoReturn

import click
import typer

from pipeline.errors import PipelineError
from stages import crawl, dedup, distill, embed, evaluate, report, teacher, tools

app = typer.Typer(
    name="pipeline",
    help="Distil a trained classifier into a small one, from images crawled by class name.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    crawl.crawl,
    dedup.dedup,
    teacher.teacher,
    embed.embed,
    distill.distill,
    evaluate.evaluate,
    report.report,
    tools.neighbours,
    tools.preset,
    tools.serve_demo,
):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    tools.repro
)


def main() -> NoReturn:
    """Runs one command and exits: 0 done, 1 a bug, 2 the user's mistake, 3 the world's, 130
    interrupted."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except PipelineError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
