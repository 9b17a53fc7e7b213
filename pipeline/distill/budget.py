"""Budget of a training, as `distill.budget` has it, and the length that it gives."""

import math
import re
from dataclasses import dataclass

from kd3_pipeline.errors import UserError
from kd3_pipeline.params import Distill

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
STEPS = " steps"


@dataclass(frozen=True)
class Length:
    """Length of a training.

    Attributes:
        epochs: from one selection to the next.
        steps: in all epochs, if every image is kept or refilled.
    """

    epochs: int
    steps: int

    def of(self, epoch: int) -> int:
        """Steps of an epoch, which counts from 1; the first ones have one more if need be."""
        each, more = divmod(self.steps, self.epochs)
        return each + (epoch <= more)

    def before(self, epoch: int) -> int:
        """Steps of all earlier epochs."""
        each, more = divmod(self.steps, self.epochs)
        return (epoch - 1) * each + min(epoch - 1, more)

    def behind(self, epochs: int, step: int) -> int:
        """Steps done after so many whole epochs and those of the next one, no more than it has."""
        return self.before(epochs + 1) + min(step, self.of(epochs + 1))


def seconds_of(budget: str) -> float | None:
    """Seconds of a budget such as `2h`, `1h30m` or `45s`; None where it is one of steps."""
    if budget.endswith(STEPS):
        return None
    return sum(float(count) * UNITS[unit] for count, unit in re.findall(r"([\d.]+)([hms])", budget))


def of_steps(count: int) -> str:
    """The budget of so many steps, as a parameter."""
    return f"{count}{STEPS}"


def shortened(section: Distill, share: float, fewest: int) -> Distill:
    """The section with that share of its length: of its steps, or of its epochs but `fewest`.

    Args:
        section: with epochs, or with a budget of steps.
    """
    if not section.budget:
        epochs = max(fewest, round(share * section.epochs))
        return section.model_copy(update={"epochs": epochs})
    steps = max(1, round(share * _steps(section)))
    return section.model_copy(update={"budget": of_steps(steps)})


def length_of(section: Distill, images: int) -> Length:
    """The length of a training on so many images.

    Steps that a budget has are shared out to as few epochs as have no more steps than go into the
    images. Without `refill` an epoch is as long as what it keeps: there are whole epochs then, one
    at least.

    Raises:
        ValueError: a budget of time, which is made one of steps before (`pace`).
    """
    each = images // section.batch_size
    if not section.budget:
        return Length(section.epochs, section.epochs * each)
    steps = _steps(section)
    if section.refill:
        return Length(math.ceil(steps / max(1, each)), steps)
    epochs = max(1, steps // max(1, each))
    return Length(epochs, epochs * each)


def check_whole_epoch(section: Distill, images: int) -> None:
    """Raises a UserError where a budget of steps is not enough for an epoch that cannot be shorter.

    That is so without `refill`.
    """
    each = images // section.batch_size
    if section.budget and not section.refill and _steps(section) < each:
        raise UserError(
            f"distill.budget is enough for {_steps(section):,} of the {each:,} steps of an epoch,"
            " which without distill.refill cannot be shorter",
            "give more, or set distill.refill",
        )


def _steps(section: Distill) -> int:
    if not section.budget.endswith(STEPS):
        raise ValueError(f"distill.budget is '{section.budget}': steps have to be found before")
    return int(section.budget.removesuffix(STEPS))
