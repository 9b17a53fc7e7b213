"""Metrics of a student beside its teacher: functions of labels int64 [N] and logits [N, C].

All take N ≥ 1. The predicted class is that of the largest logit, the first one of equals. Shares
are rounded to 4 digits, points to 2, as far as test sets can tell.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest, norm

BINS = 15  # of confidence, as in Guo et al.
DIGITS = 4
Z95 = norm.ppf(0.975)


def scores(labels: np.ndarray, logits: np.ndarray) -> dict[str, float | None]:
    """Scores of one network by itself.

    Returns:
        accuracy and top5 with their 95% intervals (Wilson, 1927), top5 None under 6 classes;
        nll: mean negative log-likelihood of the label, in nats;
        brier: mean over images of the squared error summed over classes (Brier, 1950), 0 to 2;
        ece: expected calibration error (Guo et al., ICML 2017).
    """
    of_image = np.arange(len(labels))
    best_first = np.argsort(-logits, axis=1, kind="stable")
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    error = np.exp(log_p)
    error[of_image, labels] -= 1
    few = logits.shape[1] < 6
    return {
        **_share("accuracy", best_first[:, 0] == labels),
        **_share("top5", None if few else (best_first[:, :5] == labels[:, None]).any(axis=1)),
        "nll": round(float(-log_p[of_image, labels].mean()), DIGITS),
        "brier": round(float((error**2).sum(axis=1).mean()), DIGITS),
        "ece": round(calibration_error(labels, logits), DIGITS),
    }


def beside(labels: np.ndarray, teacher: np.ndarray, student: np.ndarray) -> dict[str, Any]:
    """The student's logits beside the teacher's, image by image.

    Returns:
        gap_points: teacher minus student accuracy, with gap_low and gap_high, the 95% interval of
            a paired difference: Wald's with half an image added to each of the four cells
            (Agresti and Min, Statistics in Medicine 24, 2005);
        only_teacher_right, only_student_right: images, and mcnemar_p, that they differ so by
            chance (two-sided exact binomial test);
        agreement: share of images with the same predicted class, of all, of those that the teacher
            gets right and of those that it gets wrong (None where there are none);
        kl: mean KL(teacher || student) in nats.
    """
    by_teacher, by_student = teacher.argmax(axis=1), student.argmax(axis=1)
    right, student_right = by_teacher == labels, by_student == labels
    only_teacher = int((right & ~student_right).sum())
    only_student = int((student_right & ~right).sum())
    differ, images = only_teacher + only_student, len(labels)
    middle = (only_teacher - only_student) / (images + 2)
    spread = Z95 * np.sqrt((differ + 1) / (images + 2) - middle**2) / np.sqrt(images + 2)
    same = by_teacher == by_student
    log_p, log_q = (log_softmax(of.astype(np.float64), axis=1) for of in (teacher, student))
    return {
        "gap_points": round(100 * (only_teacher - only_student) / images, 2),
        "gap_low": round(100 * max(-1.0, float(middle - spread)), 2),
        "gap_high": round(100 * min(1.0, float(middle + spread)), 2),
        "only_teacher_right": only_teacher,
        "only_student_right": only_student,
        "mcnemar_p": float(binomtest(only_teacher, differ).pvalue) if differ else 1.0,
        "agreement": _mean(same),
        "agreement_teacher_right": _mean(same[right]),
        "agreement_teacher_wrong": _mean(same[~right]),
        "kl": round(float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()), DIGITS),
    }


def per_class(
    labels: np.ndarray, teacher: np.ndarray, student: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Name, images and both accuracies of each class that has images.

    A list, because `dvc metrics` would show a mapping as columns, hundreds of them.
    """
    right = {
        "teacher": teacher.argmax(axis=1) == labels,
        "student": student.argmax(axis=1) == labels,
    }
    return [
        {"name": name, "images": int((labels == label).sum())}
        | {who: _mean(of[labels == label]) for who, of in right.items()}
        for label, name in enumerate(class_names)
        if (labels == label).any()
    ]


def calibration(
    labels: np.ndarray, logits: np.ndarray, temperature: float = 1.0
) -> list[dict[str, Any]]:
    """Confidence beside accuracy in 15 equal bins of confidence, (low, high].

    Args:
        temperature: the logits are divided by it.

    Returns:
        low, high, images, and means of confidence and accuracy (None in an empty bin).
    """
    confidence, right, bin_of = _binned(labels, logits, temperature)
    return [
        {
            "low": round(place / BINS, DIGITS),
            "high": round((place + 1) / BINS, DIGITS),
            "images": int((bin_of == place).sum()),
            "confidence": _mean(confidence[bin_of == place]),
            "accuracy": _mean(right[bin_of == place]),
        }
        for place in range(BINS)
    ]


def calibration_error(labels: np.ndarray, logits: np.ndarray, temperature: float = 1.0) -> float:
    """ECE: mean over images of |confidence − accuracy| of their bin (Guo et al., ICML 2017)."""
    confidence, right, bin_of = _binned(labels, logits, temperature)
    return float(np.abs(np.bincount(bin_of, confidence - right)).sum() / len(labels))


def tempered(labels: np.ndarray, logits: np.ndarray, temperature: float) -> dict[str, float | None]:
    """The temperature, and NLL, Brier and ECE of the logits divided by it; no class changes."""
    cooled = scores(labels, logits / np.float32(temperature))
    return {
        "temperature": round(temperature, DIGITS),
        "nll_tempered": cooled["nll"],
        "brier_tempered": cooled["brier"],
        "ece_tempered": cooled["ece"],
    }


def _binned(
    labels: np.ndarray, logits: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence float64 [N], right bool [N], and the bin of each image, int64 [N]."""
    confidence = softmax(logits.astype(np.float64) / temperature, axis=1).max(axis=1)
    bin_of = np.ceil(confidence * BINS).astype(np.int64).clip(1, BINS) - 1
    return confidence, logits.argmax(axis=1) == labels, bin_of


def _share(name: str, right: np.ndarray | None) -> dict[str, float | None]:
    if right is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return {
        name: _mean(right),
        f"{name}_low": round(float(interval.low), DIGITS),
        f"{name}_high": round(float(interval.high), DIGITS),
    }


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), DIGITS) if len(values) else None
