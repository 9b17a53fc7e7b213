"""Alignment of two pictures by an affine map, from a rough start."""

import math

import numpy as np
import pytest
import torch

from kd3_pipeline.dedup.alignment import aligned, inside, reduced, sampled
from tests.dedup.test_look import photographs

SIDE = 96
SAME = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def moved(image, place):
    """A picture as float32 [96, 96], seen at `place` of its pixels: (x, y) from -1 to 1."""
    levels = torch.tensor(np.asarray(image.convert("L"), np.float32))[None, None]
    half = torch.eye(3)
    half[0, 0] = half[1, 1] = 0.7  # of what there is, so that nothing is seen from beyond
    whole = torch.cat([place, torch.tensor([[0.0, 0, 1]])])
    return sampled(levels, (half @ whole)[None, :2], SIDE)[0, 0]


def turn(degrees, scale=1.0, across=0.0, down=0.0):
    cosine, sine = (scale * f(math.radians(degrees)) for f in (math.cos, math.sin))
    return torch.tensor([[cosine, -sine, across], [sine, cosine, down]])


PLACES = {
    "as it is": SAME,
    "shift": turn(0, 1, 0.06, -0.04),
    "small turn": turn(3),
    "turn": turn(6.5, 1.03, 0.02, 0.01),
    "turn to the right": turn(-6.5),
    "slant": torch.tensor([[1.02, 0.05, 0.0], [0.0, 0.95, 0.02]]),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_map_that_made_a_copy_is_found(name):
    place = PLACES[name]
    one = torch.stack([moved(image, place) for image in photographs()])
    other = torch.stack([moved(image, SAME) for image in photographs()])
    maps, agreement = aligned(one, other, SAME.expand(len(one), 2, 3))
    corners = torch.tensor([[-0.8, 0.8, -0.8, 0.8], [-0.8, -0.8, 0.8, 0.8], [1, 1, 1, 1]])
    off = (maps @ corners - place @ corners).abs().amax(dim=(1, 2))
    assert off.max() < 2.5 / SIDE  # about a pixel
    assert agreement.min() > 0.8


def test_brightness_and_contrast_do_not_matter():
    one = torch.stack([moved(image, turn(3)) for image in photographs()])
    other = torch.stack([moved(image, SAME) for image in photographs()]) * 0.5 + 90
    _, agreement = aligned(one, other, SAME.expand(len(one), 2, 3))
    assert agreement.min() > 0.8


def test_unlike_photographs_agree_little():
    one = torch.stack([moved(image, SAME) for image in photographs()])
    _, agreement = aligned(one, one.roll(1, 0), SAME.expand(len(one), 2, 3))
    assert agreement.max() < 0.6


def test_each_pair_is_aligned_by_itself():
    one = torch.stack([moved(image, turn(5)) for image in photographs()])
    other = torch.stack([moved(image, SAME) for image in photographs()])
    start = SAME.expand(len(one), 2, 3)
    together = aligned(one, other, start)
    alone = [aligned(one[k : k + 1], other[k : k + 1], start[:1]) for k in range(len(one))]
    for place in (0, 1):
        apart = together[place] - torch.cat([found[place] for found in alone])
        assert apart.abs().max() < 1e-3


def test_pictures_that_hardly_overlap_do_not_agree():
    one = moved(photographs()[0], SAME)[None]
    far = torch.tensor([[[1.0, 0, 1.9], [0, 1, 0]]])
    assert inside(far, SIDE).float().mean() < 0.06
    _, agreement = aligned(torch.full_like(one, 128), one, far)
    assert agreement.item() <= 0.3


def test_a_picture_seen_at_its_own_pixels_is_itself():
    image = photographs()[0].convert("L").resize((SIDE, SIDE))
    levels = torch.tensor(np.asarray(image, np.float32))[None]
    assert (sampled(levels[None], SAME[None], SIDE)[0] - levels).abs().max() < 0.01
    assert inside(SAME[None], SIDE).all()


def test_a_smaller_picture_has_the_means():
    levels = torch.arange(16.0).reshape(1, 4, 4)
    assert reduced(levels, 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
