"""`pipeline tune` as a user meets it: what runs, what does not run again, what it leaves."""

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kd3_pipeline.errors import UserError
from kd3_pipeline.extras import install_extra
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Distill
from kd3_stages.steps.tune import search_space
from kd3_stages.tune import SPACE
from tests.stages.workspace import ROOT, copy_project, environment, invoke, run

TUNE = ("tune", "--epochs", "1", "--search", "lr=0.05:0.5", "--search", "crop=pad,none")


def runs(folder: Path) -> dict[str, int]:
    """Finished runs of all searches and when each was written."""
    found = folder.glob(".cache/tune/*/*/agreement.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def tune(folder: Path, *more: str) -> dict[str, Any]:
    return json.loads(run(folder, "pipeline", *TUNE, *more, "--json", "--quiet").stdout)


@pytest.fixture(scope="module")
def folder(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a search of three trials."""
    copy = tmp_path_factory.mktemp("tuned") / "project"
    shutil.copytree(project, copy, symlinks=True)
    (copy / "first.json").write_text(json.dumps(tune(copy, "--trials", "3")))
    return copy


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project", "")


def test_a_search_leaves_a_table_and_a_journal(folder: Path) -> None:
    found = json.loads((folder / "first.json").read_text())
    trials = found["trials"]
    assert found["best"] == trials[0]
    assert sorted(row["trial"] for row in trials) == [1, 2, 3]
    first = next(row for row in trials if row["trial"] == 1)
    assert (first["lr"], first["crop"]) == (0.1, "pad"), "the values of params.yaml"
    agreements = [row["agreement"] for row in trials]
    assert agreements == sorted(agreements, reverse=True)
    with (folder / "reports/tune.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["trial", "agreement", "lr", "crop", "failed"]
    assert [int(row["trial"]) for row in table] == [row["trial"] for row in trials]
    assert (folder / found["journal"]).is_file(), "optuna-dashboard opens it"


def test_the_commands_that_are_told_set_the_best_values(folder: Path) -> None:
    found = json.loads((folder / "first.json").read_text())
    distill, experiment = (shlex.split(command) for command in found["commands"])
    assert distill[:2] == ["pipeline", "distill"]
    assert experiment[:3] == ["dvc", "exp", "run"]
    known = yaml.safe_load((folder / "params.yaml").read_text())["distill"]
    assert "crop" not in known and "lr" in known, "of those that it lacks DVC wants a +"
    assert [f"+{one}" if ".crop=" in one else one for one in distill[3::2]] == experiment[4::2]
    params = read_params(folder / "params.yaml", distill[3::2])
    assert params.distill.lr == found["best"]["lr"]
    assert params.distill.crop == found["best"]["crop"]


@pytest.mark.slow
def test_the_same_search_runs_what_is_missing_and_no_more(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    before, first = runs(copy), json.loads((copy / "first.json").read_text())
    assert len(before) == 3
    done = run(copy, "pipeline", *TUNE, "--trials", "3")
    assert "the best of 3 trials, with lr" in done.stdout
    assert done.stdout.splitlines()[1:] == first["commands"]
    assert done.stderr.splitlines()[-1].endswith(f": optuna-dashboard {first['journal']}")
    assert runs(copy) == before
    more = tune(copy, "--trials", "4")["trials"]
    after = runs(copy)
    assert after == after | before
    assert len(after) == len(more) == 4
    assert [row for row in more if row["trial"] < 4] == first["trials"]


@pytest.mark.slow
def test_an_interrupted_search_goes_on_with_the_trial_that_it_was_in(
    project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    arguments = (*TUNE, "--epochs", "8", "--trials", "2", "--quiet")
    process = subprocess.Popen(
        [sys.executable, "-m", "kd3_stages", *arguments],
        cwd=copy,
        env=environment(copy),
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(copy.glob(".cache/tune/*/*/*.pt")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr == "interrupted: the same command goes on where it stopped\n"
    assert not (copy / "reports/tune.csv").exists()
    begun = {path.parent.name for path in copy.glob(".cache/tune/*/*/*.pt")}
    found = json.loads(run(copy, "pipeline", *arguments, "--json").stdout)
    assert len(found["trials"]) == len(runs(copy)) == 2
    assert begun < runs(copy).keys(), "the trial was run to its end, not another one in its place"
    assert not list(copy.glob(".cache/tune/*/*/*.pt"))


def test_trials_that_cannot_be_trained_are_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    arguments = ("tune", "--trials", "2", "--epochs", "1", "--search", "lr=1e30,2e30", "--quiet")
    done = invoke(copy, *arguments, check=False)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: tune: all 2 trials failed: distill: the loss is not fin")
    assert len(done.stderr.splitlines()) == 1
    assert "not finite" in (copy / "reports/tune.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--search", "lrr=0.1:1"), "--search lrr=0.1:1: distill.lrr: unknown key 'lrr'"),
        ((), "models/teacher/config.json not found"),
    ],
)
def test_a_mistake_is_one_line(empty: Path, arguments: tuple[str, ...], said: str) -> None:
    done = invoke(empty, "tune", *arguments, check=False)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert not (empty / ".cache").exists()


@pytest.mark.parametrize(
    ("changes", "search", "epochs", "said"),
    [
        ({"objective": "official"}, ["crop=pad,none"], None, "'official' sets it to resized"),
        ({"lr": "auto"}, ["crop=pad,none"], None, "tune: distill.lr is 'auto'"),
        ({}, ["epochs=2,3"], 2, "tune: --epochs and --search epochs"),
    ],
)
def test_a_search_that_contradicts_itself_is_told(
    changes: dict[str, str], search: list[str], epochs: int | None, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        search_space(Distill(**changes), search, epochs, SPACE)


def test_without_optuna_the_extra_is_named(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'optuna'\", name='optuna')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "kd3_stages", "tune"],
        cwd=empty,
        env=environment(empty) | {"PYTHONPATH": f"{tmp_path}:{empty}"},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: tune needs optuna: {install_extra('tune')}\n"


def test_help_waits_for_no_optuna() -> None:
    code = "import kd3_stages.cli, sys; print('optuna' in sys.modules)"
    assert run(ROOT, sys.executable, "-c", code).stdout == "False\n"
