"""`pipeline dedup`: which stored images to keep."""

from typing import Annotated

import typer

from stages.command import Json, Quiet, Set, start


def dedup(
    radius: Annotated[str | None, typer.Option(help="Hamming distance, 0 to 16, or auto.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what each radius would drop.")
    ] = False,
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

    if explain:
        console.result(*explanation(explain))
        return
    run = Deduplication(params, console)
    console.result(*(run.by_radius() if dry_run else run.verdicts()))
