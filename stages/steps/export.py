"""Step of `pipeline export`: files of the student, each checked, with a model card."""

from dataclasses import replace

import torch

from pipeline.console import Console
from pipeline.export.card import Facts, model_card, read_metrics
from pipeline.export.checks import choose_pixels
from pipeline.export.files import INT8, check_files, write_files
from pipeline.export.model import Model, open_model
from pipeline.export.sources import by_host, by_licence, history, sources
from pipeline.labelled import load_labelled, match_labels
from pipeline.models.checkpoint import WEIGHTS
from pipeline.models.distilled import load_student
from pipeline.params import Params
from pipeline.store import replacing, write_json, write_table, write_text
from stages import paths


def run(params: Params, console: Console) -> None:
    """Writes models/export."""
    section = params.export
    metrics = read_metrics(paths.METRICS)
    network, config = load_student(paths.STUDENT, torch.device("cpu"))
    temperature = metrics["student"]["temperature"] or 1.0
    config = replace(config, fit=params.embed.fit, temperature=temperature)
    student = open_model(paths.STUDENT / WEIGHTS)
    scheme = None if section.int8 == "none" else section.int8
    pixels = choose_pixels(
        paths.EMBED / "pixels.npy", section.images, config.input_size, scheme == "static"
    )
    tables = (paths.MANIFEST, paths.DEDUP, paths.SELECTION)
    count = len({"safetensors", *section.formats}) + (scheme is not None)
    with replacing(paths.EXPORT) as folder:
        with console.progress("export", 2 * count) as advance:
            names = write_files(
                folder,
                network,
                config,
                formats=section.formats,
                kind=section.input,
                int8=scheme,
                pixels=pixels,
                advance=advance,
            )
            expected = student.logits(pixels.compare)
            checks = {
                "input": section.input,
                "images": {"web": pixels.web, "noise": len(pixels.compare) - pixels.web},
                "files": check_files(folder, names, expected, pixels, advance),
                "int8": None,
            }
        if scheme:
            right = _accuracies(params, console, [student, open_model(folder / INT8)])
            checks["int8"] = {
                "scheme": scheme,
                "calibrated_on": len(pixels.calibrate) if scheme == "static" else 0,
                "student_accuracy": right[0],
                "accuracy": right[1],
            }
        way = history(*tables)
        with console.progress("export: sources", way.candidates) as advance:
            origins = sources(*tables, advance)
        facts = Facts(
            config=config,
            metrics=metrics,
            checks=checks,
            history=way,
            licences=by_licence(origins),
            hosts=by_host(origins),
            licence=section.licence,
        )
        write_table(folder / "sources.parquet", origins)
        write_json(folder / "checks.json", checks)
        write_text(folder / "README.md", model_card(facts))
    shown = ", ".join(f"{one['file']} {one['bytes'] / 1e6:.2f} MB" for one in checks["files"])
    if scheme:
        shown += f" ({checks['int8']['accuracy']:.1%} right; student {right[0]:.1%})"
    console.result(f"export: {shown} → {paths.EXPORT}", checks)


def _accuracies(params: Params, console: Console, models: list[Model]) -> list[float]:
    """Share of `evaluate`'s test images on which each is right."""
    of, model = params.evaluate, models[0]
    with console.progress("export: test images") as advance:
        data = load_labelled(of.test_set, "test", model.input_size, of.images, of.seed, advance)
        labels = match_labels(data, model.class_names, of.test_set)
        seen = [one.logits(data.pixels, advance).argmax(axis=1) for one in models]
    return [round(float((classes == labels).mean()), 4) for classes in seen]
