"""`pipeline dedup`: which stored images to keep."""

from pathlib import Path
from typing import Annotated

import typer

from kd3_stages import paths
from kd3_stages.command import Json, Quiet, Set, start


def dedup(
    radius: Annotated[str | None, typer.Option(help="Hamming distance, 0 to 16, or auto.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only write a contact sheet of what would go."),
    ] = False,
    sheet: Annotated[
        Path, typer.Option(help="Contact sheet of what goes, one HTML file.")
    ] = paths.SHEET,
    rows: Annotated[
        int, typer.Option(min=1, help="Images of each reason on the contact sheet.")
    ] = 100,
    explain: Annotated[
        str, typer.Option(metavar="ID", help="Say why this image was kept or dropped.")
    ] = "",
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find near-duplicates and leaked test images in data/crawl, and keep the best of the rest."""
    options = {"radius": int(radius) if radius and radius.isdecimal() else radius}
    params, console = start("dedup", overrides, quiet, as_json, **options)
    from kd3_pipeline.engine import Engine
    from kd3_stages.steps.dedup import Deduplication, explanation
    from kd3_stages.steps.dropped import Sheet

    if explain:
        console.result(*explanation(explain))
        return
    with Engine.chosen() as engine:
        run = Deduplication(params, console, engine)
        (run.try_out if dry_run else run.write)(Sheet(sheet, rows))
