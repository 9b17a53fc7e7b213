import numpy as np
import pytest
import torch

from pipeline.console import no_progress
from pipeline.evaluate.metrics import per_class, predictions, score, wilson_interval
from pipeline.models import build
from pipeline.models.network import parameter_count

CPU = torch.device("cpu")
MEAN, STD = [0.5] * 3, [0.25] * 3


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # as scipy.stats.binomtest(right, total).proportion_ci(method="wilson") gives them
        (0, 10, 0.0, 0.2775327998628892),
        (10, 10, 0.7224672001371107, 1.0),
        (1, 1, 0.2065493143772375, 1.0),
        (50, 100, 0.4038315303659956, 0.5961684696340044),
    ],
)
def test_the_wilson_interval_has_its_known_values(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("right", "total"), [(1, 7), (123, 2000), (8542, 10_000), (1, 9_999)])
def test_the_ends_of_the_wilson_interval_solve_its_equation(right, total):
    for end in wilson_interval(right, total):
        distance = abs(right / total - end) / (end * (1 - end) / total) ** 0.5
        assert distance == pytest.approx(1.959963984540054, rel=1e-9)


def test_the_wilson_interval_never_leaves_zero_to_one():
    for total in range(1, 400):
        assert wilson_interval(0, total)[0] >= 0
        assert wilson_interval(total, total)[1] <= 1


def test_a_score_counts_what_is_right():
    network = build("resnet8", 4)
    found = score(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0]), network)
    assert found["accuracy"] == 0.75
    assert found["accuracy_low"] < 0.75 < found["accuracy_high"]
    assert found["parameters"] == parameter_count(network)


def test_each_class_has_its_own_accuracies_and_an_empty_one_has_none():
    labels, teacher, student = (
        np.array([0, 0, 0, 2]),
        np.array([0, 0, 1, 2]),
        np.array([0, 1, 1, 1]),
    )
    assert per_class(labels, teacher, student, ["a", "b", "c"]) == [
        {"name": "a", "images": 3, "teacher": 0.6667, "student": 0.3333},
        {"name": "b", "images": 0, "teacher": None, "student": None},
        {"name": "c", "images": 1, "teacher": 1.0, "student": 0.0},
    ]


def test_predictions_do_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    network = build("resnet8", 6).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (23, 16, 16, 3), dtype=np.uint8)
    steps: list[int] = []
    found = [
        predictions(network, pixels, MEAN, STD, size, CPU, steps.append) for size in (1, 7, 23, 64)
    ]
    assert found[0].dtype == np.int64
    assert len(set(found[0].tolist())) > 1
    for other in found[1:]:
        assert np.array_equal(found[0], other)
    assert sum(steps) == 4 * 23


def test_predictions_are_the_classes_of_the_networks_logits():
    torch.manual_seed(0)
    network = build("resnet8", 6).eval()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = network(images).argmax(dim=1).tolist()
    assert predictions(network, pixels, MEAN, STD, 2, CPU, no_progress).tolist() == expected
