"""`pipeline serve-demo`: the demo's web for a person with a browser."""

import contextlib
import time
from typing import Annotated

import typer

from stages.command import Quiet


def serve_demo(
    port: Annotated[int, typer.Option(help="Of the search engine; hosts take the next.")] = 8800,
    per_query: Annotated[int, typer.Option(min=1, help="Results of each class.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the demo's web.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Keep the demo's search engine and image hosts up, for a person with a browser."""
    from pipeline.demo.server import DemoWeb

    demo = DemoWeb(per_query, seed, port=port, named=False)
    with demo as web, contextlib.suppress(KeyboardInterrupt):
        if not quiet:
            host, number = web.addresses[0]
            print(f"http://{host}:{number}/ (stop with Ctrl-C)", flush=True)
        while True:
            time.sleep(3600)
