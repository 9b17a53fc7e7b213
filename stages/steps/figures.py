"""Figures of a whole run, the dozen that runs are compared by: reports/figures.json."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from kd3_pipeline.selections import read_selection
from kd3_pipeline.verdicts import read_verdicts
from kd3_stages import paths


def figures(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Figures of the run whose evaluation is `metrics`, in the order that DVC shows them in.

    DVC makes a column of every figure of a metrics file, so that all others stay in files that it
    only tracks. None: what a run by hand has not measured or does not have here.
    """
    student, teacher = metrics["student"], metrics["teacher"]
    return {
        "accuracy": student["accuracy"],
        "teacher_accuracy": teacher["accuracy"],
        "gap_points": metrics["gap_points"],
        "agreement": metrics["agreement"],
        "held_out_agreement": _held_out_agreement(),
        "calibration_error": student["ece_tempered"],
        "parameters": student["parameters"],
        "macs": student["macs"],
        "crawled": _rows(None),
        "kept": _rows("kept"),
        "trained_on": _trained_on(),
        "warnings": len(metrics["warnings"]),
    }


def _held_out_agreement() -> float | None:
    path = paths.summary("distill")
    return json.loads(path.read_text("utf-8"))["agreement"] if path.is_file() else None


def _rows(which: str | None) -> int | None:
    """Images that dedup has seen, or of these the ones that it kept."""
    if not paths.DEDUP.is_file():
        return None
    verdicts = read_verdicts(paths.DEDUP, ["kept"])
    return verdicts.num_rows if which is None else pc.sum(verdicts[which]).as_py() or 0


def _trained_on() -> int | None:
    """Images that an epoch or more trained on."""
    if not paths.SELECTION.is_file():
        return None
    times = read_selection(paths.SELECTION, ["times_kept"])["times_kept"]
    return pc.sum(pc.greater(times, 0)).as_py() or 0
