"""Step of `pipeline evaluate`: read, look for test images among the trained, measure, write."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from kd3_pipeline.console import Console
from kd3_pipeline.device import resolve_device
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.evaluate import metrics, outputs
from kd3_pipeline.evaluate.calibration import fit_temperature
from kd3_pipeline.evaluate.contamination import contaminated
from kd3_pipeline.evaluate.corruptions import KINDS, SEVERITIES, corruption_error
from kd3_pipeline.evaluate.cost import BATCHES, latencies, macs
from kd3_pipeline.evaluate.doubts import usual_answer, warnings
from kd3_pipeline.evaluate.pair import CORRUPTION_COLUMNS, CorruptionRow, Pair
from kd3_pipeline.evaluate.sheet import contact_sheet
from kd3_pipeline.evaluate.styles import Style, load_styles
from kd3_pipeline.evaluate.web import Web, load_web
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import LabelledImages, Reading, load_labelled
from kd3_pipeline.labelled.labels import listing, told_apart
from kd3_pipeline.metrics import LeftOut
from kd3_pipeline.models.checkpoint import load_model, weights_file
from kd3_pipeline.models.distilled import load_student
from kd3_pipeline.models.network import parameter_count
from kd3_pipeline.params import Evaluate
from kd3_pipeline.pixelstore import Pixels, Taken
from kd3_pipeline.store import (
    remove,
    replacing,
    row_count,
    write_csv,
    write_json,
    write_table,
    write_text,
)
from kd3_stages import paths
from kd3_stages.steps.figures import figures

FOLDERS = {"teacher": paths.TEACHER, "student": paths.STUDENT}


def run(section: Evaluate, console: Console) -> None:
    """Measures the student beside its teacher; writes the metrics and what they are made of.

    Images are framed as the student says in its config, where `distill` wrote it.

    Raises:
        ExternalError: the student was trained on test images.
        UserError: an input is missing or broken.
    """
    # read
    pair = _load_pair(resolve_device(section.device), section.batch_size)
    config = pair.configs["teacher"]
    side, names = config.input_size, config.class_names
    frame, reading = pair.configs["student"].frame, Reading.of(section)
    with console.progress("evaluate: reading", section.drawn or None) as advance:
        test = load_labelled(
            section.test_set,
            "test",
            frame,
            section.drawn,
            section.seed,
            advance,
            reading=reading,
            class_names=names,
        )
    for note in [*test.notes, *test.drawn_told(section.test_set, "evaluate.images")]:
        console.note(note)
    labels, measured = test.labels, np.unique(test.labels)
    if len(measured) < len(names):
        console.note(_part_told(section.test_set, measured, names))
    styles = _load_styles(section.styles, frame, names, reading, console)
    names = told_apart(names)
    web = _load_web(side, len(names), console)

    # look for test images among those that the student was trained on
    found = None if web is None else _contaminated(section, test, web, console)

    # measure
    with console.progress("evaluate", 2 * len(labels)) as advance:
        teacher, student = (pair.logits(who, test.pixels, advance) for who in pair.networks)
    temperature = 1.0 if web is None else _temperature(pair, web, console)
    corruptions = _under_corruption(section, pair, test.pixels, labels, console)
    with console.progress("evaluate: styles") as advance:
        by_style = pair.by_style(styles, advance)
    about = _about(pair, side, section.latency, console)
    right = metrics.scores(labels, teacher)
    values = {
        "test_set": section.test_set,
        "test_images": len(labels),
        "left_out": {reason: test.left_out.get(reason, 0) for reason in LeftOut.model_fields},
        "class_names": names,
        "classes_measured": len(measured),
        "teacher": about["teacher"] | right | usual_answer(teacher, names),
        "student": about["student"]
        | metrics.scores(labels, student)
        | usual_answer(student, names)
        | metrics.tempered(labels, student, temperature),
        **metrics.beside(labels, teacher, student),
        "per_class": metrics.per_class(labels, teacher, student, names),
        "leaked": row_count(paths.LEAKS) if paths.LEAKS.is_file() else None,
        "contaminated": found,
        "calibration": metrics.calibration(labels, student),
        "calibration_tempered": metrics.calibration(labels, student, temperature),
        "styles": by_style,
        "corruption_error": corruption_error(corruptions),
        "warnings": warnings(labels, teacher, student, names, right),
    }

    # write
    answers = outputs.answers(labels, teacher, student, names)
    write_json(paths.METRICS, values)
    write_json(paths.FIGURES, figures(values))
    write_csv(paths.PREDICTIONS, list(answers), outputs.prediction_rows(answers))
    write_csv(paths.CORRUPTIONS, CORRUPTION_COLUMNS, corruptions)
    with replacing(paths.MISTAKES.parent) as folder:
        folder.mkdir()
        write_table(folder / paths.MISTAKES.name, outputs.mistakes(test.pixels, answers))
    for line in values["warnings"]:
        console.warn(line)
    console.result(f"{outputs.summary(values)}\n→ {paths.METRICS}", values)


def _load_pair(device: torch.device, batch_size: int) -> Pair:
    teacher, config = load_model(paths.TEACHER, device)
    student, own = load_student(paths.STUDENT, device)
    return Pair(
        {"teacher": teacher, "student": student},
        {"teacher": config, "student": own},
        batch_size,
        device,
    )


def _part_told(source: str, measured: np.ndarray, names: Sequence[str]) -> str:
    there = set(measured.tolist())
    lacking = [name for label, name in enumerate(names) if label not in there]
    return (
        f"{source} has images of {len(there):,} of the teacher's {len(names):,} classes, and all"
        f" figures are of these: an answer is right if it is the likeliest of all {len(names):,}"
        f" (none: {listing(lacking)})"
    )


def _load_styles(
    source: str, frame: Frame, class_names: list[str], reading: Reading, console: Console
) -> list[Style]:
    if not source:
        return []
    with console.progress("evaluate: reading styles") as advance:
        styles, told = load_styles(source, frame, class_names, advance, reading)
    for note in told:
        console.note(note)
    return styles


def _load_web(side: int, classes: int, console: Console) -> Web | None:
    web = load_web(paths.EMBED, paths.SELECTION, side, classes)
    if web is None:
        console.note(
            f"{paths.EMBED} or {paths.SELECTION} is not there: test images were not looked for"
            " among those that trained the student, and its confidences have no temperature"
        )
    return web


def _contaminated(section: Evaluate, images: LabelledImages, web: Web, console: Console) -> int:
    """Number of test images that the student was trained on.

    Raises:
        ExternalError: some, and that is not allowed.
    """
    test = images.pixels
    with console.progress("evaluate: looking for test images", len(web.trained)) as advance:
        found = contaminated(test, web.pixels, web.trained, section.leak_ratio, advance)
    remove(paths.CONTAMINATION)  # an earlier run's
    if not len(found):
        return 0
    sheet = contact_sheet(found, test, web.pixels, web.ids, section.test_set)
    write_text(paths.CONTAMINATION, sheet)
    shown = ", ".join(map(str, found.test[:5].tolist())) + (", …" if len(found) > 5 else "")
    named = [images.names[row] for row in found.test[:5].tolist()] if images.names else []
    text = (
        f"{len(found):,} of {len(test):,} images of {section.test_set} are among those"
        f" that trained the student (numbers {shown}, from 0{': ' * bool(named)}{listing(named)};"
        f" pictures in {paths.CONTAMINATION})"
    )
    if not section.allow_contaminated:
        raise ExternalError(
            text,
            "set dedup.leaks to true and run `dvc repro`; where the pictures are different ones,"
            " set evaluate.leak_ratio lower; evaluate.allow_contaminated goes on, with scores that"
            " are too high",
        )
    console.note(f"{text}: the student's scores are too high")
    return len(found)


def _temperature(pair: Pair, web: Web, console: Console) -> float:
    """Of the student's confidences, from images that it was not trained on; 1 with too few."""
    with console.progress("evaluate: temperature", len(web.held_out)) as advance:
        logits = pair.logits("student", Taken(web.pixels, web.held_out), advance)
    temperature = fit_temperature(logits, web.teacher_logits[web.held_out])
    if temperature is None:
        console.note(
            f"{len(web.held_out)} web images are held out (distill.held_out), too few for a"
            " temperature: the student's confidences stay as they are"
        )
    return temperature or 1.0


def _under_corruption(
    section: Evaluate, pair: Pair, pixels: Pixels, labels: np.ndarray, console: Console
) -> list[CorruptionRow]:
    if not section.corruptions:
        return []
    total = len(KINDS) * len(SEVERITIES) * len(pair.networks) * len(pixels)
    with console.progress("evaluate: corruptions", total) as advance:
        return pair.under_corruption(pixels, labels, section.seed, advance)


def _about(pair: Pair, side: int, latency: bool, console: Console) -> dict[str, dict[str, Any]]:
    """What each network is, how it is fed and cut, and its cost: multiplications, bytes, times."""
    times: dict[str, list[dict[str, Any]]] = {}
    if latency:
        devices = 1 + (pair.device.type == "cuda")
        steps = len(pair.networks) * len(BATCHES) * devices
        with console.progress("evaluate: latency", steps) as advance:
            for who, network in pair.networks.items():
                times[who] = latencies(network, side, pair.device, advance)
    return {
        who: {
            "architecture": of.get("name") or of["backbone"],
            "cut": network.cut,
            "input_size": pair.configs[who].input_size,
            "mean": list(pair.configs[who].mean),
            "std": list(pair.configs[who].std),
            "parameters": parameter_count(network),
            "macs": macs(network, side),
            "megabytes": round(file.stat().st_size / 1e6, 3),
            "latency_ms": times.get(who, []),
        }
        for who, network in pair.networks.items()
        for of in [pair.configs[who].architecture]
        for file in [weights_file(FOLDERS[who], pair.configs[who])]
    }
