"""Learning rate of a step: a peak, and how the rate comes to it and leaves it."""

from kd3_pipeline.params import Distill

MILESTONES = (150 / 240, 180 / 240, 210 / 240)
LATE = 0.8  # share of the steps behind from which `distill.disagreement` counts
WARM_UP = 0.2  # share of the steps in which a one-cycle learning rate rises


def peak(section: Distill) -> float:
    """The section's `lr`.

    Raises:
        ValueError: it is still `auto`, which is resolved before training (`peak_rate`).
    """
    if isinstance(section.lr, str):
        raise ValueError(f"distill.lr is '{section.lr}': a rate has to be found before")
    return section.lr


def learning_rate(done: float, section: Distill) -> float:
    """The rate when a share `done` (0 to 1) of the training is behind."""
    highest = peak(section)
    if section.schedule == "step":
        return highest * 0.1 ** sum(done >= milestone for milestone in MILESTONES)
    if done < WARM_UP:
        return highest * (0.04 + 0.96 * done / WARM_UP)
    return highest * (1 - done) / (1 - WARM_UP)
