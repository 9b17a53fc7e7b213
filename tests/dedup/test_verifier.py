"""The verifier: the close-ups that it asks for, pictures turned, and what edges alone say."""

import numpy as np
import pytest

from kd3_pipeline.dedup import verifier as module
from kd3_pipeline.dedup.look import FINE, SIDE
from kd3_pipeline.dedup.originals import close_up
from kd3_pipeline.dedup.verifier import _turned, _turned_boxes, verifier
from kd3_pipeline.engine import Engine
from tests.dedup.test_look import jpeg, photographs, prints, sign


@pytest.mark.parametrize("quarters", range(4))
def test_a_box_turns_with_its_picture(quarters):
    picture = np.zeros((1, 20, 20), np.uint8)
    picture[0, 2:6, 10:18] = 1
    box = np.float32([[0.5, 0.1, 0.9, 0.3]])
    turns = np.array([quarters])
    seen = _turned(picture.copy(), turns)
    left, top, right, bottom = np.round(_turned_boxes(box, turns)[0] * 20).astype(int)
    assert seen[0, top:bottom, left:right].all()
    assert seen.sum() == (bottom - top) * (right - left) == 32


def asked_of(files):
    """A verifier, and the pixels a side of all close-ups that it asks for."""
    found, sides = prints(files), []
    of = close_ups_of(found, files)

    def close_ups(rows, side):
        sides.append(side)
        return of(rows, side)

    return found, verifier(found, close_ups), sides


def close_ups_of(found, files):
    return lambda rows, side: np.stack(
        [close_up(files[row], found.cut[row], side) for row in rows.tolist()]
    )


def test_pictures_on_plain_ground_get_a_closer_look_and_unlike_ones_none():
    files = [jpeg(picture) for picture in (sign(30), sign(30), *photographs()[:2])]
    _, verify, sides = asked_of(files)
    assert verify(np.array([0]), np.array([1]))[0] > 0.95
    assert sides == [SIDE, FINE]
    sides.clear()
    verify(np.array([0]), np.array([2]))
    assert sides == []


def test_workers_that_compare_edges_give_the_caller_the_same_bits(monkeypatch):
    files = [jpeg(picture) for picture in (sign(30), sign(30), *photographs()[:2])]
    found, verify, _ = asked_of(files)
    monkeypatch.setattr(module, "LOOKED_AT_ONCE", 256)
    i, j = np.full(300, 2), np.full(300, 3)  # two blocks
    i[[5, 290]], j[[5, 290]] = 0, 1
    j[200] = 0
    expected = verify(i, j)
    with Engine(2) as engine:
        together = verifier(found, close_ups_of(found, files), engine)(i, j)
    assert together.tobytes() == expected.tobytes()
    assert np.flatnonzero(expected > 0.9).tolist() == [5, 290]


def test_without_close_ups_the_edges_of_the_whole_pictures_decide():
    files = [jpeg(picture) for picture in (sign(30), sign(80))]
    found, verify, _ = asked_of(files)
    i, j = np.array([0]), np.array([1])
    by_edges = verifier(found, None)(i, j)[0]
    assert by_edges > 0.8
    assert verify(i, j)[0] < 0.6


def test_the_order_of_two_images_does_not_matter():
    files = [jpeg(picture) for picture in (sign(30), sign(80), *photographs()[:2])]
    _, verify, _ = asked_of(files)
    i, j = np.triu_indices(len(files), 1)
    assert np.array_equal(verify(i, j), verify(j, i))
