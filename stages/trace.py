"""`pipeline trace`: whether and how an image took part, from the first search to training."""

from typing import Annotated

import typer

from kd3_stages.command import Json


def trace(
    image: Annotated[
        str, typer.Argument(metavar="ID|URL", help="An id, 6 digits of it or more, or an address.")
    ],
    as_json: Json = False,
) -> None:
    """Tell how an image was found, whether it was kept, and in how many epochs it was used."""
    from kd3_stages.steps.trace import run

    run(image, as_json)
