"""How long a row takes: by its own earlier runs, or by a few steps on pixels at random."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cifar10.results import machine
from benchmarks.cifar10.rows import Row, checked
from kd3_pipeline.console import no_progress
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.distill.loader import Resident
from kd3_pipeline.distill.objectives.objective import with_own_settings
from kd3_pipeline.distill.run import distill
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.pixels import normalise
from kd3_pipeline.teacher.train import train

STEPS = 12  # that are timed
CLASSES, SIDE = 10, 32
UNTIMED = ("distill.seed", "teacher.seed", "distill.budget")  # what a step's time does not hang on
PLAIN = {  # of what the images cost before training, or does not change a step's time
    "lr": 0.1,
    "epochs": 1,
    "budget": "",
    "held_out": 0.0,
    "off_topic_weight": 0.0,
    "skip_redundant": False,
}


def estimates(
    rows: Sequence[Row], results: Sequence[dict[str, Any]], work: Path
) -> dict[str, float]:
    """Seconds of training of one row by group, of those whose speed is known on this machine.

    A row of `seconds` takes these. Of others a step's seconds count, of finished rows of the same
    group, else of `measure`.
    """
    here = place()
    spent: dict[str, list[float]] = {}
    for one in results:
        if one["ran"]["seconds"] and [one["on"][name] for name in ("processor", "threads")] == here:
            group = one["row"].rpartition(".")[0]
            spent.setdefault(group, []).append(one["ran"]["seconds"] / one["ran"]["steps"])
    measured = {one["kind"]: one["step"] for one in _read(work) if one["place"] == here}
    found: dict[str, float] = {}
    for row in rows:
        if row.unit == "seconds":
            found[row.group] = float(row.length)
        elif row.group in spent:
            found[row.group] = row.length * min(spent[row.group])
        elif _kind(row) in measured:
            found[row.group] = row.length * measured[_kind(row)]
    return found


def measure(rows: Sequence[Row], work: Path) -> None:
    """Times steps of each kind of row that has not been timed on this machine."""
    here = place()
    known = {one["kind"] for one in _read(work) if one["place"] == here}
    for row in {_kind(row): row for row in rows}.values():
        if _kind(row) in known:
            continue
        step = _labels_step(row) if row.with_labels else _step(row)
        print(f"{row.pair}, {row.method}: {1000 * step:,.0f} ms a step", flush=True)
        path = _file(work)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"place": here, "kind": _kind(row), "step": step}) + "\n")


def _step(row: Row) -> float:
    """Seconds of a step of distillation, its share of the selection included."""
    section = with_own_settings(checked(row.settings).distill)
    section = section.model_copy(update=PLAIN)
    device = resolve_device(section.device)
    teacher = build(str(row.settings["teacher.architecture"]), CLASSES).to(device)
    teacher.eval().requires_grad_(False)
    count = STEPS * section.batch_size
    pixels = torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, device=device)
    mean, std = [0.5] * 3, [0.25] * 3
    parts = [teacher(normalise(part, mean, std)) for part in pixels.split(256)]
    logits = torch.cat(parts).float() * 100  # sure of something, so that images are selected
    ids = [f"{place:064x}" for place in range(count)]
    web = WebImages(ids, Resident(pixels, device), logits, torch.arange(count), torch.arange(0))
    architecture = {"name": row.settings["teacher.architecture"], "num_classes": CLASSES}
    config = ModelConfig(architecture, [*map(str, range(CLASSES))], mean, std, SIDE, "random")
    precision = resolve_precision(section.precision, device)
    with tempfile.TemporaryDirectory() as folder:
        done = distill(section, web, teacher, config, precision, Path(folder), no_progress)
    return float(done[1].curves[-1]["seconds"]) / STEPS


def _labels_step(row: Row) -> float:
    """Seconds of a step of training on labels."""
    section = checked(row.settings | {"teacher.data": "none", "teacher.epochs": 1}).teacher
    device = resolve_device(section.device)
    count = STEPS * section.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(count) % CLASSES
    precision = resolve_precision(section.precision, device)
    network = build(row.student, CLASSES)
    began = time.monotonic()
    train(network, pixels, labels, section, device, precision, no_progress)
    return (time.monotonic() - began) / STEPS


def _kind(row: Row) -> str:
    """Rows with the same take the same time a step."""
    alike = {at: value for at, value in row.own.items() if at not in UNTIMED}
    return json.dumps([row.pair, row.preset, alike], sort_keys=True)


def place() -> list[Any]:
    on = machine()
    return [on["processor"], on["threads"]]


def _file(work: Path) -> Path:
    return work / "speed.jsonl"


def _read(work: Path) -> list[dict[str, Any]]:
    path = _file(work)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
