import itertools

import pytest
import torch
from torch import Tensor

from kd3_pipeline.distill.views import Views, draws, views_of
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import draw_boxes, normalise, pad_crop
from tests.crops import resized_crop

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


def places(side: int) -> Tensor:
    """Pixels that say where they are: row in red, column in green."""
    at = torch.arange(side, dtype=torch.uint8)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([rows, columns, columns], dim=2).expand(300, side, side, 3)


def larger(crop: str, side: int, flip: bool = False, scale: float = 0.08) -> Views:
    section = Distill(crop=crop, flip=flip, crop_scale=scale)
    return Views(section, [0.0] * 3, [1.0] * 3, side)


def shown(found: Tensor) -> Tensor:
    return (found * 255).round().long()


@pytest.mark.parametrize(("stored", "side"), [(20, 16), (21, 16), (17, 16)])
def test_a_padded_crop_of_larger_pixels_is_any_part_of_them_and_nothing_made_up(stored, side):
    found = shown(larger("pad", side).cropped(places(stored), source()))
    assert found.shape == (300, 3, side, side)
    top, left = found[:, 0, 0, 0], found[:, 1, 0, 0]
    assert set(top.tolist()) == set(left.tolist()) == set(range(stored - side + 1))
    at = torch.arange(side)
    assert torch.equal(found[:, 0], (top[:, None, None] + at[:, None]).expand(300, side, side))
    assert torch.equal(found[:, 1], (left[:, None, None] + at).expand(300, side, side))


@pytest.mark.parametrize(("stored", "side"), [(20, 16), (21, 16), (16, 16)])
def test_whole_images_are_the_centres_of_larger_pixels(stored, side):
    margin = (stored - side) // 2
    whole = shown(larger("pad", side).whole(places(stored)))
    assert whole[0, 0, :, 0].tolist() == whole[0, 1, 0].tolist() == [*range(margin, margin + side)]
    assert torch.equal(shown(larger("none", side).cropped(places(stored), source())), whole)
    mirrored = shown(larger("none", side, flip=True).cropped(places(stored), source()))
    assert {tuple(one) for one in mirrored[:, 1, 0].tolist()} == {
        (*range(margin, margin + side),),
        (*reversed(range(margin, margin + side)),),
    }


def test_resized_crops_of_larger_pixels_are_of_all_of_them_and_the_teachers_side():
    found = shown(larger("resized", 16, scale=0.3).cropped(places(24), source()))
    assert found.shape == (300, 3, 16, 16)
    least = draw_boxes(300, 24, source(), (0.3, 1.0))[:2]
    assert torch.allclose(found[:, 0, 0, 0].double(), least[0].double(), atol=1)
    assert torch.allclose(found[:, 1, 0, 0].double(), least[1].double(), atol=1)
    assert found[:, 0].max() == 23 and found[:, 0].min() == 0


@pytest.mark.parametrize("crop", ["pad", "resized", "none"])
@pytest.mark.parametrize("stored", [16, 20])
def test_crops_that_were_drawn_before_may_be_cut_in_any_order(crop, stored):
    of, all_pixels = larger(crop, 16, flip=True), pixels(stored)
    at_once = of.cropped(all_pixels, source())
    drawn = of.draw(COUNT, stored, source())
    assert drawn.shape[1] == COUNT and drawn.dtype == torch.int64
    rows = torch.tensor([7, 0, 59, 7])
    assert torch.equal(of.cut(all_pixels[rows], drawn[:, rows]), at_once[rows])


def test_pixels_smaller_than_the_teachers_input_are_refused():
    config = ModelConfig({}, [], MEAN, STD, 16, "a test")
    assert views_of(Distill(), config, 20).side == 16
    with pytest.raises(UserError, match="have 15 pixels a side, the teacher takes 16: run"):
        views_of(Distill(), config, 15)


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
