import math

import pytest

from kd3_pipeline.kd3 import teacher_weight


def test_the_published_weights_are_reproduced(golden):
    epochs = golden.arrays["alpha_epochs"].tolist()
    assert epochs == list(range(1, 241))
    golden.matches(golden["alpha"].new_tensor([teacher_weight(epoch) for epoch in epochs]), "alpha")


def test_the_teacher_leaves_at_the_switch():
    assert teacher_weight(119.9) > 0.2
    assert teacher_weight(120) == 0


def test_horizon_and_switch_can_be_moved():
    assert teacher_weight(9, horizon=20, switch=10) == pytest.approx(1 - math.exp(-1.25))
    assert teacher_weight(10, horizon=20, switch=10) == 0
