"""Budgets of a training: what they mean, and that a run has just the steps that it was given."""

import signal

import pytest

from kd3_pipeline.distill.budget import Length, check_whole_epoch, length_of, seconds_of, shortened
from kd3_pipeline.distill.peak_rate import probe, probe_steps
from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import check
from tests.distill.world import run, same, section, timeless


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800), ("9 steps", None)],
)
def test_a_time_is_read_in_seconds_and_steps_are_no_time(text, seconds):
    assert seconds_of(text) == seconds
    assert check({"distill": {"budget": text}}, {}, "params.yaml").distill.budget == text


@pytest.mark.parametrize("text", ["2", "2 h", "h", "1:30", "-1h", "0 steps", "9steps", 90, "2d"])
def test_what_is_no_budget_is_refused_with_what_would_be_one(text):
    with pytest.raises(UserError, match=r"distill\.budget: expected a time such as 45s, 90m or"):
        check({"distill": {"budget": text}}, {}, "params.yaml")


@pytest.mark.parametrize("steps", [1, 3, 7, 8, 100])
def test_steps_are_shared_out_to_epochs_no_longer_than_the_images_give(steps):
    found = length_of(section(budget=f"{steps} steps"), 56)  # 3 steps an epoch
    each = [found.of(epoch) for epoch in range(1, found.epochs + 1)]
    assert sum(each) == found.steps == steps
    assert max(each) <= 3 and max(each) - min(each) <= 1
    assert [found.before(epoch) for epoch in range(1, found.epochs + 2)] == [
        sum(each[:count]) for count in range(found.epochs + 1)
    ]


def test_without_a_budget_epochs_count():
    assert length_of(section(epochs=5), 56) == Length(5, 15)


def test_without_refill_there_are_whole_epochs_and_less_than_one_is_an_error():
    of = section(refill=False, budget="8 steps")
    assert length_of(of, 56) == Length(2, 6)
    assert length_of(of, 144) == Length(1, 9)
    with pytest.raises(UserError, match=r"enough for 8 of the 9 steps of an epoch.*refill"):
        check_whole_epoch(of, 144)
    for fine in (of.model_copy(update={"refill": True}), section(refill=False)):
        check_whole_epoch(fine, 144)


def test_a_time_has_to_be_made_steps_first():
    with pytest.raises(ValueError, match="'2h': steps have to be found before"):
        length_of(section(budget="2h"), 56)


def test_short_runs_have_a_share_of_the_steps_of_a_budget():
    of = section(budget="100 steps")
    assert shortened(of, 0.15, 2).budget == "15 steps"
    assert probe(of, 0.1).budget == "15 steps"

    class Steps:
        def steps(self, of):
            return length_of(of, 56).steps

    assert probe_steps(Steps(), of) == 5 * 15


def test_a_run_has_the_steps_of_its_budget_and_goes_on_after_an_interruption(tmp_path):
    of = section(budget="7 steps")
    told: list[int] = []
    whole = run(tmp_path / "whole", of, advance=lambda n=1, note="": told.append(n))
    assert (whole.trained.steps, sum(told), len(whole.trained.curves)) == (7, 7, 3)
    assert whole.trained.epoch == 3

    def interrupt(n: int = 1, note: str = "") -> None:
        steps.append(n)
        if sum(steps) == 4 and n:
            signal.raise_signal(signal.SIGINT)

    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", of, advance=interrupt)
    again: list[int] = []
    resumed = run(tmp_path / "broken", of, advance=lambda n=1, note="": again.append(n))
    assert again[0] == 4 and sum(again) == 7
    assert same(whole, resumed)
    assert timeless(whole) == timeless(resumed)


def test_as_many_steps_as_epochs_have_are_the_same_run(tmp_path):
    epochs = run(tmp_path / "epochs", section(epochs=3))
    steps = run(tmp_path / "steps", section(epochs=1, budget="9 steps"))
    assert same(epochs, steps)
    assert timeless(epochs) == timeless(steps)
