"""Step of `pipeline report`: the page, once or as files change."""

import time
import webbrowser
from datetime import UTC, datetime
from pathlib import Path

from kd3_pipeline.console import Advance, Console, no_progress
from kd3_pipeline.errors import UserError
from kd3_pipeline.params import Params
from kd3_pipeline.report.identity import Identity, parameters_of, seeds_of
from kd3_pipeline.report.page import STEPS, ReportFiles, build_live, build_report
from kd3_pipeline.store import write_text
from kd3_pipeline.version import __version__
from kd3_stages import paths
from kd3_stages.steps.lock import evaluated

EVERY = 2  # seconds between two looks at the files


def run(params: Params, console: Console, open_page: bool, watch: bool, command: str) -> None:
    """Writes reports/index.html; with `watch` anew as files change, until Ctrl-C.

    Args:
        command: that was given, for the page.
    """
    with console.progress("report: galleries and map", STEPS) as advance:
        about = (params, command)
        size = _latest(*about, advance)[0] if watch else _whole(*about, advance)
    if open_page:
        webbrowser.open(paths.REPORT.resolve().as_uri())
    if watch:
        size = _watch(params, command, console)
    console.result(
        f"report: {size / 1e6:.1f} MB → {paths.REPORT}",
        {"path": str(paths.REPORT), "bytes": size},
    )


def _whole(params: Params, command: str, advance: Advance = no_progress) -> int:
    """Write the whole page; return its size in bytes."""
    files = ReportFiles(
        crawl=paths.CRAWL,
        dedup=paths.DEDUP,
        leaks=paths.LEAKS,
        embed=paths.EMBED,
        selection=paths.SELECTION,
        thresholds=paths.THRESHOLDS,
        curves=paths.CURVES,
        metrics=paths.METRICS,
        predictions=paths.PREDICTIONS,
        corruptions=paths.CORRUPTIONS,
        mistakes=paths.MISTAKES,
        harvest=paths.summary("crawl"),
        embedded=paths.summary("embed"),
    )
    section = params.report
    return _write(
        build_report(
            files,
            _identity(params, command),
            thumbnails=section.thumbnails,
            map_images=section.map_images,
            seed=section.seed,
            progress=advance,
        )
    )


def _identity(params: Params, command: str) -> Identity:
    values, defaults = params.model_dump(mode="json"), Params().model_dump(mode="json")
    return Identity(
        project=Path.cwd().name,
        made=datetime.now(UTC).isoformat(timespec="minutes"),
        version=__version__,
        command=command,
        parameters=parameters_of(values, defaults),
        seeds=seeds_of(values),
    )


def _latest(params: Params, command: str, advance: Advance = no_progress) -> tuple[int, str]:
    """Write the page that the files allow at this moment, and say which it is."""
    said = "curves alone"
    if not _under_way():
        try:
            return _whole(params, command, advance), "whole report"
        except UserError as error:  # stages that are running may have removed files
            said = f"curves alone: {error}"
    return _write(build_live(paths.CURVES, EVERY)), said


def _write(page: str) -> int:
    write_text(paths.REPORT, page)
    return len(page.encode())


def _watch(params: Params, command: str, console: Console) -> int:
    """Write the page whenever the curves or the metrics have changed; return its last size."""
    seen, size = _changes(), paths.REPORT.stat().st_size
    with console.progress("report: watching; Ctrl-C ends it") as advance:
        try:
            while True:
                time.sleep(EVERY)
                if (now := _changes()) != seen:
                    size, said = _latest(params, command)
                    advance(1, said)
                    seen = now
        except KeyboardInterrupt:
            return size


def _changes() -> tuple[int | None, int | None]:
    """When the curves and the metrics were written."""
    files = (paths.CURVES, paths.METRICS)
    curves, metrics = (file.stat().st_mtime_ns if file.exists() else None for file in files)
    return curves, metrics


def _under_way() -> bool:
    """True where the student that the curves are of is yet to be finished and evaluated."""
    curves, metrics = _changes()
    if curves is None or metrics is None:
        return True
    return metrics < curves and not evaluated()
