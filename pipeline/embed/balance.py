"""Weights of images by which their mean moments come near to what is wanted: a convex problem."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

# what losing images may cost: halving them has to take a tenth off the error (0.9 = 2^-0.15)
WORTH = 0.15
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
    """

    weights: np.ndarray
    penalty: float
    before: float
    after: float
    effective: float


def balance(moments: np.ndarray, told: Callable[[str], object] = lambda text: None) -> Balance:
    """Weights that bring the weighted mean of `moments` near zero and stay near to even ones.

    They minimise, over w ≥ 0 with Σw = 1,

        ½ ‖Σ w_i m_i‖² + τ Σ w_i ln(N w_i),

    which is entropy balancing (Hainmueller, Political Analysis 2012) with a soft constraint. The
    dual problem has an unknown for each of the K directions and none for an image, and no
    constraint:

        minimise over u   ½ τ ‖u‖² + ln (1/N) Σ exp(−m_i·u),   w_i ∝ exp(−m_i·u).

    It is strictly convex, so what comes out depends on no start, rate or number of steps.

    The penalty follows from no label: of all τ that one is taken for which τ = `WORTH` e², with e
    the length of the weighted mean. There ln e + `WORTH` × (the entropy that is lost) is smallest:
    the weights part from even ones as long as halving the images takes a tenth off the error. It
    ends sooner where the error is no more than that of as many images drawn at random, 1/√N_eff.

    Args:
        moments: float [N, K], may be a memory map; less what is wanted, in such a unit that an
            image has a deviation of about 1 over all K together.
        told: called with how far it is.
    """
    every = _Blocks(moments)
    u = np.zeros(moments.shape[1])
    _, mean, effective = _tilted(every, u)
    before = error = float(np.linalg.norm(mean))
    penalty = math.inf
    for _ in range(ROUNDS):
        wanted = WORTH * error**2
        if error**2 <= 1 / effective or wanted > (1 - NEAR) * penalty:
            break
        penalty = wanted
        u = _solved(every, u, penalty)
        _, mean, effective = _tilted(every, u)
        error = float(np.linalg.norm(mean))
        told(f"error {before:.3f} → {error:.3f}, effective {effective:,.0f} of {len(moments):,}")
    exponents = np.concatenate([-(block @ u.astype(np.float32)) for block in every])
    weights = np.exp(exponents.astype(np.float64) - exponents.max())
    weights = (weights / weights.mean()).astype(np.float32)
    return Balance(weights, 0.0 if math.isinf(penalty) else penalty, before, error, effective)


def _solved(every: "_Blocks", start: np.ndarray, penalty: float) -> np.ndarray:
    """The u that minimises the dual for a penalty, float64 [K]."""

    def dual(u: np.ndarray) -> tuple[float, np.ndarray]:
        logarithm, mean, _ = _tilted(every, u)
        return 0.5 * penalty * float(u @ u) + logarithm, penalty * u - mean

    options = {"gtol": STEEP, "maxiter": STEPS}
    return minimize(dual, start, jac=True, method="L-BFGS-B", options=options).x


def _tilted(every: Iterable[np.ndarray], u: np.ndarray) -> tuple[float, np.ndarray, float]:
    """ln (1/N) Σ exp(−m_i·u), the mean of m under w_i ∝ exp(−m_i·u), and its effective number.

    One pass; sums are kept relative to the largest exponent so far, so that none overflows.
    """
    peak, rows, total, squares = -math.inf, 0, 0.0, 0.0
    mean = np.zeros(len(u))
    direction = u.astype(np.float32)
    for block in every:
        exponents = -(block @ direction).astype(np.float64)
        highest = max(peak, float(exponents.max()))
        faded = math.exp(peak - highest)
        shares = np.exp(exponents - highest)
        total = total * faded + float(shares.sum())
        squares = squares * faded**2 + float(shares @ shares)
        mean = mean * faded + shares.astype(np.float32) @ block
        peak, rows = highest, rows + len(block)
    return peak + math.log(total / rows), mean / total, total**2 / squares


class _Blocks:
    """Blocks of rows as float32: held in memory if they are few, else read again each time."""

    def __init__(self, moments: np.ndarray) -> None:
        self._moments = moments
        self._held = list(self._read()) if moments.size <= HELD else None

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._held) if self._held is not None else self._read()

    def _read(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._moments), BLOCK):
            yield self._moments[start : start + BLOCK].astype(np.float32)
