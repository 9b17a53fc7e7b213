"""Peak learning rate for `lr: auto`: short runs, of which the best agrees with the teacher."""

from collections.abc import Mapping

from kd3_pipeline.console import Advance
from kd3_pipeline.distill.budget import shortened
from kd3_pipeline.distill.trials import Trials
from kd3_pipeline.params import Distill

RATES = {"sgd": (0.1, 0.2, 0.4, 0.8, 1.6), "adamw": (0.0005, 0.001, 0.002, 0.004, 0.008)}
LENGTH = 0.15  # of the whole run


def probe(section: Distill, rate: float) -> Distill:
    """A short run at one peak learning rate."""
    short = shortened(section, LENGTH, fewest=2)
    return short.model_copy(update={"lr": rate, "keep": "last"})


def probe_steps(trials: Trials, section: Distill) -> int:
    """Steps of all short runs."""
    rates = RATES[section.optimizer]
    return len(rates) * trials.steps(probe(section, rates[0]))


def probe_rates(trials: Trials, section: Distill, advance: Advance) -> dict[float, float]:
    """Agreement at the end of a short run, by peak learning rate."""
    return {
        rate: trials.agreement(probe(section, rate), f"rate-{rate}", advance)
        for rate in RATES[section.optimizer]
    }


def chosen(found: Mapping[float, float], usual: float) -> tuple[float, str, str]:
    """The rate to take, what is told of it, and a warning where the runs do not say which.

    Args:
        found: agreement after a short run, by rate, in rising order of the rates.
        usual: what always giving the teacher's commonest answer would agree on.

    Returns:
        The rate of the best agreement, the lowest of several such; and the two texts, the second
        one empty where the runs differ and one of them has learnt something.
    """
    best = max(found.values())
    rates = [rate for rate, agreement in found.items() if agreement == best]
    tried = ", ".join(f"{rate} ({agreement:.1%})" for rate, agreement in found.items())
    told = f"learning rate {rates[0]}; agreement after short runs was {tried}"
    if 1 < len(rates) < len(found):
        told += f"; the lowest of {len(rates)} equal ones is taken"
    if len(rates) == len(found):
        warning = f"all {len(found)} short runs for distill.lr agree with the teacher equally"
    elif best <= usual:
        warning = "no short run for distill.lr agrees with the teacher better than a constant would"
    else:
        return rates[0], told, ""
    return (
        rates[0],
        told,
        f"{warning}, {best:.1%} (always saying its commonest answer: {usual:.1%}), so that they do"
        f" not tell which rate is right, and {rates[0]} is a guess: set distill.lr yourself, or"
        " more distill.epochs, of which short runs have a share",
    )
