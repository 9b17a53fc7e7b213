"""`pipeline serve-demo`: the demo's web for a person with a browser."""

from typing import Annotated

import typer

from kd3_stages.command import Quiet


def serve_demo(
    port: Annotated[int, typer.Option(help="Of the search engine; hosts take the next.")] = 8800,
    per_query: Annotated[int, typer.Option(min=1, help="Results of each class.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the demo's web.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Keep the demo's search engine and image hosts up, for a person with a browser."""
    from kd3_stages.steps.serve_demo import run

    run(port, per_query, seed, quiet)
