import json
import math
from wsgiref.util import setup_testing_defaults

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from kd3_pipeline.console import no_progress
from kd3_pipeline.distill.tune import (
    Runs,
    open_study,
    read_space,
    results,
    search,
    trial_name,
    with_values,
)
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from tests.distill.world import CPU, MEAN, SIDE, STD, section, teacher, web

SPACE = read_space(["lr=0.05:2", "crop=pad,resized,none", "batch_size=8:64"], "kd3")
CURRENT = section(lr=0.25, crop="none", batch_size=16).model_dump()


def score(values) -> float:
    return (1 - abs(math.log(values["lr"] / 0.4)) / 4) * (1.0 if values["crop"] == "pad" else 0.8)


class Judge:
    """Scores values, and is interrupted in one of the trials."""

    def __init__(self, interrupted: int = 0) -> None:
        self.interrupted = interrupted
        self.seen = []

    def __call__(self, values, advance):
        self.seen.append(values)
        if len(self.seen) == self.interrupted:
            raise KeyboardInterrupt
        return score(values), ""


def go(journal, trials, judge, current=CURRENT, seed=3, advance=no_progress):
    study = open_study(journal, SPACE, current)
    search(study, SPACE, seed, trials, judge, advance)
    return results(study, SPACE)


def test_a_range_is_drawn_by_its_logarithm_and_whole_numbers_stay_whole():
    assert {
        "lr": FloatDistribution(0.05, 2.0, log=True),
        "crop": CategoricalDistribution(("pad", "resized", "none")),
        "batch_size": IntDistribution(8, 64, log=True),
    } == SPACE


def test_values_are_of_the_parameters_type():
    texts = ["flip=true,false", "ema=0,0.9", "batch_size=8,16", "student=resnet8"]
    space = read_space(texts, "kd")
    values = {name: distribution.choices for name, distribution in space.items()}
    assert values == {
        "flip": (True, False),
        "ema": (0.0, 0.9),
        "batch_size": (8, 16),
        "student": ("resnet8",),
    }
    assert isinstance(values["ema"][0], float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "expected NAME=LOW:HIGH or NAME=A,B"),
        ("lrr=0.1:1", "unknown key 'lrr'; did you mean 'lr'?"),
        ("lr=-1:1", "a number above 0"),
        ("lr=0.1,auto", "'auto' is a search itself"),
        ("lr=auto:1", "a range is of numbers"),
        ("lr=1:0.1", "1.0 is not below 0.1"),
        ("lr=[", "not YAML"),
        ("crop=padd,none", "did you mean 'pad'?"),
        ("logit_weight=0:1", "begins above 0: list the values: logit_weight=A,B"),
        ("student=resnet8,resnet9", "no architecture named 'resnet9'"),
        ("seed=1,2", "seed cannot be searched: a better seed is luck"),
    ],
)
def test_a_wrong_option_is_one_line_that_quotes_it(text, said):
    with pytest.raises(UserError) as error:
        read_space([text], "kd3")
    assert str(error.value).startswith(f"--search {text}:")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_parameter_is_searched_once():
    with pytest.raises(UserError, match="lr=2,3: lr is given twice"):
        read_space(["lr=0.1:1", "lr=2,3"], "kd3")


@pytest.mark.parametrize("texts", [["mixing=true,false"], ["objective=kd,simkd", "mixing=true"]])
def test_what_an_objective_sets_cannot_be_searched_with_it(texts):
    read_space(["mixing=true,false"], "kd3")
    with pytest.raises(UserError, match="--search mixing: objective 'simkd' sets it to False"):
        read_space(texts, "simkd")


def test_a_trial_has_what_its_own_objective_sets():
    changed = with_values(section(objective="kd3"), {"objective": "simkd", "lr": 0.3})
    assert (changed.lr, changed.mixing, changed.weighting) == (0.3, False, False)


def test_equal_values_have_one_name():
    assert trial_name({"lr": 0.1, "crop": "pad"}) == trial_name({"crop": "pad", "lr": 0.1})
    names = {trial_name({"lr": lr, "flip": flip}) for lr in (0.1, 0.2) for flip in (True, False)}
    assert len(names) == 4


def test_the_first_trial_has_the_current_values(tmp_path):
    judge = Judge()
    go(tmp_path / "journal.log", 1, judge)
    assert judge.seen == [{"lr": 0.25, "crop": "none", "batch_size": 16}]


@pytest.mark.parametrize("lr", [10.0, "auto"])
def test_a_current_value_outside_the_space_is_drawn_from_it(tmp_path, lr):
    judge = Judge()
    go(tmp_path / "journal.log", 1, judge, CURRENT | {"lr": lr})
    assert 0.05 <= judge.seen[0].pop("lr") <= 2
    assert judge.seen == [{"crop": "none", "batch_size": 16}]


@pytest.mark.parametrize("interrupted", [1, 4, 8])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path, interrupted):
    whole, broken, resumed = Judge(), Judge(interrupted), Judge()
    rows = go(tmp_path / "whole.log", 9, whole)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "broken.log", 9, broken)
    assert go(tmp_path / "broken.log", 9, resumed) == rows
    assert broken.seen == whole.seen[:interrupted]
    assert resumed.seen == whole.seen[interrupted - 1 :]


def test_a_search_that_was_enlarged_is_the_larger_one(tmp_path):
    whole, parts, nothing = Judge(), Judge(), Judge()
    rows = go(tmp_path / "whole.log", 9, whole)
    go(tmp_path / "parts.log", 4, parts)
    assert len(go(tmp_path / "parts.log", 4, nothing)) == 4
    assert nothing.seen == []
    assert go(tmp_path / "parts.log", 9, parts) == rows
    assert parts.seen == whole.seen


def test_another_seed_proposes_other_values(tmp_path):
    one, other = Judge(), Judge()
    go(tmp_path / "one.log", 3, one)
    go(tmp_path / "other.log", 3, other, seed=4)
    assert one.seen[0] == other.seen[0]
    assert one.seen[1:] != other.seen[1:]


def test_drawn_numbers_are_short_and_in_the_space(tmp_path):
    judge = Judge()
    go(tmp_path / "journal.log", 9, judge)
    assert all(float(f"{values['lr']:.4g}") == values["lr"] for values in judge.seen)
    assert all(0.05 <= values["lr"] <= 2 for values in judge.seen)
    assert all(isinstance(values["batch_size"], int) for values in judge.seen)


def test_optuna_dashboard_lists_the_trials_of_the_journal(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    rows = go(tmp_path / "journal.log", 3, Judge())
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    app, environ = dashboard.wsgi(storage), {"PATH_INFO": "/api/studies/0"}
    setup_testing_defaults(environ)
    found = json.loads(b"".join(app(environ, lambda *told: None)))
    assert found["name"] == "tune"
    agreements = [trial["values"] for trial in found["trials"]]
    assert sorted(agreements) == sorted([row["agreement"]] for row in rows)


def test_results_come_best_first_and_failures_last(tmp_path):
    def judge(values, advance):
        return (0.0, "not finite") if values["crop"] == "none" else (score(values), "")

    rows = go(tmp_path / "journal.log", 9, judge)
    assert list(rows[0]) == ["trial", "agreement", "lr", "crop", "batch_size", "failed"]
    assert sorted(row["trial"] for row in rows) == list(range(1, 10))
    good = [row["agreement"] for row in rows if not row["failed"]]
    assert good == sorted(good, reverse=True)
    assert [row["crop"] == "none" for row in rows] == [False] * len(good) + [True] * (9 - len(good))
    assert rows[-1] == rows[-1] | {"agreement": 0.0, "failed": "not finite", "crop": "none"}


def test_progress_counts_trials_and_names_the_best_so_far(tmp_path):
    told, notes = [], []

    def advance(n=1, note=""):
        told.append(n)
        notes.append(note)

    def judge(values, advance):
        advance(5, "epoch 1")
        return 0.5, ""

    go(tmp_path / "journal.log", 2, judge, advance=advance)
    assert sum(told) == 2
    assert [note for note in notes if note] == [
        "trial 1; epoch 1",
        "trial 2; best so far 50.0%; epoch 1",
    ]
    told.clear()
    go(tmp_path / "journal.log", 2, judge, advance=advance)
    assert sum(told) == 2


def test_a_trial_is_a_run_with_its_values(tmp_path):
    config = ModelConfig({}, list("abcdefghij"), MEAN, STD, SIDE, "")
    runs = Runs(section(epochs=1), web(16), teacher(), config, CPU, tmp_path)
    agreement, failed = runs({"lr": 0.2, "objective": "simkd"}, no_progress)
    assert 0 <= agreement <= 1
    assert failed == ""
    agreement, failed = runs({"lr": 1e30}, no_progress)
    assert agreement == 0
    assert "not finite" in failed
