from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from kd3_pipeline.dedup.fingerprints import ARRAYS, Fingerprints, zeros
from kd3_pipeline.dedup.grouping import best_first, elect, members, twins, with_twins
from kd3_pipeline.dedup.near import bits_apart
from kd3_pipeline.dedup.stars import Stars


def stars(centre, distance=None, similarity=None, resembles=None):
    total = len(centre)
    return replace(
        Stars.single(total),
        centre=np.array(centre, np.int64),
        distance=np.array(distance or [0] * total, np.int32),
        similarity=np.array(similarity or [1] * total, np.float32),
        resembles=np.array(resembles or [-1] * total, np.int64),
    )


def elected(found, rank, alike=None):
    """Elects; image k has k + 1 low bits set, and `alike` is {(i, j): similarity}."""
    hashes = np.tile(2 ** np.arange(1, len(rank) + 1, dtype=np.uint64)[:, None] - 1, 4)

    def verify(i, j):
        asked.extend(zip(i.tolist(), j.tolist(), strict=True))
        return np.array([alike[pair] for pair in asked[-len(i) :]], np.float32)

    asked = []
    return elect(found, np.array(rank), hashes.astype(np.uint64), verify), asked


@pytest.mark.parametrize("total", [0, 1, 5])
def test_without_members_each_image_stands_for_itself(total):
    found, asked = elected(stars(range(total)), range(total))
    assert found.group.tolist() == found.kept.tolist() == list(range(total))
    assert found.similarity.tolist() == [1.0] * total and not asked
    assert found.resembles.tolist() == [-1] * total


def test_a_centre_that_is_the_best_of_its_group_is_kept_with_what_is_known():
    found, asked = elected(stars([0, 0, 2, 0], [0, 3, 0, 5], [1, 0.875, 1, 0.5]), [1, 2, 3, 4])
    assert found.kept.tolist() == [0, 0, 2, 0]
    assert found.distance.tolist() == [0, 3, 0, 5]
    assert found.similarity.tolist() == [1, 0.875, 1, 0.5]
    assert found.group.tolist() == [0, 0, 1, 0] and not asked


def test_the_best_of_a_group_is_kept_and_the_others_point_to_it():
    alike = {(3, 1): 0.25}
    star = stars([0, 0, 2, 0], [0, 7, 0, 5], [1, 0.875, 1, 0.5])
    found, asked = elected(star, [9, 2, 3, 4], alike)
    assert found.kept.tolist() == [1, 1, 2, 1]
    # the centre is as far as the two were, the other member is compared anew
    assert found.distance.tolist() == [7, 0, 0, 2]
    assert found.similarity.tolist() == [0.875, 1, 1, 0.25]
    assert asked == [(3, 1)]


def test_what_resembles_an_image_points_to_what_is_kept_of_its_group():
    alike = {(1, 3): 0.75}
    star = stars([0, 0, 2, 2], [0, 7, 0, 5], [1, 0.875, 1, 0.5], [2, -1, -1, -1])
    found, asked = elected(star, [2, 1, 4, 3], alike)
    assert found.kept.tolist() == [1, 1, 3, 3]
    assert found.resembles.tolist() == [-1, 3, -1, -1]
    assert (found.distance[1], found.similarity[1]) == (2, 0.75)
    assert asked == [(1, 3)]


def test_groups_are_numbered_by_their_first_image():
    found, _ = elected(stars([4, 3, 2, 3, 4]), [4, 3, 2, 1, 0])
    assert found.group.tolist() == [0, 1, 2, 1, 0]
    assert found.kept.tolist() == [4, 3, 2, 3, 4]


def test_only_the_order_within_a_group_counts():
    star = stars([0, 0, 2, 2, 4], [0, 1, 0, 1, 0])
    for rank in ([0, 1, 1, 0, 5], [10, 20, 40, 30, -5]):
        assert elected(star, rank)[0].kept.tolist() == [0, 0, 3, 3, 4]


def test_members_are_those_of_groups_of_several():
    assert members(stars([4, 1, 2, 2, 4])).tolist() == [0, 2, 3, 4]
    assert members(stars([])).tolist() == []


def test_the_best_has_most_pixels_then_bytes_then_provenance_then_the_first_id():
    #                  a       b       c       d       e
    areas, sizes = [100, 100, 400, 100, 100], [9, 9, 1, 9, 50]
    rank = best_first(areas, sizes, [2, 3, 0, 3, 0], ["a", "d", "c", "b", "e"])
    assert rank.tolist() == [4, 3, 0, 2, 1]
    assert best_first([], [], [], []).tolist() == []


def prints(total):
    return Fingerprints(pa.table({}), **zeros(total))


def test_equal_fingerprints_are_twins_of_the_first_in_order():
    found = prints(6)
    found.hashes[4] = 7
    assert twins(found, np.array([3, 1, 5, 4, 0])).tolist() == [3, 3, 2, 3, 4, 3]
    assert twins(found, np.array([], np.int64)).tolist() == list(range(6))


@pytest.mark.parametrize("name", ["hashes", "trim", "grey", "colour"])
def test_images_that_differ_in_any_part_are_no_twins(name):
    found = prints(2)
    getattr(found, name)[1].flat[-1] = 1
    assert name in ARRAYS
    assert twins(found, np.arange(2)).tolist() == [0, 1]


def test_twins_are_members_of_the_first_ones_star():
    star = stars([0, 1, 0, 3], [0, 0, 6, 0], [1, 1, 0.5, 1], [1, -1, -1, -1])
    star.capped[:] = [True, False, False, False]
    found = with_twins(star, np.array([0, 0, 2, 2]))
    assert found.centre.tolist() == [0, 0, 0, 0]
    assert found.distance.tolist() == [0, 0, 6, 6]
    assert found.similarity.tolist() == [1, 1, 0.5, 0.5]
    assert found.resembles.tolist() == [1, -1, -1, -1]
    assert found.capped.tolist() == [True, False, False, False]


def test_bits_between_two_images_are_those_of_their_nearest_keys():
    one = np.array([[0, 0xFF00, 0xFFFFFF, 0xFFFFFFFF]], np.uint64)
    other = np.array([[0xFFFF, 0xFFF0, 0xFF01, 0xFFF7]], np.uint64)
    assert bits_apart(one, other).tolist() == [1]  # trimmed of the one, centre of the other
    assert bits_apart(other, one).tolist() == [1]
