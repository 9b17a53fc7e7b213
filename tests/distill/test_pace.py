"""Pace of a training: what a time is enough for, and that measuring it leaves nothing behind."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kd3_pipeline.distill.pace import Pace, Work, in_steps, known_steps, measured, settle, work_of
from kd3_pipeline.distill.parallel import ALONE, World
from kd3_pipeline.distill.run import Prepared
from kd3_pipeline.distill.views import Views
from kd3_pipeline.errors import UserError
from tests.distill.world import (
    CPU,
    IMAGES,
    MEAN,
    STD,
    copied,
    equal,
    objective,
    section,
    together,
    web,
)

PACE = Pace(step=0.5, look=0.01)
FLOAT = torch.float32


def prepared(**changes) -> Prepared:
    of = section(**changes)
    return Prepared(objective(of), Views(of, MEAN, STD))


@pytest.mark.parametrize("work", [Work(10, 0, 0), Work(10, 300, 50), Work(3, 7, 9, probing=0.75)])
@pytest.mark.parametrize("seconds", [4.0, 60.0, 7200.0])
def test_the_most_steps_are_found_that_fit_into_a_time(work, seconds):
    steps = work.steps(seconds, PACE)
    assert work.seconds(steps, PACE) <= seconds < work.seconds(steps + 1, PACE) or steps == 0


def test_the_time_of_a_run_is_that_of_steps_looks_and_short_runs():
    work = Work(epoch_steps=10, looks=100, last_looks=40, probing=0.75)
    assert work.seconds(25, PACE) == pytest.approx(1.75 * (25 * 0.5 + 3 * 100 * 0.01) + 0.4)


def test_nothing_fits_into_no_time():
    assert Work(10, 0, 40).steps(0.3, PACE) == 0
    assert Work(10, 0, 0).steps(-5.0, PACE) == 0


def test_without_dynamic_selection_the_held_out_images_alone_are_looked_at():
    looks = {of: work_of(section(selection=of), web(), 0.0).looks for of in ("dynamic", "none")}
    assert looks == {"dynamic": IMAGES + 8, "none": 8}


@pytest.mark.parametrize("changes", [{}, {"disagreement": 2.0}, {"ema": 0.9, "judge": "random"}])
def test_a_measurement_changes_no_weight_and_gives_times_above_nothing(changes):
    ready = prepared(**changes)
    before = copied(ready.objective)
    found = measured(section(**changes, lr="auto"), web(), ready, FLOAT, 1.0)
    assert found.step > 0 and found.look > 0
    weights = dict(ready.objective.named_parameters())
    assert equal({k: v.detach() for k, v in weights.items()}, {k: before[k] for k in weights})


def test_what_a_time_is_enough_for_is_written_and_read_again(tmp_path: Path):
    assert known_steps(tmp_path, ALONE, CPU) is None
    of = section(budget="20s")
    steps, pace = settle(of, web(), prepared(), FLOAT, tmp_path, time.monotonic())
    assert known_steps(tmp_path, ALONE, CPU) == steps
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    work = work_of(of, web(), 0.0)
    assert work.seconds(steps, pace) <= 20 - found["spent"] < work.seconds(steps + 1, pace)
    assert in_steps(of, steps).budget == f"{steps} steps"


def test_what_was_spent_before_is_no_more_there_to_train(tmp_path: Path):
    of = section(budget="30s")
    began = time.monotonic()
    few = settle(of, web(), prepared(), FLOAT, tmp_path / "few", began - 25)[0]
    many = settle(of, web(), prepared(), FLOAT, tmp_path / "many", began)[0]
    assert few < many / 2


def test_too_short_a_time_is_an_error_that_says_what_is_needed(tmp_path: Path):
    with pytest.raises(UserError, match=r"budget 1s is too short: \d+ s are gone.*give more time"):
        settle(section(budget="1s"), web(), prepared(), FLOAT, tmp_path, time.monotonic() - 5)
    assert not list(tmp_path.iterdir())


def test_few_images_are_measured_too():
    few = replace(web(), train=web().train[:20])
    assert measured(section(), few, prepared(), FLOAT, 0.1).step > 0


def settled(world: World, folder: Path) -> tuple[int, int | None]:
    of = section(budget="20s")
    ready = prepared()
    ready.objective.world = world
    steps, _ = settle(of, web(), ready, FLOAT, folder, time.monotonic() - world.rank)
    return steps, known_steps(folder, world, CPU)


def test_processes_settle_on_the_same_steps(tmp_path: Path):
    (one, again), (other, read) = together(2, settled, tmp_path)
    assert one == again == other == read
