from typing import get_args

import pytest

from kd3_pipeline.console import no_progress
from kd3_pipeline.distill.peak_rate import RATES, chosen, probe, probe_rates
from kd3_pipeline.params import Distill

LONG = Distill(epochs=40, keep="agreement", lr="auto")


class Likes:
    """Trials that agree most at one rate, without running."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.runs: list[Distill] = []

    def agreement(self, section: Distill, name: str, advance: object) -> float:
        self.runs.append(section)
        return 1 / (1 + abs(section.lr - self.rate))


@pytest.mark.parametrize(
    ("optimizer", "rate"), [(name, rate) for name, rates in RATES.items() for rate in rates]
)
def test_the_rate_with_the_best_agreement_is_found(optimizer, rate):
    of = LONG.model_copy(update={"optimizer": optimizer})
    found = probe_rates(Likes(rate), of, no_progress)
    assert max(found, key=found.__getitem__) == rate
    assert list(found) == list(RATES[optimizer])


def test_every_optimizer_has_rates_to_try_and_those_of_adamw_are_smaller():
    assert RATES.keys() == set(get_args(Distill.model_fields["optimizer"].annotation))
    assert max(RATES["adamw"]) < min(RATES["sgd"])


def test_a_probe_is_a_short_run_that_differs_in_its_rate_alone():
    likes = Likes(0.1)
    probe_rates(likes, LONG, no_progress)
    assert [run.lr for run in likes.runs] == list(RATES["sgd"])
    for run in likes.runs:
        changed = {"lr": run.lr, "epochs": 6, "keep": "last"}
        assert run == LONG.model_copy(update=changed)
    assert probe(LONG.model_copy(update={"epochs": 2}), 0.1).epochs == 2


def test_rates_that_do_differ_are_told_and_no_more():
    rate, told, warning = chosen({0.1: 0.4, 0.2: 0.62, 0.4: 0.5}, 0.3)
    assert (rate, warning) == (0.2, "")
    assert told == (
        "learning rate 0.2; agreement after short runs was 0.1 (40.0%), 0.2 (62.0%), 0.4 (50.0%)"
    )


def test_of_several_equal_rates_the_lowest_is_taken_and_said_to_be():
    rate, told, warning = chosen({0.1: 0.4, 0.2: 0.62, 0.4: 0.62}, 0.3)
    assert (rate, warning) == (0.2, "")
    assert told.endswith("; the lowest of 2 equal ones is taken")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([0.8, 0.8, 0.8], "all 3 short runs for distill.lr agree with the teacher equally, 80.0%"),
        ([0.0, 0.0, 0.0], "all 3 short runs for distill.lr agree with the teacher equally, 0.0%"),
        ([0.1, 0.8, 0.2], "agrees with the teacher better than a constant would, 80.0%"),
    ],
)
def test_runs_that_tell_nothing_of_the_rate_are_told_loudly(found, said):
    _, _, warning = chosen(dict(zip((0.1, 0.2, 0.4), found, strict=True)), 0.8)
    assert said in warning
    assert "(always saying its commonest answer: 80.0%)" in warning
    assert "is a guess: set distill.lr yourself" in warning
