"""Schedule of the teacher's weight in the combined prediction, by epoch."""

import math


def teacher_weight(epoch: float, *, horizon: float = 160, switch: float = 120) -> float:
    """α(e) = 1 − exp(−5 ((e+1)/`horizon` − 1)²) before epoch `switch`, then 0.

    Epochs count from 1. The published values are for 240 epochs in all.
    """
    if epoch >= switch:
        return 0.0
    return 1 - math.exp(-5 * ((epoch + 1) / horizon - 1) ** 2)
