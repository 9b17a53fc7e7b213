"""Results of rows: one JSON line each, with all that a figure of a table comes from."""

import csv
import fcntl
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.cifar10.projects import STORE, Projects
from benchmarks.cifar10.rows import DATA, Row
from benchmarks.limits import processor
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.models.checkpoint import load_model
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import parameter_count
from kd3_pipeline.paramfile import read_params
from kd3_stages import paths
from kd3_stages.code import ROOT

Result = dict[str, Any]


def read_results(path: Path) -> dict[str, Result]:
    """The results in a file by the key of their row; of several of one row the last."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return {one["key"]: one for one in lines}


def append_result(path: Path, result: Result) -> None:
    """Adds one line in one move: several processes may add to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(result, ensure_ascii=False) + "\n")


def collected(row: Row, folder: Path, projects: Projects, originals: Row | None = None) -> Result:
    """The result of a row that has run in `folder`.

    Args:
        originals: for a row with labels, the one of the same pool that it was run with.
    """
    wall, starts = projects.seconds(row, row.key)
    about = {
        "key": row.key,
        "row": row.name,
        "pair": row.pair,
        "pool": row.pool,
        "method": row.method,
        row.unit: row.length,
        "seed": row.seed,
        "preset": row.preset,
        "settings": row.settings,
    }
    pool = projects.folder(originals) if originals else folder
    dedup = _json(pool / paths.summary("dedup"))
    counts = {"images": dedup["kept"], "leaked": dedup["leaked"]}
    ran = _labelled(row, folder, projects) if originals else _distilled(folder)
    cost = {"wall_seconds": wall, "starts": starts}
    cost["store_seconds"] = projects.seconds(originals or row, STORE)[0]
    return about | {"ran": ran | counts | cost} | {"on": machine()}


def machine() -> dict[str, Any]:
    """What a run was made with: commit (`+` where files differ from it), machine, versions."""
    cuda = torch.cuda.is_available()
    return {
        "commit": _git("rev-parse", "HEAD") + "+" * bool(_git("status", "--porcelain", "-uno")),
        "processor": torch.cuda.get_device_name() if cuda else processor(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _distilled(folder: Path) -> Result:
    """Figures of a distilled student, at its last epoch."""
    summary, metrics = _json(folder / paths.summary("distill")), _json(folder / paths.METRICS)
    with (folder / paths.CURVES).open(encoding="utf-8", newline="") as file:
        seconds = sum(float(epoch["seconds"]) for epoch in csv.DictReader(file))
    return {
        "steps": summary["steps"],
        "seconds": round(seconds, 1),
        "epochs": summary["epochs"],
        "lr": summary["lr"],
        "trained_on": summary["images"],
        "parameters": summary["parameters"],
        "agreement": summary["agreement"],
        "accuracy": metrics["student"]["accuracy"],
        "teacher_accuracy": metrics["teacher"]["accuracy"],
        "test_images": metrics["test_images"],
    }


def _labelled(row: Row, folder: Path, projects: Projects) -> Result:
    """Figures of a student that was trained on labels, as it would be deployed."""
    summary = _json(folder / paths.summary("teacher"))
    network, config = load_model(folder / paths.TEACHER, torch.device("cpu"))
    source = row.settings["evaluate.test_set"].replace(DATA, f"{projects.data}/")
    frame = Frame(config.input_size)
    test = load_labelled(source, "test", frame, 0, 0, class_names=config.class_names)
    student = fuse(network)
    logits = logits_of(student, test.pixels, config.mean, config.std, 256, torch.device("cpu"))
    params = read_params(folder / paths.PARAMS).teacher
    steps = params.epochs * (summary["training_images"] // params.batch_size)
    return {
        "steps": steps,
        "seconds": None,
        "epochs": params.epochs,
        "lr": params.lr,
        "trained_on": summary["training_images"],
        "parameters": parameter_count(student),
        "agreement": None,
        "accuracy": round(float((logits.argmax(axis=1) == test.labels).mean()), 4),
        "teacher_accuracy": None,
        "test_images": len(test.labels),
    }


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
