import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn import metrics as reference

from kd3_pipeline.evaluate.metrics import (
    beside,
    calibration,
    calibration_error,
    per_class,
    scores,
    tempered,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 8, 500)
TEACHER = (RNG.normal(0, 2, (500, 8)) + 3 * np.eye(8)[LABELS]).astype(np.float32)
STUDENT = (RNG.normal(0, 2, (500, 8)) + 2 * np.eye(8)[LABELS]).astype(np.float32)


def logits_for(*classes: int, of: int = 3) -> np.ndarray:
    """Logits whose largest is at these classes."""
    return 5 * np.eye(of, dtype=np.float32)[list(classes)]


def test_the_scores_are_those_of_scikit_learn():
    p = softmax(STUDENT.astype(np.float64), axis=1)
    found = scores(LABELS, STUDENT)
    assert found["accuracy"] == reference.accuracy_score(LABELS, p.argmax(axis=1))
    assert found["top5"] == reference.top_k_accuracy_score(LABELS, p, k=5)
    assert found["nll"] == pytest.approx(reference.log_loss(LABELS, p), abs=6e-5)
    brier = reference.brier_score_loss(LABELS, p, scale_by_half=False, labels=range(8))
    assert found["brier"] == pytest.approx(brier, abs=6e-5)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # Wilson's interval in closed form, worked out with 50 digits
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_an_accuracy_has_wilsons_interval(right, total, low, high):
    labels = np.zeros(total, np.int64)
    found = scores(labels, logits_for(*[0] * right, *[1] * (total - right)))
    assert (found["accuracy_low"], found["accuracy_high"]) == (low, high)
    assert found["accuracy"] == right / total


def test_top5_is_left_out_where_it_says_little():
    labels = np.zeros(3, np.int64)
    assert scores(labels, logits_for(0, 1, 2, of=5))["top5"] is None
    assert scores(labels, logits_for(0, 1, 2, of=5))["top5_low"] is None
    assert scores(labels, logits_for(0, 1, 2, of=6))["top5"] == 1.0


def test_the_sixth_best_class_is_not_among_five():
    logits = np.arange(6, 0, -1, dtype=np.float32)[None]
    assert scores(np.array([4]), logits)["top5"] == 1.0
    assert scores(np.array([5]), logits)["top5"] == 0.0
    assert scores(np.array([5]), np.zeros((1, 6)))["top5"] == 0.0  # of equals the first ones


def test_a_sure_mistake_costs_its_whole_margin():
    found = scores(np.array([1]), np.array([[200.0, 0.0]], np.float32))
    assert found["nll"] == 200.0
    assert found["brier"] == 2.0
    assert found["ece"] == 1.0


def test_scores_of_what_is_right_and_sure_are_perfect():
    found = scores(np.array([0, 1]), 1000 * np.eye(2, dtype=np.float32))
    assert (found["accuracy"], found["nll"], found["brier"], found["ece"]) == (1.0, 0, 0, 0)


def test_the_gap_counts_where_only_one_is_right():
    labels = np.zeros(10, np.int64)
    teacher = logits_for(*[0] * 8, 1, 1)
    student = logits_for(*[0] * 5, 1, 1, 2, 0, 1)
    found = beside(labels, teacher, student)
    assert (found["only_teacher_right"], found["only_student_right"]) == (3, 1)
    assert found["gap_points"] == 20.0
    assert found["mcnemar_p"] == pytest.approx(0.625)  # 2 · (1 + 4) / 2⁴
    # cells 3.5 and 1.5 of 12: 1/6 ± 1.96 · sqrt(5 − 4/12) / 12
    half = 1.959964 * np.sqrt(5 - 4 / 12) / 12
    assert found["gap_low"] == pytest.approx(100 * (1 / 6 - half), abs=0.006)
    assert found["gap_high"] == pytest.approx(100 * (1 / 6 + half), abs=0.006)


def test_the_gaps_interval_covers_the_truth_19_times_in_20():
    rng, covered = np.random.default_rng(1), 0
    labels = np.zeros(200, np.int64)
    for _ in range(400):
        # cells: both right, only the teacher, only the student, none; the true gap is 6 points
        cell = rng.choice(4, 200, p=[0.80, 0.10, 0.04, 0.06])
        teacher = logits_for(*np.array([0, 0, 1, 1])[cell])
        student = logits_for(*np.array([0, 1, 0, 1])[cell])
        found = beside(labels, teacher, student)
        assert found["gap_low"] <= found["gap_points"] <= found["gap_high"]
        covered += found["gap_low"] <= 6 <= found["gap_high"]
    assert 0.92 <= covered / 400 <= 0.98


def test_twins_have_no_gap_and_no_divergence():
    found = beside(LABELS, TEACHER, TEACHER)
    assert (found["gap_points"], found["mcnemar_p"], found["kl"]) == (0, 1.0, 0)
    assert found["agreement"] == found["agreement_teacher_right"] == 1.0
    assert found["gap_low"] < 0 < found["gap_high"]


def test_one_image_is_enough_for_a_gap():
    found = beside(np.array([0]), logits_for(0), logits_for(1))
    assert found["gap_points"] == 100.0
    assert found["gap_low"] < 0 < found["gap_high"] == 100.0
    assert found["mcnemar_p"] == 1.0
    assert found["agreement_teacher_wrong"] is None
    assert found["agreement_teacher_right"] == 0.0


def test_agreement_is_split_by_whether_the_teacher_is_right():
    labels = np.array([0, 0, 0, 0, 0])
    found = beside(labels, logits_for(0, 0, 0, 1, 2), logits_for(0, 0, 1, 1, 1))
    assert found["agreement"] == 0.6
    assert found["agreement_teacher_right"] == 0.6667
    assert found["agreement_teacher_wrong"] == 0.5


def test_the_divergence_is_scipys():
    p, q = (softmax(of.astype(np.float64), axis=1) for of in (TEACHER, STUDENT))
    found = beside(LABELS, TEACHER, STUDENT)["kl"]
    assert found == pytest.approx(entropy(p, q, axis=1).mean(), abs=6e-5)
    assert found != pytest.approx(entropy(q, p, axis=1).mean(), abs=1e-2)


def test_each_class_has_its_own_accuracies_and_an_empty_one_is_not_there():
    labels = np.array([0, 0, 0, 2])
    teacher, student = logits_for(0, 0, 1, 2), logits_for(0, 1, 1, 1)
    assert per_class(labels, teacher, student, ["a", "b", "c"]) == [
        {"name": "a", "images": 3, "teacher": 0.6667, "student": 0.3333},
        {"name": "c", "images": 1, "teacher": 1.0, "student": 0.0},
    ]


def test_the_calibration_error_is_the_published_sum_over_bins():
    p = softmax(STUDENT.astype(np.float64), axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == LABELS
    expected = 0.0
    for place in range(15):
        inside = (confidence > place / 15) & (confidence <= (place + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(LABELS, STUDENT) == pytest.approx(expected, abs=1e-12)


def test_the_bins_hold_every_image_once():
    bins = calibration(LABELS, STUDENT)
    assert len(bins) == 15
    assert sum(row["images"] for row in bins) == 500
    assert (bins[0]["low"], bins[-1]["high"]) == (0.0, 1.0)
    assert bins[0] == {
        "low": 0.0,
        "high": 0.0667,
        "images": 0,
        "confidence": None,
        "accuracy": None,
    }
    for row in bins:
        if row["images"]:
            assert row["low"] - 1e-4 <= row["confidence"] <= row["high"] + 1e-4


def test_a_temperature_moves_confidences_and_no_class():
    found = tempered(LABELS, STUDENT, 3.0)
    cooled = scores(LABELS, STUDENT / 3)
    assert (found["nll_tempered"], found["brier_tempered"]) == (cooled["nll"], cooled["brier"])
    assert found["ece_tempered"] == pytest.approx(calibration_error(LABELS, STUDENT, 3.0), abs=6e-5)
    assert tempered(LABELS, STUDENT, 1.0)["ece_tempered"] == scores(LABELS, STUDENT)["ece"]
