"""Doubts about an evaluation: lines on a teacher or a student that the figures should not be read
without."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd3_pipeline.classcheck import (
    Crossed,
    accuracy_told,
    answers_told,
    commonest,
    one_class_told,
    order_told,
)


def warnings(
    labels: np.ndarray,
    teacher: np.ndarray,
    student: np.ndarray,
    names: Sequence[str],
    right: Mapping[str, float | None],
) -> list[str]:
    """Lines on classes in another order, a teacher at chance, and networks of one class or few.

    Args:
        labels: int64 [N].
        teacher, student: logits [N, C].
        right: of the teacher, as `metrics.scores` has it.
    """
    accuracy, low = (right[name] or 0.0 for name in ("accuracy", "accuracy_low"))
    answered = {"teacher": teacher.argmax(axis=1), "student": student.argmax(axis=1)}
    found = Crossed.of(names, labels, answered["teacher"])
    order = order_told(
        found, "test images of", "look at teacher.class_names, or at the names of the test set"
    )
    lines = [order or accuracy_told(accuracy, low, labels, names)]
    lines += [one_class_told(labels, of, names, who) for who, of in answered.items()]
    if not order:  # else every class is answered for another
        lines += answers_told(labels, answered["student"], names, "student")
    return [line for line in lines if line]


def usual_answer(logits: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """The class that a network answers most often, and its share of the answers.

    What always gives the teacher's agrees with it on that share of the images.
    """
    label, share = commonest(logits.argmax(axis=1), len(names))
    return {"commonest_class": names[label], "commonest_share": round(share, 4)}
