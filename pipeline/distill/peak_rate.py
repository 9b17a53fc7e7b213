"""Peak learning rate for `lr: auto`: short runs, of which the best agrees with the teacher."""

from kd3_pipeline.console import Advance
from kd3_pipeline.distill.trials import Trials
from kd3_pipeline.params import Distill

RATES = {"sgd": (0.1, 0.2, 0.4, 0.8, 1.6), "adamw": (0.0005, 0.001, 0.002, 0.004, 0.008)}
LENGTH = 0.15  # of the epochs of the whole run


def probe(section: Distill, rate: float) -> Distill:
    """A short run at one peak learning rate."""
    epochs = max(2, round(LENGTH * section.epochs))
    return section.model_copy(update={"lr": rate, "epochs": epochs, "keep": "last"})


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
