"""`pipeline tune`: a search for parameters of distill, judged without labels."""

from typing import Annotated

import typer

from kd3_pipeline.errors import UserError
from kd3_pipeline.extras import install_extra
from kd3_stages.command import Json, Quiet, Set, by_epochs, start

SPACE = ("lr=0.1:4", "crop=pad,resized,none", "logit_weight=0,0.1", "contrast_weight=0.0001:0.1")


def tune(
    trials: Annotated[int, typer.Option(min=1, help="Runs in all.")] = 12,
    epochs: Annotated[int | None, typer.Option(help="Of each run.")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH or NAME=A,B",
            help="A range (drawn by its logarithm) or values of a parameter of distill;"
            f" repeatable. Default: {' '.join(SPACE)}",
        ),
    ] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search parameters of distill by agreement with the teacher on held-out web images.

    No label is read. The same command goes on where it stopped; more --trials add to it.
    """
    params, console = start("distill", overrides, quiet, as_json, epochs=epochs)
    try:
        from kd3_stages.steps.tune import run
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("tune needs optuna", install_extra("tune")) from None

    params = by_epochs(params, epochs, None, overrides)
    run(params.distill, console, trials, epochs, search, SPACE, overrides or [])
