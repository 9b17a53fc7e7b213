"""`pipeline report`: one page that shows what happened."""

from stages import paths
from stages.command import Json, Quiet, Set, start

GALLERIES = 4


def report(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Write reports/index.html, which needs no network and no server."""
    params, console = start("report", overrides, quiet, as_json)
    from pipeline.report.page import ReportSources, build_report
    from pipeline.store import write_text

    sources = ReportSources(
        crawl=paths.CRAWL,
        dedup=paths.DEDUP,
        embed=paths.EMBED,
        selection=paths.SELECTION,
        curves=paths.CURVES,
        metrics=paths.METRICS,
        predictions=paths.PREDICTIONS,
    )
    section = params.report
    with console.progress("report: galleries", GALLERIES) as advance:
        page = build_report(
            sources, thumbnails=section.thumbnails, seed=section.seed, progress=advance
        )
    write_text(paths.REPORT, page)
    console.result(
        f"report: {len(page.encode()) / 1e6:.1f} MB → {paths.REPORT}",
        {"path": str(paths.REPORT), "bytes": len(page.encode())},
    )
