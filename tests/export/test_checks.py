"""Comparison of a file with the student: whatever the scale of its logits, and by class."""

from typing import Any

import numpy as np
import pytest

from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.export.checks import FLOAT, HALF, compare, require_finite, require_student

SCALES = [1e-7, 1e-3, 1.0, 38_728.0, 1e30]


def logits(scale: float = 1.0, offset: float = 0.0, images: int = 40) -> np.ndarray:
    """float32 [images, 6], of deviation 1 an image before they are scaled."""
    drawn = np.random.default_rng(0).normal(size=(images, 6))
    drawn /= drawn.std(axis=1, keepdims=True)
    return (scale * (drawn + offset)).astype(np.float32)


def swapped(values: np.ndarray) -> np.ndarray:
    """The same with two classes changed for each other."""
    return values[:, [1, 0, 2, 3, 4, 5]]


@pytest.mark.parametrize("scale", SCALES)
def test_rounding_passes_at_any_scale(scale: float) -> None:
    student = logits(scale)
    rounded = student * (1 + 1e-6 * np.sign(logits(1.0)))
    found = compare(rounded.astype(np.float32), student)
    assert found.agrees and 0 < found.relative < 1e-5 and not found.others
    require_student("x", found, len(student))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("wrong", [swapped, lambda x: 1.01 * x, lambda x: x[:, ::-1]])
def test_a_wrong_file_fails_at_any_scale(scale: float, wrong: Any) -> None:
    student = logits(scale)
    found = compare(wrong(student), student)
    assert not found.agrees
    with pytest.raises(ExternalError, match="x is not the student"):
        require_student("x", found, len(student))


def test_two_classes_swapped_are_counted_by_image() -> None:
    student = logits()
    first = student.argmax(axis=1) < 2
    assert 0 < first.sum() < len(first)
    assert compare(swapped(student), student).others == first.sum()


def test_the_tolerance_is_of_the_spread_of_each_image() -> None:
    student = np.stack([[0.0, 1.0], [0.0, 100.0]]).astype(np.float32)  # spreads 0.5 and 50
    shift = np.float32([[0.02], [0.0]])
    assert compare(student + shift, student).relative == pytest.approx(0.04)
    assert compare(student + shift[::-1], student).agrees
    assert not compare(student + shift, student).agrees


def test_a_class_that_is_as_likely_is_no_disagreement() -> None:
    student = np.float32([[0.0, 1.0, 1.0001], [0.0, 1.0, 2.0]])
    file = np.float32([[0.0, 1.0001, 1.0], [0.0, 1.0, 2.0]])
    found = compare(file, student)
    assert (found.ties, found.others, found.agrees) == (1, 0, True)
    far = np.float32([[0.0, 1.0, 1.0001], [0.0, 2.0, 1.0]])
    found = compare(far, student)
    assert (found.ties, found.others, found.agrees) == (0, 1, False)


def test_logits_that_are_all_alike_have_no_spread_but_rounding() -> None:
    student = np.full((5, 4), 7.0, np.float32)
    assert compare(student.copy(), student).relative == 0
    assert compare(np.nextafter(student, np.float32(8)), student).agrees
    assert not compare(student + np.float32(0.01), student).agrees
    zero = np.zeros((5, 4), np.float32)
    assert compare(zero, zero).agrees
    assert not compare(zero + np.float32(1e-9), zero).agrees


def test_what_all_logits_have_in_common_costs_roundings_only() -> None:
    student = logits(offset=1e4)
    assert compare(np.nextafter(student, np.float32(0)), student).agrees
    assert not compare(swapped(student), student).agrees
    assert not compare(student + np.float32(0.1), student).agrees


def test_one_image_of_small_logits_among_others_is_not_held_to_less_than_rounding() -> None:
    student = logits(1e4)
    student[3] = [1e-6, 2e-6, 0, 0, 0, 0]  # what is left of sums of large numbers
    assert compare(student + np.float32(1e-3), student).agrees
    assert not compare(student + np.float32(1.0), student).agrees


def test_half_precision_has_a_tolerance_of_its_own() -> None:
    student = logits(5.0)
    half = student + np.float32(0.1)  # of a spread of 5
    assert compare(half, student, HALF).agrees and not compare(half, student, FLOAT).agrees
    assert not compare(swapped(student), student, HALF).agrees


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_or_has_other_classes_is_not_the_student(broken: float) -> None:
    student = logits()
    file = student.copy()
    file[1, 2] = broken
    for wrong in (file, student[:, :5], np.hstack([student, student])):
        with pytest.raises(ExternalError, match="x is not the student"):
            require_student("x", compare(wrong, student), len(student))
    require_finite(student)
    with pytest.raises(UserError, match="not finite on 1 of 40 images"):
        require_finite(file)
