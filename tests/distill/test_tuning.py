import json
from dataclasses import replace

import pytest
import torch

from pipeline.console import no_progress
from pipeline.distill.run import settings_of
from pipeline.distill.tuning import PROBE_RATES, Trials, probe_rates, probe_settings
from pipeline.models.checkpoint import ModelConfig
from tests.distill.world import MEAN, SIDE, STD, section, teacher, web

CONFIG = ModelConfig(
    {"name": "resnet8", "num_classes": 10}, list("abcdefghij"), MEAN, STD, SIDE, ""
)
SETTINGS = settings_of(section(epochs=2, selection="none"))
STEPS = 2 * 3


class Counted:
    """Progress that stops the run before a step."""

    def __init__(self, stop_at: int = 100) -> None:
        self.told: list[int] = []
        self.stop_at = stop_at

    def __call__(self, n: int = 1, note: str = "") -> None:
        if len(self.told) == self.stop_at:
            raise KeyboardInterrupt
        self.told.append(n)


def trials(folder) -> Trials:
    return Trials(web(16), teacher(), CONFIG, torch.float32, folder)


def test_a_finished_trial_is_not_run_again(tmp_path):
    first, second = Counted(), Counted()
    agreement = trials(tmp_path).agreement(SETTINGS, "one", first)
    assert 0 <= agreement <= 1
    assert sum(first.told) == trials(tmp_path).steps(SETTINGS) == STEPS
    assert trials(tmp_path).agreement(SETTINGS, "one", second) == agreement
    assert second.told == [STEPS]
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["agreement.json"]


def test_an_interrupted_trial_goes_on_to_the_same_agreement(tmp_path):
    whole = trials(tmp_path / "whole").agreement(SETTINGS, "one", no_progress)
    with pytest.raises(KeyboardInterrupt):
        trials(tmp_path / "broken").agreement(SETTINGS, "one", Counted(stop_at=5))
    assert not (tmp_path / "broken/one/agreement.json").exists()
    resumed = Counted()
    assert trials(tmp_path / "broken").agreement(SETTINGS, "one", resumed) == whole
    assert resumed.told[0] == 3, "the first epoch was done"
    assert sum(resumed.told) == STEPS


def test_a_trial_that_cannot_be_trained_counts_0_and_says_why(tmp_path):
    wild = replace(SETTINGS, schedule=replace(SETTINGS.schedule, lr=1e30))
    again = Counted()
    assert trials(tmp_path).agreement(wild, "wild", no_progress) == 0
    assert "not finite" in json.loads((tmp_path / "wild/agreement.json").read_text())["failed"]
    assert trials(tmp_path).agreement(wild, "wild", again) == 0
    assert again.told == [STEPS]


class Likes:
    """Trials that agree most at one rate, without running."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.runs = {}

    def agreement(self, settings, name, advance) -> float:
        self.runs[name] = settings
        return 1 / (1 + abs(settings.schedule.lr - self.rate))


@pytest.mark.parametrize("rate", PROBE_RATES)
def test_the_rate_with_the_best_agreement_is_found(rate):
    found = probe_rates(Likes(rate), SETTINGS, no_progress)
    assert max(found, key=found.__getitem__) == rate
    assert list(found) == list(PROBE_RATES)


def test_a_probe_is_a_short_run_that_differs_in_its_rate_alone():
    likes = Likes(0.1)
    long = settings_of(section(epochs=40, keep="agreement"))
    probe_rates(likes, long, no_progress)
    assert len(likes.runs) == len(PROBE_RATES)
    for settings, rate in zip(likes.runs.values(), PROBE_RATES, strict=True):
        assert settings.schedule == replace(long.schedule, lr=rate, epochs=6, keep="last")
        assert replace(settings, schedule=long.schedule) == long
    assert probe_settings(SETTINGS, 0.1).schedule.epochs == 2
