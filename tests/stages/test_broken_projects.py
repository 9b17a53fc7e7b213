"""Projects that are broken in ways that no parameter shows: each ends in a line of its own."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stages.test_check import checks, project, wrong_in
from tests.stages.trained import weights as weights
from tests.stages.workspace import invoke

NO_FILE = "is neither a file nor a folder"


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("teacher.path", {}),
        ("teacher.class_names", {}),
        ("evaluate.test_set", {}),
        ("crawl.blocklist", {}),
        ("crawl.classes", {}),
        ("distill.student_weights", {}),
        ("crawl.source", {"crawl.engine": "urls"}),
    ],
)
def test_a_pipe_is_not_waited_for(
    tmp_path: Path, weights: Path, key: str, changes: dict[str, Any]
) -> None:
    folder = project(tmp_path / "project", weights, {key: "./pipe.yaml", **changes})
    os.mkfifo(folder / "pipe.yaml")
    assert f"{key}: ./pipe.yaml {NO_FILE}" in checks(folder, 2)["files"]["text"]
    done = invoke(folder, "inputs", check=False)
    assert done.exit_code == 2 and NO_FILE in done.stderr


def test_a_device_is_not_read(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights, {"teacher.path": "zero"})
    (folder / "zero").symlink_to("/dev/zero")
    assert NO_FILE in checks(folder, 2)["files"]["text"]
    assert NO_FILE in invoke(folder, "inputs", check=False).stderr
    done = invoke(folder, "teacher", check=False)
    assert done.exit_code == 2 and "zero is no regular file" in done.stderr


def test_a_folder_in_place_of_weights_says_what_it_lacks(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights, {"teacher.path": "weights"})
    (folder / "weights").mkdir()
    text = checks(folder, 2)["teacher"]["text"]
    assert text.endswith("weights is a folder: name a file; it has no weights")


ADDED = """
  mine:
    cmd: echo
    params: [distill.lr, {other.yaml: [x]}]
  each:
    foreach: [a]
    do: {cmd: echo}
plots:"""


def test_stages_that_a_user_has_added_are_left_alone(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights)
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(text.replace("\nplots:", ADDED, 1))
    assert not wrong_in(checks(folder, 0))
    invoke(folder, "inputs")
    assert not (folder / "data/inputs/mine.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [crawl]\n", "no stage of this software"),
        ("", "no stage of this software"),
        ("stages: {crawl: }\n", "stage crawl has no list of params"),
        ("stages: {crawl: {cmd: x, params: crawl}}\n", "stage crawl has no list of params"),
        ("stages: {crawl: {cmd: x, params: [web]}}\n", "stage crawl: no section web"),
        ("<<<<<<< HEAD\nstages: {}\n=======\n", "dvc.yaml:2: not YAML"),
        (b"# caf\xe9\n", "dvc.yaml:1: not UTF-8: byte 0xe9"),
    ],
)
def test_a_dvc_yaml_that_is_none_is_one_line(
    tmp_path: Path, weights: Path, text: str | bytes, said: str
) -> None:
    folder = project(tmp_path / "project", weights)
    (folder / "dvc.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert said in checks(folder, 2)["dvc.yaml"]["text"]
    done = invoke(folder, "inputs", check=False)
    assert done.exit_code == 2 and said in done.stderr


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return write


@pytest.mark.parametrize(
    ("name", "make", "code"),
    [
        ("inputs.lock", text("[1]"), 0),
        ("inputs.lock", text('{"teacher.pt": 5}'), 0),
        ("inputs.lock", text("[" * 100_000), 0),
        ("inputs.lock", a_folder, 3),
        (".cache/inputs/check.json", text("[" * 100_000), 0),
        (".cache/inputs/check.json", text('{"key": 1, "findings": 5}'), 0),
        (".cache", text("mine"), 3),
        ("data", text("mine"), 3),
        ("dvc.lock", text("stages: {crawl: {params: {params.yaml: 3}, deps: 5}}"), 0),
        ("dvc.lock", a_folder, 2),
    ],
)
def test_a_damaged_note_is_made_again_and_what_is_in_its_place_stays(
    tmp_path: Path, weights: Path, name: str, make: Callable[[Path], None], code: int
) -> None:
    folder = project(tmp_path / "project", weights)
    make(folder / name)
    done = invoke(folder, "inputs", check=False)
    assert done.exit_code == code, done.output
    if code == 3:
        (line,) = done.stderr.splitlines()
        assert name.split("/")[0] in line and "move it away" in line
    if code and (folder / name).is_file():
        assert (folder / name).read_text() == "mine"


def test_what_inputs_lock_claims_of_a_file_has_to_be_whole(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights, {"teacher.path": "gone.pt"})
    (folder / "inputs.lock").write_text(json.dumps({"gone.pt": {"sha256": "5", "bytes": "x"}}))
    done = invoke(folder, "inputs", check=False)
    assert done.exit_code == 2 and "gone.pt not found" in done.stderr


def test_a_student_that_takes_minutes_to_build_is_not_built(tmp_path: Path, weights: Path) -> None:
    changes = {"distill.student": "torchvision/vit_h_14"}
    student = checks(project(tmp_path / "project", weights, changes), 0)["student"]
    assert student["warning"] and student["parameters"] > 600_000_000
    assert "and so not built here: it costs more than the teacher" in student["text"]


def test_a_student_as_large_as_its_teacher_is_loud(tmp_path: Path, weights: Path) -> None:
    student = checks(project(tmp_path / "project", weights), 0)["student"]
    assert student["warning"]
    assert student["parameters"] <= student["teacher_parameters"]
    assert student["macs"] == student["teacher_macs"]
    assert "costs no less than the teacher" in student["text"]


def test_classes_of_one_name_but_for_case_are_told(tmp_path: Path, weights: Path) -> None:
    changes = {"crawl.classes": ["Red Fox", "red_fox", "badger"], "crawl.per_class": 100}
    found = checks(project(tmp_path / "project", weights, changes), 0)
    assert found["class names"]["warning"] and "Red Fox, red_fox" in found["class names"]["text"]


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    here = Path.cwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    try:
        os.chdir(gone)
        gone.rmdir()
        from typer.testing import CliRunner

        from kd3_stages.cli import app

        for command in (["check"], ["init", "."], ["preset"]):
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 2, command
            assert done.stderr == "error: the folder that you stand in is gone: `cd` to a project\n"
    finally:
        os.chdir(here)
