"""Predictions, mistakes and summary of an evaluation, beside its metrics."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy.special import softmax

from kd3_pipeline.console import text_table
from kd3_pipeline.pixelstore import Pixels

MOST_MISTAKES = 200
MISTAKE_COLUMNS = {
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "actual": pa.string(),
    "student": pa.string(),
    "teacher": pa.string(),
    "student_confidence": pa.float32(),
    "teacher_confidence": pa.float32(),
}
FIGURES = {  # of a network, and how they are written
    "architecture": ("architecture", "s"),
    "accuracy": ("accuracy", ".2%"),
    "top5": ("top-5 accuracy", ".2%"),
    "nll": ("NLL (nats)", ".3f"),
    "ece": ("ECE", ".2%"),
    "parameters": ("parameters", ",d"),
    "macs": ("MACs", ",d"),
    "megabytes": ("file (MB)", ".2f"),
}


def answers(
    labels: np.ndarray, teacher: np.ndarray, student: np.ndarray, class_names: Sequence[str]
) -> dict[str, list]:
    """One value an image: actual, student and teacher (names), and both confidences (0 to 1).

    Args:
        labels: int64 [N].
        teacher, student: logits [N, C].
    """

    def name(rows: np.ndarray) -> list[str]:
        return [class_names[row] for row in rows]

    return {
        "actual": name(labels),
        "student": name(student.argmax(axis=1)),
        "teacher": name(teacher.argmax(axis=1)),
        "student_confidence": softmax(student, axis=1).max(axis=1).tolist(),
        "teacher_confidence": softmax(teacher, axis=1).max(axis=1).tolist(),
    }


def prediction_rows(answered: Mapping[str, list]) -> Iterator[tuple[str, ...]]:
    """The answers, one row an image, confidences with 4 digits."""
    for *names, student, teacher in zip(*answered.values(), strict=True):
        yield (*names, f"{student:.4f}", f"{teacher:.4f}")


def mistakes(pixels: Pixels, answered: Mapping[str, list]) -> pa.Table:
    """Up to 200 images that the student gets wrong, surest first, with their pixels as PNG.

    Args:
        pixels: uint8 [N, S, S, 3].
        answered: as from `answers`.
    """
    sure = answered["student_confidence"]
    pairs = zip(answered["actual"], answered["student"], strict=True)
    wrong = [row for row, (actual, seen) in enumerate(pairs) if actual != seen]
    wrong = sorted(wrong, key=lambda row: -sure[row])[:MOST_MISTAKES]
    columns = {"image": [{"bytes": _png(pixels[row]), "path": f"{row}.png"} for row in wrong]}
    columns |= {name: [values[row] for row in wrong] for name, values in answered.items()}
    return pa.table(columns, schema=pa.schema(MISTAKE_COLUMNS.items()))


def summary(metrics: Mapping[str, Any]) -> str:
    """One line on student and teacher, and a table of both."""
    teacher, student = metrics["teacher"], metrics["student"]
    rows = [["", "teacher", "student"]]
    rows += [
        [name, *("-" if of[key] is None else format(of[key], form) for of in (teacher, student))]
        for key, (name, form) in FIGURES.items()
        if student[key] is not None
    ]
    for a, b in zip(teacher["latency_ms"], student["latency_ms"], strict=True):
        rows.append(
            [f"{a['device']}, batch {a['batch']} (ms)", f"{a['p50']:.2f}", f"{b['p50']:.2f}"]
        )
    shares = [(f"style {row['name']}", row) for row in metrics["styles"]]
    if metrics["corruption_error"]:
        shares.append(("corruption error", metrics["corruption_error"]))
    rows += [[name, f"{row['teacher']:.2%}", f"{row['student']:.2%}"] for name, row in shares]
    gap, usual = metrics["gap_points"], teacher["commonest_class"]
    return (
        f"evaluate: student {student['accuracy']:.1%} (95% interval {student['accuracy_low']:.1%}"
        f" to {student['accuracy_high']:.1%}), {abs(gap):.2f} points"
        f" {'below' if gap >= 0 else 'above'} the teacher, on {metrics['test_images']:,} images of"
        f" {metrics['test_set']}{_part(metrics)}\n{text_table(rows)}\nagreement with the teacher"
        f" {metrics['agreement']:.1%}; always saying {usual}, its commonest answer, would be"
        f" {teacher['commonest_share']:.1%}"
    )


def _part(metrics: Mapping[str, Any]) -> str:
    measured, classes = metrics["classes_measured"], len(metrics["class_names"])
    return "" if measured == classes else f" ({measured:,} of the teacher's {classes:,} classes)"


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
