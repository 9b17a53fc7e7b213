"""Commands beside the stages."""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UserError
from stages import paths
from stages.command import Json, Quiet

PRESETS = Path(__file__).parent.parent / "presets"


def repro(context: typer.Context) -> None:
    """Run `dvc repro ARGS` with this environment's commands on the path."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "repro", *context.args]
    raise typer.Exit(subprocess.run(command, env=os.environ | {"PATH": path}).returncode)


def preset(
    name: Annotated[
        str | None, typer.Argument(help="demo, cifar10, …; without it, a list.")
    ] = None,
) -> None:
    """Make a preset the project's params.yaml; what was there is kept if it is no preset."""
    known = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
    if name is None:
        print("\n".join(known))
        return
    if name not in known:
        raise UserError(f"no preset named '{name}'", f"known: {', '.join(known)}")
    texts = {path.read_text("utf-8") for path in known.values()}
    if paths.PARAMS.exists() and paths.PARAMS.read_text("utf-8") not in texts:
        previous = paths.PARAMS.with_name("params.previous.yaml")
        shutil.copyfile(paths.PARAMS, previous)
        print(f"note: your {paths.PARAMS} is kept as {previous}", file=sys.stderr)
    shutil.copyfile(known[name], paths.PARAMS)
    print(f"{paths.PARAMS} is now the preset '{name}'; `dvc repro` runs it")


def neighbours(
    image: Annotated[str, typer.Argument(help="An image file, or the id of an embedded image.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many.")] = 12,
    html: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet, one HTML file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the crawled images nearest to an image, in the teacher's eyes."""
    from pipeline.console import Console, printable
    from pipeline.paramfile import read_params
    from pipeline.store import write_text
    from stages.nearest import nearest, sheet

    found = nearest(image, k, read_params(paths.PARAMS).embed.fit)
    console = Console(as_json=as_json)
    if html:
        try:
            write_text(html, sheet(found))
        except OSError as error:
            raise UserError(f"{html} cannot be written: {error.strerror or error}") from None
        console.note(f"contact sheet: {html}")
    lines = [
        "  ".join(
            [
                f"{row['cosine']:.3f}",
                row["id"][:16],
                f"{row['class']}, seen as {row['predicted']}",
                row["licence"] or "licence not stated",
                row["url"],
            ]
        )
        for row in found.rows
    ]
    values = {"image": found.image, "predicted": found.predicted, "neighbours": found.rows}
    console.result("\n".join(map(printable, lines)), values)


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
