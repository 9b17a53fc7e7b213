"""Weights of images by which their mean moments come near to what is wanted: a convex problem."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

# what losing images may cost: halving them has to take a tenth off the error (0.9 = 2^-0.15)
WORTH = 0.15
# Effective images that are left at least, however far off all are: students of fewer were worse
# than those of even weights, by more than the nearer moments brought (benchmarks/RESULTS.md)
ENOUGH, LEAST = 10_000, 0.5  # of fewer than 20,000 that share of them
CLOSE = 0.02  # of the least number, to which the penalty that leaves it is found
NEAR = 0.02  # change of the penalty at which it has settled
ROUNDS = 40  # of which usually ten are needed
STEEP = 1e-5  # largest slope that is left
STEPS = 300  # of L-BFGS for one penalty
BLOCK = 16_384  # rows in memory at a time
HELD = 2**27  # numbers that are held in memory as float32, so that the file is read once


@dataclass(frozen=True)
class Balance:
    """Weights of N images.

    Attributes:
        weights: float32 [N], on average 1, none below 0.
        penalty: τ of `balance`, as it was chosen.
        before, after: length of the mean of the moments, unweighted and weighted.
        effective: (Σw)² / Σw², the number of images that tell as much (Kish, 1965).
        held: whether fewer would be left by the rule, and these are the fewest allowed.
    """

    weights: np.ndarray
    penalty: float
    before: float
    after: float
    effective: float
    held: bool


def balance(
    moments: np.ndarray,
    told: Callable[[str], object] = lambda text: None,
    least: float | None = None,
) -> Balance:
    """Weights that bring the weighted mean of `moments` near zero and stay near to even ones.

    They minimise, over v ≥ 0 with (1/N) Σ v_i = 1,

        ½ ‖(1/N) Σ v_i m_i‖² + ½ τ ((1/N) Σ v_i² − 1),

    where (1/N) Σ v_i² = N / N_eff, N_eff being the effective number (stable balancing weights,
    Zubizarreta, JASA 2015, with a soft constraint). The dual problem has an unknown for each of the
    K directions and one more, none for an image, and no constraint:

        minimise over u, l   ½ τ ‖u‖² − l + (1/2N) Σ max(0, l − m_i·u)²,   v_i = max(0, l − m_i·u).

    It is convex, so what comes out depends on no start, rate or number of steps. A penalty on the
    entropy in place of N_eff gives v_i ∝ exp(−m_i·u): moments have long tails, and a few images got
    all the weight.

    The penalty follows from no label: of all τ that one is taken for which ln e + `WORTH` ln(N /
    N_eff) has its first minimum, with e the length of the weighted mean, where τ = 2 `WORTH` e²
    N_eff / N. So the weights part from even ones as long as halving the effective number takes a
    tenth off the error. They part no further where the error is no more than that of as many
    images drawn at random, 1/√N_eff. Where they would leave fewer than `least` effective images,
    that τ is taken which leaves so many.

    Args:
        moments: float [N, K], may be a memory map; less what is wanted, in such a unit that an
            image has a deviation of about 1 over all K together.
        told: called with how far it is.
        least: effective images at least; None: `ENOUGH`, or `LEAST` of all if those are fewer.
    """
    least = min(ENOUGH, LEAST * len(moments)) if least is None else least
    every, total = _Blocks(moments), len(moments)
    unknowns = np.append(np.zeros(moments.shape[1]), 1.0)  # u and l of even weights
    mean, *_ = _sums(every, unknowns)
    before = error = float(np.linalg.norm(mean))
    penalty, effective, held = math.inf, float(total), False
    for _ in range(ROUNDS):
        wanted = 2 * WORTH * error**2 * effective / total
        if error**2 <= 1 / effective or wanted > (1 - NEAR) * penalty:
            break
        tried = _solved(every, unknowns, wanted)
        if held := _effective(every, tried) < least:
            wanted, tried = _leaving(every, unknowns, (wanted, penalty), least)
        penalty, unknowns = wanted, tried
        mean, whole, _ = _sums(every, unknowns)
        error = float(np.linalg.norm(mean / whole))
        effective = _effective(every, unknowns)
        told(f"error {before:.3f} → {error:.3f}, effective {effective:,.0f} of {total:,}")
        if held:
            break
    weights = np.concatenate([_values(block, unknowns) for block in every])
    weights = (weights / weights.mean()).astype(np.float32)
    penalty = 0.0 if math.isinf(penalty) else penalty
    return Balance(weights, penalty, before, error, effective, held)


def _solved(every: "_Blocks", start: np.ndarray, penalty: float) -> np.ndarray:
    """The u and l that minimise the dual for a penalty, float64 [K + 1]."""

    def dual(unknowns: np.ndarray) -> tuple[float, np.ndarray]:
        mean, whole, squares = _sums(every, unknowns)
        u, level = unknowns[:-1], float(unknowns[-1])
        value = 0.5 * penalty * float(u @ u) - level + 0.5 * squares
        return value, np.append(penalty * u - mean, whole - 1)

    options = {"gtol": STEEP, "maxiter": STEPS}
    return minimize(dual, start, jac=True, method="L-BFGS-B", options=options).x


def _leaving(
    every: "_Blocks", start: np.ndarray, between: tuple[float, float], least: float
) -> tuple[float, np.ndarray]:
    """The penalty that leaves `least` effective images, and its u and l, by bisection.

    Args:
        start: u and l that leave as many or more.
        between: penalties of which the first leaves fewer, and the second, which may be infinite,
            does not.
    """
    low, high = between
    found = start
    if math.isinf(high):
        high = low
        while _effective(every, found := _solved(every, start, high)) < least:
            low, high = high, 4 * high
    for _ in range(ROUNDS):
        effective = _effective(every, found)
        if least <= effective <= (1 + CLOSE) * least or high / low < 1 + CLOSE**2:
            break
        middle = math.sqrt(low * high)
        tried = _solved(every, found, middle)
        if _effective(every, tried) < least:
            low = middle
        else:
            high, found = middle, tried
    return high, found


def _effective(every: "_Blocks", unknowns: np.ndarray) -> float:
    """(Σv)² / Σv²."""
    _, whole, squares = _sums(every, unknowns)
    return every.rows * whole**2 / squares


def _values(block: np.ndarray, unknowns: np.ndarray) -> np.ndarray:
    """v of the images of a block, float64 [B]."""
    along = block @ unknowns[:-1].astype(np.float32)
    return np.maximum(0, unknowns[-1] - along.astype(np.float64))


def _sums(every: Iterable[np.ndarray], unknowns: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(1/N) Σ v m, float64 [K], (1/N) Σ v and (1/N) Σ v², in one pass."""
    rows, whole, squares, mean = 0, 0.0, 0.0, np.zeros(len(unknowns) - 1)
    for block in every:
        values = _values(block, unknowns)
        whole += float(values.sum())
        squares += float(values @ values)
        mean += values.astype(np.float32) @ block
        rows += len(block)
    return mean / rows, whole / rows, squares / rows


class _Blocks:
    """Blocks of rows as float32: held in memory if they are few, else read again each time."""

    def __init__(self, moments: np.ndarray) -> None:
        self._moments = moments
        self.rows = len(moments)
        self._held = list(self._read()) if moments.size <= HELD else None

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._held) if self._held is not None else self._read()

    def _read(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._moments), BLOCK):
            yield self._moments[start : start + BLOCK].astype(np.float32)
