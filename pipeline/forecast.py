"""Forecast of agreement: what a longer training would bring, from the curve of one that ended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FORETELLING = ("lr", "agreement", "seconds")  # columns of the training log that it is made of
HOUR = 3600.0
FEWEST = 10  # epochs from which anything is foretold
LEFT_OUT = 0.2  # of the epochs, the first: the learning rate rises there
EXPONENTS = np.linspace(0.05, 2.0, 40)
DRAWS, SEED = 40_000, 20
FEWEST_DRAWS = 200  # of these that are no contradiction


@dataclass(frozen=True)
class Forecast:
    """What more training would bring to the agreement on held-out images.

    Attributes:
        seconds: more than this run's; an hour, or as long again where the run took less.
        gain, low, high: shares, the median and the ends of a 95% interval.
    """

    seconds: float
    gain: float
    low: float
    high: float

    def told(self) -> str:
        """The forecast in words."""
        gain, low, high = (f"{100 * value:+.1f}" for value in (self.gain, self.low, self.high))
        return (
            f"{more_time(self.seconds)} would bring {gain} points of agreement (95% interval {low}"
            f" to {high}, if the curve goes on as it went)"
        )


def more_time(seconds: float) -> str:
    """Further training time in words: `another hour`, `another 20 minutes`."""
    if seconds >= HOUR:
        return "another hour"
    if seconds < 90:
        return f"another {max(1, round(seconds))} s"
    return f"another {round(seconds / 60)} minutes"


def forecast(
    rates: Sequence[float], agreements: Sequence[float | None], seconds: Sequence[float]
) -> Forecast | None:
    """Forecast for the same schedule over a longer time; None where the curve does not tell.

    The share of held-out images on which student and teacher differ is taken to be

        1 − a(S, η) = E + A S^(−α) + C η,

    S the sum of the learning rates so far and η the one at the moment: what is left in the end,
    what is not yet learnt, and the noise of large steps, which is gone when the rate has fallen. It
    is the form of Tissue et al., "Scaling Law with Learning Rate Annealing" (arXiv 2408.11029),
    with a memory of one epoch for the annealing. A run that is r times as long has r times the S
    and ends at the same η, so it gains A S^(−α) (1 − r^(−α)).

    Least squares give E, A and C for each α; the interval is that of draws from the posterior
    under flat priors for the gain, the end, C and α, none of them negative.

    Args:
        rates: learning rate at the end of each epoch; epochs are equally long.
        agreements: with the teacher on held-out images after it, 0 to 1; None or NaN: not measured.
        seconds: that it took.
    """
    known = [value is not None and math.isfinite(value) for value in agreements]
    total = float(np.sum(seconds))
    if len(known) < FEWEST or not all(known) or not total > 0 or not min(rates) >= 0:
        return None
    more = min(HOUR, total)
    ratio = (total + more) / total
    behind = np.cumsum(np.array(rates, float))
    first = math.ceil(LEFT_OUT * len(known))
    if not behind[first] > 0:
        return None
    rate = np.array(rates, float)[first:] / max(rates)
    left = 1 - np.array(agreements, float)[first:]
    gains = _draws(behind[first:] / behind[-1], rate, left, ratio)
    if len(gains) < FEWEST_DRAWS:
        return None
    low, gain, high = np.quantile(gains, (0.025, 0.5, 0.975))
    return Forecast(more, float(gain), float(low), float(high))


def _draws(behind: np.ndarray, rate: np.ndarray, left: np.ndarray, ratio: float) -> np.ndarray:
    """Gains drawn from their posterior, float64 [up to `DRAWS`].

    Args:
        behind: sum of learning rates at each point, relative to the last one's.
        rate: learning rates, relative to the highest.
        left: share of images on which the networks differ.
        ratio: how many times as long the foretold run is.
    """
    generator = np.random.default_rng(SEED)
    fits = [_fit(alpha, behind, rate, left, ratio) for alpha in EXPONENTS]
    weights = np.array([one[0] for one in fits])
    weights = np.exp(weights - weights.max())
    counts = generator.multinomial(DRAWS, weights / weights.sum())
    freedom = len(left) - 3
    found = []
    for alpha, count, (_, best, root, squares) in zip(EXPONENTS, counts, fits, strict=True):
        variance = squares / generator.chisquare(freedom, count)
        drawn = best + np.sqrt(variance)[:, None] * (generator.standard_normal((count, 3)) @ root.T)
        end, gain, noise = drawn.T
        scale = gain / (1 - ratio**-alpha)  # A, with S of the run's end as unit
        possible = (gain >= 0) & (noise >= 0) & (end >= scale)
        found.append(gain[possible])
    return np.concatenate(found)


def _fit(
    alpha: float, behind: np.ndarray, rate: np.ndarray, left: np.ndarray, ratio: float
) -> tuple[float, np.ndarray, np.ndarray, float]:
    """Least squares for one exponent: logarithm of its weight, the best values, a root of their
    covariance for errors of 1, and the sum of squared errors.

    The values are what is left at the end of the run, the gain, and C.
    """
    falling = (behind**-alpha - 1) / (1 - ratio**-alpha)
    # some runs end at one rate throughout: then C has nothing to explain, and little room to
    columns = np.stack([np.ones_like(falling), falling, rate + 1e-9], axis=1)
    gram = columns.T @ columns + 1e-9 * np.eye(3)
    best = np.linalg.solve(gram, columns.T @ left)
    squares = float(((left - columns @ best) ** 2).sum()) + 1e-12
    root = np.linalg.cholesky(np.linalg.inv(gram))
    _, size = np.linalg.slogdet(gram)
    return -0.5 * size - 0.5 * (len(left) - 3) * math.log(squares), best, root, squares
