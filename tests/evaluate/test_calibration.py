import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kd3_pipeline.evaluate.calibration import FEWEST, fit_temperature, least_cross_entropy


def sampled_classes(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logits of a sure teacher whose classes are drawn from the softmax of these logits."""
    noisy = logits + rng.gumbel(size=logits.shape)
    return 50 * np.eye(logits.shape[1])[noisy.argmax(axis=1)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_logits_too_sharp_is_found(temperature):
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (20_000, 10))
    teacher = sampled_classes(true, rng)
    assert fit_temperature(true * temperature, teacher) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_is_better():
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(0, 3, (400, 5)), rng.normal(0, 3, (400, 5))
    teacher += 2 * student
    found = fit_temperature(student, teacher)

    def loss(temperature: float) -> float:
        log_p = log_softmax(student / temperature, axis=1)
        by_class = log_p[np.arange(400), teacher.argmax(axis=1)].mean()
        return -(by_class + (softmax(teacher, axis=1) * log_p).sum(axis=1).mean()) / 2

    assert all(loss(found) <= loss(found * factor) for factor in (0.8, 0.97, 1.03, 1.25))


def test_the_teachers_doubt_counts_half():
    rng = np.random.default_rng(4)
    student = rng.normal(0, 3, (400, 5))
    teacher = student + rng.normal(0, 1, (400, 5))
    sharp = least_cross_entropy(student, np.eye(5)[teacher.argmax(axis=1)])
    soft = least_cross_entropy(student, softmax(teacher, axis=1))
    assert 1.2 * sharp < fit_temperature(student, teacher) < 0.9 * soft


def test_a_student_that_always_agrees_with_a_sure_teacher_gets_a_bounded_temperature():
    logits = np.random.default_rng(2).normal(size=(100, 4))
    assert fit_temperature(logits, 1e6 * logits) == pytest.approx(0.1, rel=0.01)


def test_a_few_images_give_no_temperature():
    logits = np.random.default_rng(3).normal(size=(FEWEST, 4))
    assert fit_temperature(logits[1:], logits[1:]) is None
    assert fit_temperature(logits[:0], logits[:0]) is None
    assert fit_temperature(logits, logits) is not None
