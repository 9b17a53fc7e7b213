import itertools

import pytest
import torch
from torch import Tensor

from pipeline.distill.views import Views, draws
from pipeline.params import Distill
from pipeline.pixels import draw_boxes, normalise, pad_crop, resized_crop

SIDE = 16
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
COUNT = 60


def views(crop: str = "pad", scale: float = 0.08, flip: bool = False) -> Views:
    return Views(Distill(crop=crop, crop_scale=scale, flip=flip), MEAN, STD)


def pixels(side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (COUNT, side, side, 3), generator=generator, dtype=torch.uint8)


def source(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*counters: int) -> list[float]:
    return torch.rand(4, generator=draws(*counters)).tolist()


@pytest.mark.parametrize("crop", ["pad", "resized", "none"])
def test_whole_images_are_normalised_and_nothing_else(crop):
    found = views(crop, flip=True).whole(pixels())
    assert found.shape == (COUNT, 3, SIDE, SIDE)
    expected = (pixels().permute(0, 3, 1, 2).double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / (
        torch.tensor(STD).view(3, 1, 1)
    )
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [16, 32, 7])
def test_a_padded_crop_moves_images_by_an_eighth_at_most(side):
    column = torch.arange(side, dtype=torch.uint8)[None, None, :, None].expand(300, side, side, 3)
    plain = Views(Distill(crop="pad"), [0.0] * 3, [1.0] * 3)
    found = (plain.cropped(column, source()) * 255).round().int()
    middle = found[:, 0, side // 2, side // 2] - side // 2
    pad = side // 8
    assert set(middle.tolist()) == set(range(-pad, pad + 1))


@pytest.mark.parametrize("flip", [True, False])
def test_padded_crops_are_those_of_the_pixels_normalised(flip):
    expected = normalise(pad_crop(pixels(), source(), SIDE // 8, flip), MEAN, STD)
    assert torch.equal(views("pad", flip=flip).cropped(pixels(), source()), expected)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("scale", [0.08, 0.6])
def test_resized_crops_show_no_less_than_their_scale(scale, flip):
    expected = normalise(resized_crop(pixels(), source(), flip, (scale, 1.0)), MEAN, STD)
    assert torch.equal(views("resized", scale, flip).cropped(pixels(), source()), expected)
    areas = draw_boxes(COUNT, SIDE, source(), (scale, 1.0))[2:].prod(dim=0) / SIDE**2
    assert areas.min() > 0.8 * scale
    assert areas.max() > 0.85


def test_without_a_crop_images_are_whole():
    of = views("none", scale=0.1)
    assert torch.equal(of.cropped(pixels(), source()), of.whole(pixels()))


def test_without_a_crop_images_may_still_be_mirrored():
    of = views("none", flip=True)
    whole, found = of.whole(pixels()), of.cropped(pixels(), source())
    plain = (found == whole).flatten(1).all(dim=1)
    mirrored = (found == whole.flip(3)).flatten(1).all(dim=1)
    assert (plain ^ mirrored).all()
    assert 15 < mirrored.sum() < 45


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_crops_are_of_the_generator_alone_and_leave_the_pixels_as_they_are(crop):
    of, given, state = views(crop, flip=True), pixels(), torch.get_rng_state()
    first = of.cropped(given, source(1))
    assert torch.equal(first, of.cropped(given, source(1)))
    assert not torch.equal(first, of.cropped(given, source(2)))
    assert torch.equal(given, pixels())
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_counters_give_the_same_draws():
    assert numbers(0, 1, 2) == numbers(0, 1, 2)
    generator = draws(0, 1, 2)
    assert generator.device.type == "cpu"
    assert generator is not draws(0, 1, 2)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_any_other_counter_gives_other_draws(place):
    counters = [5, 3, 8]
    found = [numbers(*counters)]
    for change in (-1, 1, 7, 2**32, 2**33):
        other = counters.copy()
        other[place] += change
        found.append(numbers(*other))
    assert all(one != other for one, other in itertools.combinations(found, 2))


def test_the_order_and_the_number_of_the_counters_matter():
    places = [(1, 2), (2, 1), (12,), (1, 2, 0), (0, 1, 2), (1,), (2,), (3,), (1, 0, 2), (0,), ()]
    found = [numbers(*counters) for counters in places]
    assert all(one != other for one, other in itertools.combinations(found, 2))


def test_no_two_steps_of_a_run_draw_the_same():
    grid = itertools.product(range(3), range(1, 13), range(30))
    seeds = [draws(*counters).initial_seed() for counters in grid]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)  # torch uses 32 bits on the CPU


def test_neighbouring_steps_draw_independently():
    first = torch.tensor([numbers(0, 1, step)[0] for step in range(2000)])
    assert first.mean().item() == pytest.approx(0.5, abs=0.03)
    pairs = torch.stack([first[:-1], first[1:]])
    assert torch.corrcoef(pairs)[0, 1].abs() < 0.08


@pytest.mark.parametrize(
    "counters", [(2**32 - 1, 10**6, 2**32 + 10**6), (2**64 - 1,) * 3, (2**200,), (0,), (-1,)]
)
def test_large_counters_are_valid_seeds(counters):
    assert 0 <= draws(*counters).initial_seed() < 2**64
    assert len(set(numbers(*counters))) == 4
