"""`pipeline predict`: what an exported student sees in images."""

from pathlib import Path
from typing import Annotated

import typer

from stages import paths
from stages.command import Json


def predict(
    images: Annotated[list[str], typer.Argument(help="Image files.")],
    model: Annotated[
        Path, typer.Option(help="A .safetensors, .onnx or .pt2 file of `pipeline export`.")
    ] = paths.EXPORT / "model.safetensors",
    k: Annotated[int, typer.Option("--k", min=1, help="Classes to show of each.")] = 5,
    trust: Annotated[
        bool, typer.Option(help="Open a .pt2 file that is not of this project: it may run code.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Name the likeliest classes of images, with confidences."""
    from stages.steps.predict import run

    run(images, model, k, trust, as_json)
