"""`pipeline trace`: whether and how an image took part, from the first search to training."""

from typing import Annotated

import typer

from stages.command import Json


def trace(
    image: Annotated[
        str, typer.Argument(metavar="ID|URL", help="An id, 6 digits of it or more, or an address.")
    ],
    as_json: Json = False,
) -> None:
    """Tell how an image was found, whether it was kept, and in how many epochs it was used."""
    from pipeline.console import Console, printable
    from stages.steps.trace import as_text, find

    found = find(image)
    Console(as_json=as_json).result("\n".join(map(printable, as_text(found))), found)
