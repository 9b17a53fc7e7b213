"""Inputs outside the project: a change in place makes the stages that read them run again."""

import json
from pathlib import Path
from typing import Any

import pytest

from kd3_pipeline.console import Console
from kd3_stages.steps.inputs import note_inputs
from tests.stages.workspace import (
    ROOT,
    fresh_copy,
    inside,
    invoke,
    repro,
    run,
    stages_run,
    status,
)

AFTER_TEACHER = ["embed", "distill", "evaluate", "export", "report"]


@pytest.fixture
def folder(stub: Path, tmp_path: Path) -> Path:
    return fresh_copy(stub, tmp_path)


def test_what_changed_in_place_is_read_again_and_nothing_else(folder: Path) -> None:
    assert status(folder) == {"inputs": ["always changed"]}
    assert repro(folder) == []
    teacher = folder / "teacher/resnet8.pt"
    teacher.write_bytes(teacher.read_bytes()[::-1])  # of the same size
    assert repro(folder) == ["teacher", *AFTER_TEACHER]
    (folder / "images/cat/1.jpg").write_bytes(b"another image")
    assert repro(folder) == ["evaluate", "export", "report"]
    (folder / "web/1.jpg").rename(folder / "web/2.jpg")
    assert repro(folder) == ["crawl", "dedup", *AFTER_TEACHER]


def test_status_names_the_stages_whose_inputs_changed(folder: Path) -> None:
    (folder / "teacher/resnet8.pt").write_bytes(b"other weights")
    run(folder, "pipeline", "inputs")
    found = status(folder)
    assert found["teacher"] == [{"changed deps": {"data/inputs/teacher.json": "modified"}}]
    assert "crawl" not in found
    assert "evaluate" not in found


def test_a_default_that_changes_is_an_input_too(folder: Path) -> None:
    params = folder / "pipeline/params.py"
    params.write_text(params.read_text().replace("0.6, description=", "0.7, description="))
    run(folder, "pipeline", "inputs")
    found = status(folder)
    assert found["distill"] == [{"changed deps": {"data/inputs/distill.json": "modified"}}]
    assert "crawl" not in found


@pytest.mark.slow
def test_an_experiment_looks_at_the_inputs_too(folder: Path) -> None:
    (folder / "teacher/resnet8.pt").write_bytes(b"other weights")
    done = run(folder, "dvc", "exp", "run", "-S", "distill.epochs=3")
    assert stages_run(done) == ["inputs", "teacher", *AFTER_TEACHER]
    assert "epochs: 3" in (folder / "params.yaml").read_text()
    header, *rows = run(folder, "dvc", "exp", "show", "--csv").stdout.splitlines()
    assert "student.accuracy" in header
    assert len(rows) > 1


# what is noted, without DVC


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    for name in ("teacher.pt", "own.yaml", "web/1.jpg", "test/cat/1.jpg", "styles/art/cat/1.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def noted(params: str) -> dict[str, Any]:
    """What the stages' files say after `pipeline inputs` with these parameters."""
    Path("params.yaml").write_text(params)
    found = note_inputs(Console(quiet=True))
    for stage, values in found.items():
        assert json.loads(Path(f"data/inputs/{stage}.json").read_text()) == values
    return found


READ_BY = [
    ("crawl: {classes: own.yaml}", {"crawl": {"crawl.classes"}}),
    ("crawl: {classes: 'cat,dog'}", {}),
    ("crawl: {engine: files, source: web}", {"crawl": {"crawl.source"}}),
    ("crawl: {classes: 'cat,dog', blocklist: own.yaml}", {"crawl": {"crawl.blocklist"}}),
    (
        "crawl: {engine: files, source: web, classes: own.yaml}",
        {"crawl": {"crawl.source", "crawl.classes"}},
    ),
    ("crawl: {engine: urls, source: own.yaml}", {"crawl": {"crawl.source"}}),
    ("crawl: {engine: captions, source: web}", {"crawl": {"crawl.source"}}),
    ("crawl: {engine: captions, source: 'own*.yaml'}", {"crawl": {"crawl.source: own.yaml"}}),
    ("crawl: {engine: site, source: 'https://example.org/'}", {}),
    ("teacher: {source: file, path: teacher.pt}", {"teacher": {"teacher.path"}}),
    ("teacher: {data: test}", {"teacher": {"teacher.data"}}),
    (
        "teacher: {source: torch.hub, repository: web, weights: f}",
        {"teacher": {"teacher.repository"}},
    ),
    ("teacher: {source: torch.hub, repository: 'a/b:c', weights: f}", {}),
    ("evaluate: {test_set: cifar10}\ndedup: {leaks: true}", {}),
    ("evaluate: {test_set: test}", {"evaluate": {"evaluate.test_set"}}),
    (
        "evaluate: {test_set: test}\ndedup: {leaks: true}\nexport: {int8: static}",
        {name: {"evaluate.test_set"} for name in ("dedup", "evaluate", "export")},
    ),
    ("evaluate: {styles: styles}", {"evaluate": {"evaluate.styles"}}),
]


@pytest.mark.parametrize(("params", "readers"), READ_BY, ids=[text for text, _ in READ_BY])
def test_a_path_belongs_to_the_stages_that_read_it(
    place: Path, params: str, readers: dict[str, set[str]]
) -> None:
    found = noted(params)
    assert {stage: set(one["outside"]) for stage, one in found.items() if one["outside"]} == readers
    before = {stage: one["outside"] for stage, one in found.items()}
    for path in [place / "teacher.pt", place / "own.yaml", *place.rglob("1.jpg")]:
        path.write_bytes(path.read_bytes()[::-1])
    after = {stage: one["outside"] for stage, one in noted(params).items()}
    assert {stage for stage in after if after[stage] != before[stage]} == set(readers)


def test_an_input_that_is_missing_is_no_crash(place: Path) -> None:
    found = noted("teacher: {source: file, path: gone.pt}\nevaluate: {test_set: gone}")
    assert found["teacher"]["outside"] == {"teacher.path": {"path": "gone.pt", "missing": True}}
    assert found["evaluate"]["outside"]["evaluate.test_set"]["missing"]


def test_an_input_that_is_elsewhere_counts_as_unchanged(place: Path) -> None:
    params = "teacher: {source: file, path: teacher.pt}\n"
    before = noted(params)
    (place / "teacher.pt").rename(place / "other.pt")
    assert noted(params) == before, "a clone with the outputs need not have it"
    assert noted(params.replace("teacher.pt", "third.pt"))["teacher"] != before["teacher"]
    assert noted(params)["teacher"]["outside"]["teacher.path"]["missing"]
    (place / "inputs.lock").write_text("<<<<<<< HEAD")
    (place / "other.pt").rename(place / "teacher.pt")
    assert noted(params) == before


def test_a_project_without_inputs_outside_has_no_lock(place: Path) -> None:
    noted("")
    assert not (place / "inputs.lock").exists()


def test_defaults_are_noted_where_params_yaml_lacks_a_value(place: Path) -> None:
    found = noted("distill: {epochs: 3}\nevaluate: {test_set: test}")
    defaults = {stage: one["defaults"] for stage, one in found.items()}
    assert defaults["distill"]["distill.lr"] == 0.6
    assert "distill.epochs" not in defaults["distill"], "DVC tracks what params.yaml has"
    assert not [at for at in defaults["dedup"] if at.startswith("evaluate")]
    assert defaults["crawl"] == {}, "an upgrade must not crawl the web again"
    assert noted((ROOT / "params.yaml").read_text())["distill"]["defaults"] == {}


def test_the_crawl_runs_again_if_what_it_takes_from_other_sections_changes(place: Path) -> None:
    sides = [
        noted(f"crawl: {{engine: {engine}, side: {side}}}\nteacher: {{input_size: {size}}}")[
            "crawl"
        ]
        for engine, side, size in [
            ("commons", "auto", 32),
            ("commons", "auto", 224),
            ("commons", 500, 224),
            ("bing", "auto", 224),
        ]
    ]
    assert [one.get("taken") for one in sides] == [{"side": 128}, {"side": 896}, None, None]
    rounds = noted("crawl: {engine: bing, rounds: 1}\nembed: {fit: squash}")["crawl"]
    assert rounds["taken"] == {"embed.fit": "squash", "embed.size": 0}


def test_stages_run_again_if_what_they_take_from_other_sections_changes(place: Path) -> None:
    found = noted("embed: {fit: squash}\ndedup: {leaks: true}\nevaluate: {broken: 0.1}")
    assert found["teacher"]["taken"] == {"embed.fit": "squash", "embed.size": 0}
    assert found["dedup"]["taken"] == {
        "evaluate.test_set": "demo",
        "evaluate.columns": {},
        "evaluate.broken": 0.1,
    }
    assert "taken" not in noted("teacher: {source: file, path: teacher.pt}")["teacher"]


def test_files_of_class_names_are_inputs(place: Path) -> None:
    (place / "names.txt").write_text("cat\ndog\n")
    params = (
        "teacher: {class_names: names.txt}\nevaluate: {class_names: names.txt, test_set: test}\n"
        "export: {int8: static}"
    )
    before = noted(params)
    for stage in ("teacher", "evaluate", "export"):
        key = "evaluate.class_names" if stage == "export" else f"{stage}.class_names"
        assert before[stage]["outside"][key]["path"] == "names.txt"
    (place / "names.txt").write_text("dog\ncat\n")
    after = noted(params)
    assert [stage for stage in after if after[stage]["outside"] != before[stage]["outside"]] == [
        "teacher",
        "evaluate",
        "export",
    ]


def test_dvc_knows_a_file_for_each_stage_that_has_parameters(stub: Path) -> None:
    with inside(stub) as repo:
        (inputs,) = repo.stage.collect("inputs")
        written = {Path(str(out)).stem for out in inputs.outs}
    stages = {path.stem for path in (stub / "data/inputs").iterdir()}
    assert stages == written


def test_a_folder_that_is_no_project_is_told(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("crawl: {per_class: 16}\n")
    for command in ("status", "inputs"):
        done = invoke(tmp_path, command, check=False)
        assert done.exit_code == 2 and "dvc.yaml not found" in done.output
