"""A teacher on labelled images: two passes are compared by the images that both have had."""

import numpy as np

from kd3_pipeline.teacher.inspection import Accuracy


def passed(right: np.ndarray) -> Accuracy:
    return Accuracy(float(right.mean()), len(right), 0.0, 1.0, 1.0, 10, right)


def test_what_is_right_in_the_same_images_alike_tells_nothing():
    one = np.arange(500) % 5 > 0
    assert passed(one).beaten_by(passed(one)) == 0


def test_a_small_gain_is_told_where_it_is_of_the_same_images():
    """80 and 85% of 500: intervals of single shares overlap, and not one image is lost."""
    one = np.arange(500) < 400
    two = np.arange(500) < 425
    assert passed(one).beaten_by(passed(two)) == 5
    assert passed(two).beaten_by(passed(one)) == -5


def test_what_only_one_has_had_time_for_does_not_count():
    one = np.ones(500, bool)
    assert passed(one).beaten_by(passed(one[:32])) == 0
