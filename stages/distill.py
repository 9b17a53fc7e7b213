"""`pipeline distill`: a student from web images and the teacher. No labelled image is read."""

from typing import Annotated

import typer

from kd3_stages.command import Json, Quiet, Set, by_epochs, start


def distill(
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time in place of epochs, as 90m; or '9000 steps'.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, mps or cpu.")] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Distil the student from data/embed and models/teacher into models/student."""
    params, console = start(
        "distill", overrides, quiet, as_json, epochs=epochs, budget=budget, lr=lr, device=device
    )
    from kd3_stages.steps.distill import run

    run(by_epochs(params, epochs, budget, overrides), console)
