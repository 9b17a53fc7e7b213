"""Doubts about an evaluation, from logits of networks whose faults are known."""

import numpy as np
import pytest

from kd3_pipeline.evaluate.doubts import usual_answer, warnings
from kd3_pipeline.evaluate.metrics import scores

NAMES = ["cat", "dog", "fox", "hen", "owl"]
LABELS = np.repeat(np.arange(5), 30)


def logits(answers: np.ndarray) -> np.ndarray:
    return np.eye(5, dtype=np.float32)[answers]


def right(share: float, seed: int = 0) -> np.ndarray:
    """Answers of which so many are right, the others any."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(150) < share, LABELS, rng.integers(0, 5, 150))


def found(teacher: np.ndarray, student: np.ndarray) -> list[str]:
    score = scores(LABELS, logits(teacher))
    return warnings(LABELS, logits(teacher), logits(student), NAMES, score)


def test_a_good_pair_raises_no_doubt() -> None:
    assert found(right(0.9), right(0.8, 1)) == []


def test_classes_in_another_order_are_one_line_that_puts_them_right() -> None:
    order = np.array([2, 0, 1, 4, 3])  # output k means class order[k]
    to = np.argsort(order)
    (line,) = found(to[right(0.95)], to[right(0.9, 1)])
    assert "class names seem to be in another order, 5 of 5" in line
    assert "look at teacher.class_names, or at the names of the test set" in line
    assert line.endswith("[fox, cat, dog, owl, hen]")


def test_a_teacher_by_lot_is_at_chance() -> None:
    lines = found(right(0.0), right(0.9))
    assert "it is at chance as far as they tell" in lines[0] and len(lines) == 1


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_network_that_says_one_class_has_collapsed(who: str) -> None:
    one = np.where(np.arange(150) < 120, 3, LABELS)
    pair = {"teacher": right(0.9), "student": right(0.9, 1)} | {who: one}
    lines = found(pair["teacher"], pair["student"])
    assert f"the {who} answers hen for 80.0% of the test images, of which 20.0% are" in lines[0]


def test_a_class_that_the_student_never_says_is_named() -> None:
    student = right(0.9, 1)
    student[student == 4] = 3
    (line,) = found(right(0.9), student)
    assert line == "the student answers 1 class hardly ever: owl 0 times for 30 images"


def test_the_usual_answer_is_the_most_frequent_one() -> None:
    usual = usual_answer(logits(np.array([1, 1, 2])), NAMES)
    assert usual == {"commonest_class": "dog", "commonest_share": 0.6667}
