"""Step of `pipeline export`: files of the student, each checked, with a model card."""

from dataclasses import replace
from typing import Any

import torch

from pipeline.console import Console
from pipeline.crawlsummary import read_crawl_summary
from pipeline.embeddings import Embeddings
from pipeline.export.card import Facts, model_card
from pipeline.export.checks import choose_pixels
from pipeline.export.files import INT8, check_files, write_files
from pipeline.export.model import Model, open_model
from pipeline.export.provenance import by_host, by_licence, provenance_table, read_history
from pipeline.images import Frame
from pipeline.labelled import Reading, load_labelled
from pipeline.metrics import read_metrics
from pipeline.models.checkpoint import WEIGHTS
from pipeline.models.distilled import load_student
from pipeline.params import Evaluate, Params
from pipeline.store import replacing, write_json, write_table, write_text
from stages import paths

TABLES = (paths.MANIFEST, paths.DEDUP, paths.SELECTION)


def run(params: Params, console: Console) -> None:
    """Writes models/export: all of it, or nothing where a file is not the student.

    Raises:
        ExternalError: a file answers otherwise than the student.
        UserError: an input is missing or broken, or a format cannot hold the student.
    """
    section = params.export
    int8 = None if section.int8 == "none" else section.int8

    # read
    metrics = read_metrics(paths.METRICS)
    network, config = load_student(paths.STUDENT, torch.device("cpu"))
    config = replace(config, fit=params.embed.fit, temperature=metrics.student.temperature)
    student = open_model(paths.STUDENT / WEIGHTS)
    web = Embeddings.open(paths.EMBED)
    pixels = choose_pixels(web, section.images, config.input_size, int8 == "static")
    history = read_history(*TABLES)
    harvest = read_crawl_summary(paths.summary("crawl"))

    with replacing(paths.EXPORT) as folder:
        # write the files, and open them again
        count = len({"safetensors", *section.formats}) + (int8 is not None)
        with console.progress("export", 2 * count) as advance:
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
            expected = student.logits(pixels.compare)
            checked = check_files(folder, names, expected, pixels, advance)
        checks: dict[str, Any] = {
            "input": section.input,
            "images": {"web": pixels.web, "noise": len(pixels.compare) - pixels.web},
            "files": checked,
            "int8": None,
        }
        if int8:
            models = [student, open_model(folder / INT8)]
            accuracies = _accuracies(params.evaluate, models, console)
            checks["int8"] = {
                "scheme": int8,
                "calibrated_on": len(pixels.calibrate) if int8 == "static" else 0,
                "student_accuracy": accuracies[0],
                "accuracy": accuracies[1],
            }

        # say what they are and where they come from
        with console.progress("export: sources", history.candidates) as advance:
            origins = provenance_table(*TABLES, advance)
        facts = Facts(
            config=config,
            metrics=metrics,
            checks=checks,
            history=history,
            licences=by_licence(origins),
            hosts=by_host(origins),
            licence=section.licence,
            harvest=harvest,
        )
        write_table(folder / "sources.parquet", origins)
        write_json(folder / "checks.json", checks)
        write_text(folder / "README.md", model_card(facts))
    console.result(f"export: {_told(checks)} → {paths.EXPORT}", checks)


def _accuracies(section: Evaluate, models: list[Model], console: Console) -> list[float]:
    """Share of `evaluate`'s test images on which each is right."""
    model = models[0]
    with console.progress("export: test images") as advance:
        test = load_labelled(
            section.test_set,
            "test",
            Frame(model.input_size, model.fit),
            section.images,
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
    if int8 := checks["int8"]:
        told += f" ({int8['accuracy']:.1%} right; student {int8['student_accuracy']:.1%})"
    return told
