"""A temperature for the student's confidences, found without a label."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

FEWEST = 50  # images: with fewer the temperature says more of the draw than of the student
BOUNDS = (0.1, 10.0)


def fit_temperature(student: np.ndarray, teacher: np.ndarray) -> float | None:
    """The temperature at which the student best foretells the teacher's class on web images.

    Temperature scaling (Guo et al., ICML 2017), with the class that the teacher predicts in the
    place of the label, which nobody has: the student's logits are divided by the temperature of
    least negative log-likelihood. It should be given images that the student was not trained on.
    On those that it was, the two agree too well and the temperature comes out too low, so that
    no temperature is better than one of these.

    Args:
        student, teacher: logits [N, C] of the same images.

    Returns:
        0.1 to 10, or None with fewer than 50 images.
    """
    if len(student) < FEWEST:
        return None
    logits, classes = student.astype(np.float64), teacher.argmax(axis=1)
    of_image = np.arange(len(logits))

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-log_p[of_image, classes].mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded").x))
