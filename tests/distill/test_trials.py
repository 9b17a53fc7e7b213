import json

import pytest
import torch

from kd3_pipeline.console import no_progress
from kd3_pipeline.distill.trials import Trials
from kd3_pipeline.models.checkpoint import ModelConfig
from tests.distill.world import MEAN, SIDE, STD, section, teacher, web

CONFIG = ModelConfig(
    {"name": "resnet8", "num_classes": 10}, list("abcdefghij"), MEAN, STD, SIDE, ""
)
OF = section(epochs=2, selection="none")
STEPS = 2 * 3


class Counted:
    """Progress that stops the run before a step; what goes on between them is not counted."""

    def __init__(self, stop_at: int = 100) -> None:
        self.told: list[int] = []
        self.stop_at = stop_at

    def __call__(self, n: int = 1, note: str = "") -> None:
        if n and len(self.told) == self.stop_at:
            raise KeyboardInterrupt
        if n:
            self.told.append(n)


def trials(folder) -> Trials:
    return Trials(web(16), teacher(), CONFIG, torch.float32, folder)


def test_a_finished_trial_is_not_run_again(tmp_path):
    first, second = Counted(), Counted()
    agreement = trials(tmp_path).agreement(OF, "one", first)
    assert 0 <= agreement <= 1
    assert sum(first.told) == trials(tmp_path).steps(OF) == STEPS
    assert trials(tmp_path).agreement(OF, "one", second) == agreement
    assert second.told == [STEPS]
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["agreement.json"]


def test_an_interrupted_trial_goes_on_to_the_same_agreement(tmp_path):
    whole = trials(tmp_path / "whole").agreement(OF, "one", no_progress)
    with pytest.raises(KeyboardInterrupt):
        trials(tmp_path / "broken").agreement(OF, "one", Counted(stop_at=5))
    assert not (tmp_path / "broken/one/agreement.json").exists()
    resumed = Counted()
    assert trials(tmp_path / "broken").agreement(OF, "one", resumed) == whole
    assert resumed.told[0] == 3, "the first epoch was done"
    assert sum(resumed.told) == STEPS


def test_a_trial_that_cannot_be_trained_counts_0_and_says_why(tmp_path):
    wild = OF.model_copy(update={"lr": 1e30})
    again = Counted()
    assert trials(tmp_path).agreement(wild, "wild", no_progress) == 0
    assert "not finite" in json.loads((tmp_path / "wild/agreement.json").read_text())["failed"]
    assert trials(tmp_path).agreement(wild, "wild", again) == 0
    assert again.told == [STEPS]
