"""`pipeline preset`: a ready parameter file as params.yaml."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UserError
from stages import paths

PRESETS = Path(__file__).parent.parent / "presets"


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
