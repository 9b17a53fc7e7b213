import math

import pytest
import torch
from torch.autograd import gradcheck

from kd3_pipeline.kd3 import draw_mixture, mix_distribution
from kd3_pipeline.kd3.mixing import _beta


def batch(count: int = 6, side: int = 8, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    scale = torch.rand(count, 3, 1, 1, generator=generator, dtype=torch.float64) + 0.5
    return (scale * torch.randn(count, 3, side, side, generator=generator) + scale).to(dtype)


def statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(images, dim=(2, 3))
    return mean, (variance + 1e-6).sqrt()


def test_the_published_mixture_is_reproduced(golden):
    found = mix_distribution(golden["mix_input"], golden["mix_lambda"], golden["mix_permutation"])
    golden.matches(found, "mix_output")


def test_torch_has_the_private_function_that_draws_gamma_variates():
    assert hasattr(torch, "_standard_gamma"), (
        f"torch {torch.__version__} has no _standard_gamma any more: the gamma variates of"
        " pipeline/kd3/mixing.py have to be drawn otherwise, from a generator of one's own"
    )


def test_lambda_one_is_the_identity():
    images = batch()
    found = mix_distribution(images, torch.ones(6), torch.arange(6).roll(1))
    torch.testing.assert_close(found, images, rtol=1e-12, atol=1e-12)


def test_lambda_zero_takes_over_the_statistics_of_the_other_image():
    images, other = batch(), torch.arange(6).roll(1)
    found = mix_distribution(images, torch.zeros(6), other)
    for ours, theirs in zip(statistics(found), statistics(images[other]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    mean, deviation = (value[..., None, None] for value in statistics(images))
    their_mean, their_deviation = (value[..., None, None] for value in statistics(images[other]))
    expected = (images - mean) / deviation * their_deviation + their_mean
    torch.testing.assert_close(found, expected)


def test_an_image_mixed_with_itself_stays():
    images = batch()
    torch.testing.assert_close(mix_distribution(images, torch.rand(6), torch.arange(6)), images)


def test_constant_images_give_finite_results():
    images = torch.ones(4, 3, 8, 8) * torch.arange(4.0).view(4, 1, 1, 1)
    found = mix_distribution(images, torch.zeros(4), torch.tensor([1, 0, 3, 2]))
    torch.testing.assert_close(found, images[[1, 0, 3, 2]])
    mixed = torch.cat([images[:2], batch(2, dtype=torch.float32)])
    assert mix_distribution(mixed, torch.zeros(4), torch.tensor([2, 3, 0, 1])).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_of_the_images_is_kept(dtype):
    found = mix_distribution(batch(dtype=dtype), generator=torch.Generator().manual_seed(0))
    assert found.dtype == dtype
    assert found.isfinite().all()


def test_draws_are_of_the_generator_alone():
    images = batch()
    same = [mix_distribution(images, generator=torch.Generator().manual_seed(5)) for _ in "ab"]
    other = mix_distribution(images, generator=torch.Generator().manual_seed(6))
    assert torch.equal(*same)
    assert not torch.equal(same[0], other)
    state = torch.get_rng_state()
    mix_distribution(images, generator=torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("alpha", [0.0001, 0.001, 0.1, 1.0, 4.0])
def test_lambda_is_beta_distributed(alpha):
    drawn = _beta(alpha, 20_000, torch.Generator().manual_seed(1))
    assert drawn.isfinite().all()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean().item() == pytest.approx(0.5, abs=5 * (variance / 20_000) ** 0.5)
    assert drawn.var().item() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5])
def test_lambda_is_near_its_ends_as_often_as_the_density_says(alpha):
    # near 0 the density is l^(α−1) / B(α, α), so P(λ < l) = l^α / (α B(α, α))
    drawn, end = _beta(alpha, 20_000, torch.Generator().manual_seed(2)), 1e-4
    share = end**alpha * math.gamma(2 * alpha) / (alpha * math.gamma(alpha) ** 2)
    spread = (share * (1 - share) / 20_000) ** 0.5
    assert (drawn < end).double().mean().item() == pytest.approx(share, abs=5 * spread)
    assert (drawn > 1 - end).double().mean().item() == pytest.approx(share, abs=5 * spread)


@pytest.mark.parametrize("alpha", [0.0001, 0.001])
def test_a_tiny_alpha_picks_the_statistics_of_one_of_two_images(alpha):
    images, other = batch(64), torch.arange(64).roll(1)
    drawn = [
        mix_distribution(
            images, None, other, alpha=alpha, generator=torch.Generator().manual_seed(4)
        )
        for _ in "ab"
    ]
    assert torch.equal(*drawn)
    own, lent = images.mean(dim=(2, 3)), images[other].mean(dim=(2, 3))
    found = drawn[0].mean(dim=(2, 3))
    is_own = (found - own).abs().amax(dim=1) < 1e-6
    is_lent = (found - lent).abs().amax(dim=1) < 1e-6
    assert (is_own | is_lent).sum() >= 62
    assert 16 < is_own.sum() < 48


def test_a_batch_of_one_image_stays_as_it_is():
    images = batch(1)
    found = mix_distribution(images, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, images)


def test_a_batch_laid_out_otherwise_is_mixed_the_same():
    images, lam, other = batch(), torch.rand(6), torch.arange(6).roll(1)
    expected = mix_distribution(images, lam, other)
    wide = torch.zeros(6, 3, 8, 16, dtype=images.dtype)
    wide[..., ::2] = images
    layouts = (images.contiguous(memory_format=torch.channels_last), wide[..., ::2])
    for layout in layouts:
        torch.testing.assert_close(mix_distribution(layout, lam, other), expected)


def test_the_same_is_drawn_on_every_device(device):
    images = batch(dtype=torch.float32)
    expected = mix_distribution(images, generator=torch.Generator().manual_seed(5))
    found = mix_distribution(images.to(device), generator=torch.Generator().manual_seed(5))
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_not_waited_for():
    images = batch().cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        mix_distribution(images, generator=torch.Generator().manual_seed(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_gradient_of_mixing_is_right():
    images = batch(3, 3).requires_grad_()
    lam, other = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([2, 0, 1])
    assert gradcheck(lambda x: mix_distribution(x, lam, other), (images,))


# function matching


def drawn(how: str, count: int = 6, side: int = 8, seed: int = 0):
    return draw_mixture(how, count, side, torch.Generator().manual_seed(seed))


def test_mixup_is_a_sum_of_two_images_with_a_share_of_their_own():
    images, mixture = batch(), drawn("mixup")
    for number, found in enumerate(mixture.of(images)):
        share, partner = mixture.share[number].double(), mixture.partner[number]
        expected = share * images[number] + (1 - share) * images[partner]
        torch.testing.assert_close(found, expected)


def test_the_shares_of_mixup_are_uniform_and_partners_a_permutation():
    mixture = drawn("mixup", 20_000)
    assert torch.equal(mixture.partner.sort().values, torch.arange(20_000))
    assert mixture.share.mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert mixture.share.var().item() == pytest.approx(1 / 12, abs=0.002)


def test_half_mixes_every_second_image_alone():
    images, mixture = batch(), drawn("half")
    found = mixture.of(images)
    assert torch.equal(found[::2], images[::2])
    whole = drawn("mixup").of(images)
    assert torch.equal(found[1::2], whole[1::2])


def test_cutmix_takes_every_pixel_from_one_of_the_two():
    images, mixture = batch(40, 16), drawn("cutmix", 40, 16)
    found = mixture.of(images)
    for number in range(40):
        top, bottom, left, right = mixture.box[:, number].tolist()
        expected = images[number].clone()
        lent = images[mixture.partner[number], :, top:bottom, left:right]
        expected[:, top:bottom, left:right] = lent
        assert torch.equal(found[number], expected)


def test_boxes_of_cutmix_have_the_area_drawn_but_for_what_the_border_cuts_off():
    mixture = drawn("cutmix", 20_000, 64)
    top, bottom, left, right = mixture.box
    assert (top >= 0).all() and (left >= 0).all() and (bottom <= 64).all() and (right <= 64).all()
    height, width = bottom - top, right - left
    inside = (top > 0) & (bottom < 64) & (left > 0) & (right < 64)
    assert torch.equal(height[inside], width[inside])
    assert (height <= 64).all() and (width <= 64).all()
    # λ ~ U(0, 1) has a side of 64 √(1 − λ), whose mean is 64 · 2/3; a cut box is shorter
    assert 64 * 0.4 < height.double().mean().item() < 64 * 2 / 3


@pytest.mark.parametrize("how", ["mixup", "cutmix", "half"])
def test_a_mixed_image_counts_as_its_parts_do(how):
    mixture = drawn(how, 40, 16)
    weights = torch.rand(40, dtype=torch.float64)
    # an image of its own weight everywhere, mixed, has the weight of the mixture as its mean
    flat = weights.view(-1, 1, 1, 1).expand(40, 1, 16, 16)
    expected = mixture.of(flat).mean(dim=(1, 2, 3))
    torch.testing.assert_close(mixture.of_weights(weights), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ["mixup", "cutmix", "half"])
def test_mixtures_are_drawn_of_the_generator_alone(how):
    images = batch()
    state = torch.get_rng_state()
    one, again, other = (drawn(how, seed=seed).of(images) for seed in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_mixture_keeps_the_dtype():
    assert drawn("mixup").of(batch(dtype=torch.float32)).dtype == torch.float32
