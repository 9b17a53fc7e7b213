"""Weights that balance moments: the optimum of a convex problem, and how its penalty is chosen."""

import numpy as np
import pytest
from scipy.optimize import minimize

from kd3_pipeline.embed import balance as module
from kd3_pipeline.embed.balance import WORTH, _Blocks, _solved, _values, balance


def shifted(count: int, width: int, by: float, seed: int = 0) -> np.ndarray:
    """Moments of images of which each third is as wanted and the others are shifted in all."""
    draws = np.random.default_rng(seed).normal(size=(count, width))
    draws[np.arange(count) % 3 > 0] += by
    return (draws / np.sqrt(width)).astype(np.float16)


def spread(weights: np.ndarray) -> float:
    """N / N_eff of weights of mean 1."""
    return float(np.mean(weights**2))


def solved(moments: np.ndarray, penalty: float) -> np.ndarray:
    """The best weights for a penalty."""
    start = np.append(np.zeros(moments.shape[1]), 1.0)
    return _values(moments.astype(np.float32), _solved(_Blocks(moments), start, penalty))


def error(moments: np.ndarray, weights: np.ndarray) -> float:
    return float(np.linalg.norm(weights @ moments.astype(np.float64) / len(weights)))


def test_the_dual_has_the_optimum_of_the_problem_itself():
    moments, penalty = shifted(30, 3, 1.5), 0.05

    def primal(weights: np.ndarray) -> float:
        return 0.5 * error(moments, weights) ** 2 + 0.5 * penalty * (spread(weights) - 1)

    mean_of_one = {"type": "eq", "fun": lambda weights: weights.mean() - 1}
    best = minimize(
        primal,
        np.ones(30),
        method="SLSQP",
        bounds=[(0, None)] * 30,
        constraints=mean_of_one,
        options={"ftol": 1e-12, "maxiter": 500},
    )
    found = solved(moments, penalty)
    assert best.success and (found == 0).any()
    np.testing.assert_allclose(found, best.x, atol=5e-3)


def test_the_penalty_is_that_at_which_halving_the_images_takes_a_tenth_off_the_error():
    # all are shifted, in so many directions that no weights can undo it
    moments = np.random.default_rng(0).normal(0.8, 1, (2000, 48)).astype(np.float16) / np.float16(7)
    found = balance(moments, least=0)
    assert found.after > 0.5 * found.before
    assert found.penalty == pytest.approx(
        2 * WORTH * found.after**2 * found.effective / 2000, rel=0.05
    )

    def cost(penalty: float) -> float:
        weights = solved(moments, penalty)
        return np.log(error(moments, weights)) + WORTH * np.log(spread(weights))

    # there it is level, and above it was falling
    here = cost(found.penalty)
    assert cost(0.9 * found.penalty) == pytest.approx(here, abs=1e-3)
    assert here < cost(2 * found.penalty) - 1e-3 < cost(4 * found.penalty) - 1e-2


def test_images_as_they_are_wanted_are_raised_above_the_others():
    moments = shifted(900, 8, 2.0)
    found = balance(moments)
    assert found.weights.dtype == np.float32 and found.weights.min() >= 0
    assert found.weights.mean() == pytest.approx(1, abs=1e-5)
    assert found.after < 0.6 * found.before
    assert found.before == pytest.approx(error(moments, np.ones(900)), rel=1e-3)
    assert found.after == pytest.approx(error(moments, found.weights), rel=1e-2)
    wanted = np.arange(900) % 3 == 0
    assert found.weights[wanted].mean() > 3 * found.weights[~wanted].mean()
    squares = found.weights.astype(np.float64) ** 2
    assert found.effective == pytest.approx(900**2 / squares.sum(), rel=1e-3)


def test_moments_that_are_as_wanted_but_for_chance_leave_the_weights_even():
    moments = np.random.default_rng(3).normal(size=(400, 4)) / 2
    found = balance((moments - moments.mean(0)).astype(np.float16))
    assert (found.weights == 1).all()
    assert (found.penalty, found.effective) == (0.0, 400)


def test_a_web_that_is_hardly_ever_as_wanted_still_leaves_half_of_its_images():
    draws = np.random.default_rng(0).normal(4, 1, (2000, 2))
    draws[:10] -= 4
    moments = (draws / 2**0.5).astype(np.float16)
    found = balance(moments)
    assert found.before > found.after > 1 and found.held
    assert found.effective == pytest.approx(1000, rel=0.021) and found.effective >= 1000
    assert found.weights[:10].mean() > 5
    # it is the optimum of its penalty, and a smaller one would leave fewer
    np.testing.assert_allclose(solved(moments, found.penalty), found.weights, atol=0.05)
    assert 2000 / spread(solved(moments, 0.7 * found.penalty)) < 1000


def test_so_many_images_are_left_as_are_asked_for():
    moments = shifted(3000, 8, 3.0)
    freely = balance(moments, least=0)
    for least in (1500, 2600):
        found = balance(moments, least=least)
        assert least <= found.effective <= 1.021 * least
        assert found.before > found.after > freely.after
        assert found.held
    assert freely.effective < 1500 and not freely.held
    assert balance(moments, least=100).effective == pytest.approx(freely.effective)


def test_blocks_that_are_read_again_each_time_give_the_same(monkeypatch):
    moments = shifted(500, 6, 1.0)
    held = balance(moments)
    monkeypatch.setattr(module, "HELD", 0)
    monkeypatch.setattr(module, "BLOCK", 64)
    np.testing.assert_allclose(balance(moments).weights, held.weights, rtol=1e-2)


def test_one_image_far_from_all_others_overflows_nothing():
    moments = shifted(200, 4, 1.0)
    moments[7] = 60_000
    found = balance(moments)
    assert np.isfinite(found.weights).all() and found.weights[7] == 0
