"""Step of `pipeline export`: files of the student, each checked, with a model card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd3_pipeline.console import Advance, Console
from kd3_pipeline.crawlsummary import read_crawl_summary
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.export.card import Facts, Licence, model_card
from kd3_pipeline.export.checks import Pixels, choose_pixels, compare, require_finite
from kd3_pipeline.export.files import INT8, ONNX, check_files, measured, write_files
from kd3_pipeline.export.model import Model, open_model
from kd3_pipeline.export.program import InputKind, as_input
from kd3_pipeline.export.provenance import (
    by_host,
    by_licence,
    creators_to_credit,
    fetched_between,
    provenance_table,
    read_history,
)
from kd3_pipeline.export.runtimes import RUNTIMES, RuntimeFailure
from kd3_pipeline.labelled import Reading, load_labelled
from kd3_pipeline.manifest import made_by
from kd3_pipeline.metrics import read_metrics
from kd3_pipeline.models.checkpoint import WEIGHTS, ModelConfig
from kd3_pipeline.models.distilled import load_student
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Evaluate, Export, Params
from kd3_pipeline.store import replacing, write_json, write_table, write_text
from kd3_stages import paths

TABLES = (paths.MANIFEST, paths.DEDUP, paths.SELECTION)


def run(params: Params, console: Console) -> None:
    """Writes models/export: all of it, or nothing where a file is not the student.

    Raises:
        ExternalError: a file answers otherwise than the student.
        UserError: an input is missing or broken, or a format cannot hold the student.
    """
    section = params.export

    # read
    metrics = read_metrics(paths.METRICS)
    network, config = load_student(paths.STUDENT, torch.device("cpu"))
    fit = config.fit or params.embed.fit
    config = replace(config, fit=fit, temperature=metrics.student.temperature)
    web = Embeddings.open(paths.EMBED)
    pixels = choose_pixels(web, section.images, config.input_size, section.int8 == "static")
    history = read_history(*TABLES)
    harvest = read_crawl_summary(paths.summary("crawl"))

    with replacing(paths.EXPORT) as folder:
        checks = _ship(folder, network, config, pixels, params, console)
        _leave_out(folder, checks, section, console)

        # say what they are and where they come from
        with console.progress("export: sources", history.candidates) as advance:
            origins = provenance_table(*TABLES, advance)
        creators, uncredited = creators_to_credit(origins)
        facts = Facts(
            config=config,
            metrics=metrics,
            checks=checks,
            history=history,
            licences=by_licence(origins),
            hosts=by_host(origins),
            licence=Licence(section.licence, section.licence_name, section.licence_link),
            harvest=harvest,
            made=made_by(paths.MANIFEST),
            fetched=fetched_between(origins),
            creators=creators,
            uncredited=uncredited,
        )
        write_table(folder / "sources.parquet", origins)
        write_json(folder / "checks.json", checks)
        write_text(folder / "README.md", model_card(facts))
    console.result(f"export: {_told(checks)} → {paths.EXPORT}", checks)


def _ship(
    folder: Path,
    network: Network,
    config: ModelConfig,
    pixels: Pixels,
    params: Params,
    console: Console,
) -> dict[str, Any]:
    """Writes the files, opens them again and compares them: the content of checks.json."""
    section = params.export
    int8 = None if section.int8 == "none" else section.int8
    student = open_model(paths.STUDENT / WEIGHTS)
    count = len({"safetensors", *section.formats}) + (int8 is not None)
    with console.progress("export", 2 * count + 1 + len(section.runtimes)) as advance:
        names = write_files(
            folder,
            network,
            config,
            formats=section.formats,
            kind=section.input,
            int8=int8,
            pixels=pixels,
            advance=advance,
        )
        advance(0, "answers of the student")
        expected = student.logits(pixels.compare)
        require_finite(expected)
        advance(1)
        checked = check_files(folder, names, expected, pixels, advance, section.int8_agreement)
        tried = [
            _tried(folder / ONNX, name, section.input, pixels, expected, advance)
            for name in section.runtimes
        ]
    checks: dict[str, Any] = {
        "input": section.input,
        "images": {"web": pixels.web, "noise": len(pixels.compare) - pixels.web},
        "files": checked,
        "left_out": [],
        "tried": tried,
        "int8": None,
    }
    if int8:
        accuracies = _accuracies(params.evaluate, [student, open_model(folder / INT8)], console)
        checks["int8"] = {
            "scheme": int8,
            "calibrated_on": len(pixels.calibrate) if int8 == "static" else 0,
            "least_agreement": section.int8_agreement,
            "student_accuracy": accuracies[0],
            "accuracy": accuracies[1],
        }
    for one in tried:
        if not one["agrees"]:
            console.warn(f"{ONNX} in {one['runtime']} is not the student: {_far(one)}")
    return checks


def _tried(
    path: Path, name: str, kind: InputKind, pixels: Pixels, expected: np.ndarray, advance: Advance
) -> dict[str, Any]:
    """What another runtime makes of a file: as `measured`, or its `error`."""
    runtime = RUNTIMES[name]
    advance(0, f"{path.name} in {name}")
    head = {"file": path.name, "runtime": runtime.name, "error": ""}
    try:
        logits = runtime.logits(path, kind, as_input(pixels.compare, kind))
    except RuntimeFailure as error:
        return head | {"agrees": False, "error": str(error)}
    finally:
        advance(1)
    found = compare(logits, expected)
    return head | measured(found, logits[: pixels.web], expected[: pixels.web])


def _leave_out(folder: Path, checks: dict[str, Any], section: Export, console: Console) -> None:
    """Takes files of 8 and 16 bits that are too far from the student out of `folder`.

    Raises:
        ExternalError: there are any, and `section` wants them to be refused.
    """
    far = [one for one in checks["files"] if not one["agrees"]]
    if not far:
        return
    told = "; ".join(f"{one['file']} is too far from the student: {_far(one)}" for one in far)
    if section.disagreeing == "refuse":
        hint = "nothing was written; set export.disagreeing to leave-out, or take the format out"
        raise ExternalError(told, hint)
    for one in far:
        (folder / one["file"]).unlink()
    checks["files"] = [one for one in checks["files"] if one["agrees"]]
    checks["left_out"] = far
    console.warn(f"left out of {paths.EXPORT}: {told}")


def _far(one: dict[str, Any]) -> str:
    if one.get("error"):
        return str(one["error"])
    if one["of_spread"] is None:
        return "its logits are not finite, or not as many as there are classes"
    return (
        f"the same class on {one['same_class']:.1%} of the web images, logits differ by up to"
        f" {one['of_spread']:.2g} of their spread over the classes"
    )


def _accuracies(section: Evaluate, models: list[Model], console: Console) -> list[float]:
    """Share of `evaluate`'s test images on which each is right."""
    model = models[0]
    with console.progress("export: test images") as advance:
        test = load_labelled(
            section.test_set,
            "test",
            model.frame,
            section.drawn,
            section.seed,
            advance,
            reading=Reading.of(section),
            class_names=model.class_names,
        )
        seen = [one.logits(test.pixels, advance).argmax(axis=1) for one in models]
    for note in test.notes:
        console.note(note)
    return [round(float((classes == test.labels).mean()), 4) for classes in seen]


def _told(checks: dict[str, Any]) -> str:
    """The files with their sizes, in a line."""
    told = ", ".join(f"{one['file']} {one['bytes'] / 1e6:.2f} MB" for one in checks["files"])
    if (int8 := checks["int8"]) and INT8 in {one["file"] for one in checks["files"]}:
        told += f" ({int8['accuracy']:.1%} right; student {int8['student_accuracy']:.1%})"
    return told
