"""Forecasts of agreement, from curves whose continuation is known."""

import numpy as np
import pytest

from kd3_pipeline.distill.learning_rate import learning_rate
from kd3_pipeline.forecast import FEWEST, Forecast, forecast, more_time
from kd3_pipeline.params import Distill

SECTION = Distill(lr=0.6)


def curve(
    epochs: int, left: float = 0.1, scale: float = 0.15, alpha: float = 0.6, noise: float = 0.003
) -> tuple[list[float], list[float], list[float]]:
    """A run of a minute an epoch whose agreement follows the form, with error `scale` to learn."""
    rates = [learning_rate((epoch - 0.05) / epochs, SECTION) for epoch in range(1, epochs + 1)]
    behind = np.cumsum(rates) / sum(rates)
    exact = 1 - (left + scale * behind**-alpha + 0.1 * np.array(rates) / 0.6)
    found = exact + noise * np.random.default_rng(3).standard_normal(epochs)
    return rates, found.tolist(), [60.0] * epochs


def test_what_a_run_of_twice_the_length_gains_lies_in_the_interval():
    for alpha, scale in ((0.3, 0.2), (0.6, 0.15), (1.0, 0.1)):
        found = forecast(*curve(40, alpha=alpha, scale=scale))
        assert found is not None and found.seconds == 40 * 60
        truth = scale * (1 - 2**-alpha)
        assert found.low < truth < found.high, (alpha, found)


def test_a_longer_curve_with_less_noise_tells_more_exactly():
    few, many = forecast(*curve(12)), forecast(*curve(200, noise=0.001))
    assert few is not None and many is not None
    assert many.high - many.low < few.high - few.low


def test_nothing_more_to_learn_is_foretold_as_little():
    found = forecast(*curve(60, scale=0.0, noise=0.001))
    assert found is not None and found.low < 0.001 and found.high < 0.01


def test_no_more_than_an_hour_is_foretold_and_no_more_than_as_long_again():
    rates, agreements, _ = curve(40)
    long = forecast(rates, agreements, [720.0] * 40)  # eight hours
    short = forecast(rates, agreements, [1.0] * 40)
    assert long is not None and short is not None
    assert (long.seconds, short.seconds) == (3600, 40)
    assert long.gain < short.gain


def test_the_same_curve_gives_the_same_forecast():
    assert forecast(*curve(30)) == forecast(*curve(30))


@pytest.mark.parametrize("schedule", ["step", "onecycle"])
def test_any_schedule_will_do(schedule):
    rates = [
        learning_rate((epoch - 0.05) / 30, SECTION.model_copy(update={"schedule": schedule}))
        for epoch in range(1, 31)
    ]
    agreements = [0.8 - 0.3 / (1 + epoch) for epoch in range(30)]
    assert forecast(rates, agreements, [1.0] * 30) is not None


def test_what_is_too_short_or_not_measured_has_no_forecast():
    rates, agreements, seconds = curve(30)
    few = FEWEST - 1
    assert forecast(rates[:few], agreements[:few], seconds[:few]) is None
    assert forecast(rates, [None] * 30, seconds) is None
    assert forecast(rates, [*agreements[:-1], float("nan")], seconds) is None
    assert forecast([0.0] * 30, agreements, seconds) is None
    assert forecast([], [], []) is None


def test_a_curve_that_falls_throughout_has_no_forecast():
    rates, _, seconds = curve(30, noise=0.0)
    assert forecast(rates, [0.9 - 0.02 * at for at in range(30)], seconds) is None


def test_a_forecast_is_told_with_its_interval_and_condition():
    said = Forecast(3600, 0.0081, 0.002, 0.0149).told()
    assert said == (
        "another hour would bring +0.8 points of agreement (95% interval +0.2 to +1.5, if the curve"
        " goes on as it went)"
    )
    assert [more_time(s) for s in (3600, 1190, 40, 0.2)] == [
        "another hour",
        "another 20 minutes",
        "another 40 s",
        "another 1 s",
    ]
