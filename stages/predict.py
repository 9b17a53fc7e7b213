"""`pipeline predict`: what an exported student sees in images."""

from pathlib import Path
from typing import Annotated

import typer

from kd3_stages import paths
from kd3_stages.command import Json
from kd3_stages.workfolder import given


def predict(
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders of them, .tar or .parquet files.")
    ],
    model: Annotated[
        Path, typer.Option(help="A .safetensors, .onnx or .pt2 file of `pipeline export`.")
    ] = paths.EXPORT / "model.safetensors",
    k: Annotated[int, typer.Option("--k", min=1, help="Classes to show of each.")] = 5,
    trust: Annotated[
        bool,
        typer.Option(
            help="Open a .pt2 file that is not of this project, or a network of one's own: both"
            " may run code."
        ),
    ] = False,
    class_names: Annotated[
        str, typer.Option(help="A file of names for the model's outputs (docs/files.md).")
    ] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Name the likeliest classes of images, with confidences."""
    from kd3_stages.steps.predict import run

    run(
        [given(image) for image in images],
        Path(given(str(model))),
        k,
        trust=trust,
        class_names=class_names and given(class_names),
        as_csv=as_csv,
        as_json=as_json,
    )
