"""Temperature of the student's confidences, found without a label."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

FEWEST = 50  # images: with fewer the temperature says more of the draw than of the student
BOUNDS = (0.1, 10.0)


def fit_temperature(student: np.ndarray, teacher: np.ndarray) -> float | None:
    """The temperature at which the student best foretells the teacher on web images.

    Temperature scaling (Guo et al., ICML 2017) with the teacher in the place of labels, which
    nobody has. Its class alone would be a teacher that is never wrong, and makes the student too
    sure; its softmax doubts web images more than those it was trained on, and makes the student
    too unsure. So the student is fitted to the mean of both (benchmarks/calibration.py). It should
    be given images that the student was not trained on: on others the two agree too well, and no
    temperature is better than one of these.

    Args:
        student, teacher: logits [N, C] of the same images.

    Returns:
        0.1 to 10, or None with fewer than 50 images.
    """
    if len(student) < FEWEST:
        return None
    classes = np.eye(teacher.shape[1])[teacher.argmax(axis=1)]
    shares = softmax(teacher.astype(np.float64), axis=1)
    return least_cross_entropy(student, (classes + shares) / 2)


def least_cross_entropy(logits: np.ndarray, shares: np.ndarray) -> float:
    """The temperature, 0.1 to 10, of least cross-entropy from `shares` [N, C] to logits [N, C]."""
    wide = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(wide / np.exp(log_temperature), axis=1)
        return float(-(shares * log_p).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded").x))
