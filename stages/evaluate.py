"""`pipeline evaluate`: student and teacher on a labelled test set."""

import csv
import io
from typing import Annotated

import typer

from stages import paths
from stages.command import Json, Quiet, Set, start


def evaluate(
    test_set: Annotated[
        str | None, typer.Option(help="demo, cifar10, cifar100, a .parquet file or a folder.")
    ] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the student beside its teacher, into reports/metrics.json."""
    params, console = start("evaluate", overrides, quiet, as_json, test_set=test_set)
    from pipeline.device import resolve_device
    from pipeline.evaluate.metrics import per_class, predictions, score
    from pipeline.labelled import load_labelled, match_labels
    from pipeline.models.checkpoint import load_model
    from pipeline.models.distilled import load_student
    from pipeline.store import write_json, write_text

    section = params.evaluate
    device = resolve_device(section.device)
    teacher, config = load_model(paths.TEACHER, device)
    student, own = load_student(paths.STUDENT, device)
    names = config.class_names
    with console.progress("evaluate: reading", section.images or None) as advance:
        data = load_labelled(
            section.test_set, "test", config.input_size, section.images, section.seed, advance
        )
    labels = match_labels(data, names, section.test_set)
    with console.progress("evaluate", 2 * len(labels)) as advance:
        by_teacher, by_student = (
            predictions(network, data.pixels, of.mean, of.std, section.batch_size, device, advance)
            for network, of in ((teacher, config), (student, own))
        )
    scores = {
        who: {"architecture": of.architecture.get("name") or of.architecture["backbone"]}
        | score(labels, predicted, network)
        for who, predicted, network, of in (
            ("teacher", by_teacher, teacher, config),
            ("student", by_student, student, own),
        )
    }
    gap = 100 * (scores["teacher"]["accuracy"] - scores["student"]["accuracy"])
    metrics = {
        "test_set": section.test_set,
        "test_images": len(labels),
        "class_names": names,
        **scores,
        "gap_points": round(gap, 2),
        "agreement": round(float((by_teacher == by_student).mean()), 4),
        "per_class": per_class(labels, by_teacher, by_student, names),
    }
    write_json(paths.METRICS, metrics)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["actual", "student", "teacher"])
    for row in zip(labels, by_student, by_teacher, strict=True):
        writer.writerow([names[label] for label in row])
    write_text(paths.PREDICTIONS, text.getvalue())
    student_score = scores["student"]
    console.result(
        f"evaluate: student {student_score['accuracy']:.1%} (95% interval"
        f" {student_score['accuracy_low']:.1%} to {student_score['accuracy_high']:.1%}), teacher"
        f" {scores['teacher']['accuracy']:.1%}, on {len(labels):,} images of {section.test_set}"
        f" → {paths.METRICS}",
        metrics,
    )
