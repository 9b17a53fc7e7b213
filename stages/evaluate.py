"""`pipeline evaluate`: student and teacher on a labelled test set."""

from typing import Annotated

import typer

from kd3_stages.command import Json, Quiet, Set, start


def evaluate(
    test_set: Annotated[
        str | None, typer.Option(help="demo, cifar10, cifar100, a .parquet file or a folder.")
    ] = None,
    styles: Annotated[
        str | None, typer.Option(help="A folder STYLE/CLASS/*, or a .parquet file with a style.")
    ] = None,
    corruptions: Annotated[
        bool | None, typer.Option("--corruptions", help="Measure under 15 kinds of corruption.")
    ] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the student beside its teacher, into reports/metrics.json."""
    options = {"test_set": test_set, "styles": styles, "corruptions": corruptions}
    params, console = start("evaluate", overrides, quiet, as_json, **options)
    from kd3_stages.steps.evaluate import run

    run(params.evaluate, console)
