"""`pipeline dedup`: which stored images to keep."""

from pathlib import Path
from typing import Annotated

import typer

from stages import paths
from stages.command import Json, Quiet, Set, start


def dedup(
    radius: Annotated[str | None, typer.Option(help="Hamming distance, 0 to 16, or auto.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go, on a contact sheet.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help=f"Write a contact sheet of what goes here. Without it: {paths.SHEET}, for a dry"
            " run and where a class loses much."
        ),
    ] = None,
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
    from stages.steps.dedup import Deduplication, explanation
    from stages.steps.dropped import Sheet

    if explain:
        console.result(*explanation(explain))
        return
    run, usual = Deduplication(params, console), Sheet(paths.SHEET, rows)
    asked = Sheet(sheet, rows) if sheet else None
    if dry_run:
        run.try_out(asked or usual)
    else:
        run.write(asked, usual)
