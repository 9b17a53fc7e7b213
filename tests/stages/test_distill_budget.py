"""`pipeline distill` with a budget: steps from a time, settled once, and the same run again."""

import json
import signal
import time
from pathlib import Path

import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.params import Distill
from kd3_stages.steps.tune import search_space
from tests.stages.test_distill import copy, curves, distil, start, states, summary
from tests.stages.test_distill import prepared as prepared

TIME = ("--budget", "8s")
SAME = ("models/student/model.safetensors", "data/distill/selection.parquet")


def test_steps_take_the_place_of_epochs(prepared: Path, tmp_path: Path) -> None:
    folder = copy(prepared, tmp_path / "project")
    done = distil(folder, "--budget", "30 steps")
    found = summary(folder)
    assert (found["steps"], found["epochs"], found["budget"]) == (30, 2, "30 steps")
    assert len(curves(folder)) == 2
    assert "begins anew" not in done.stderr
    assert states(folder) == {}


def test_epochs_that_are_given_take_the_place_of_a_budget(prepared: Path, tmp_path: Path) -> None:
    folder = copy(prepared, tmp_path / "project")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("  epochs: 3", "  budget: 2h"))
    distil(folder, "--epochs", "1")
    assert summary(folder)["epochs"] == 1
    assert "budget" not in summary(folder)
    for both in (("--budget", "1m"), ("--set", "distill.budget=1m")):
        refused = start(folder, "-m", "kd3_stages", "distill", "--epochs", "1", *both)
        assert "both say how long a run is: give one" in refused.communicate(timeout=60)[1]
        assert refused.returncode == 2


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_one_of_as_many_steps(prepared: Path, tmp_path: Path) -> None:
    folder = copy(prepared, tmp_path / "killed")
    process = start(folder, "-m", "kd3_stages", "distill", *TIME)
    while process.poll() is None and not states(folder):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (settled,) = folder.glob(".cache/distill/*/length.json")
    steps = json.loads(settled.read_text())["steps"]
    done = distil(folder, *TIME)
    assert f"is enough for {steps:,} steps in" in done.stderr
    assert "as settled at its first start" in done.stderr
    assert summary(folder)["steps"] == steps
    assert states(folder) == {}

    other = copy(prepared, tmp_path / "uninterrupted")
    distil(other, "--budget", f"{steps} steps")
    for name in SAME:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert curves(folder) == curves(other)
    assert summary(folder) == summary(other)


@pytest.mark.slow
def test_a_run_takes_about_its_time_and_says_what_more_would_bring(
    prepared: Path, tmp_path: Path
) -> None:
    folder = copy(prepared, tmp_path / "project")
    started = time.monotonic()
    done = distil(folder, "--budget", "20s", "--json")
    took = time.monotonic() - started
    assert 10 < took < 40  # the clock of a shared machine is not that of its budget
    found = json.loads(done.stdout)
    assert found["steps"] > 100
    if found["forecast"]:
        assert "note: forecast: another " in done.stderr
        assert found["forecast"]["low"] <= found["forecast"]["gain"] <= found["forecast"]["high"]


def test_a_search_refuses_a_time_and_takes_steps() -> None:
    with pytest.raises(UserError, match=r"budget 2h is the time of one run.*--epochs"):
        search_space(Distill(budget="2h"), None, None, ("lr=0.1:4",))
    assert search_space(Distill(budget="90 steps"), None, None, ("lr=0.1:4",))
    with pytest.raises(UserError, match="budget cannot be searched: a longer run is better"):
        search_space(Distill(), ["budget=1m,2m"], None, ())
