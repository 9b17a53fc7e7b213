"""`pipeline neighbours`: the crawled images nearest to one."""

from pathlib import Path
from typing import Annotated

import typer

from kd3_stages.command import Json


def neighbours(
    image: Annotated[str, typer.Argument(help="An image file, or the id of an embedded image.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many.")] = 12,
    html: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet, one HTML file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the crawled images nearest to an image, in the teacher's eyes."""
    from kd3_stages.steps.neighbours import run

    run(image, k, html, as_json)
