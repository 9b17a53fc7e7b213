"""The pipeline under the real DVC: what runs, and what does not run again."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.stages.conftest import write_labelled
from tests.stages.workspace import (
    STAGES,
    TINY,
    copy_project,
    fresh_copy,
    repro,
    run,
    set_param,
    stages_run,
)


@pytest.mark.slow
def test_a_first_repro_runs_every_stage(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project", TINY)
    write_labelled(folder / "original.parquet", 320)
    run(folder, "git", "init", "-q")
    assert sorted(stages_run(run(folder, "dvc", "repro"))) == sorted(STAGES)
    assert stages_run(run(folder, "dvc", "repro")) == ["inputs"]


def test_every_stage_leaves_its_outputs(project: Path) -> None:
    for output in (
        "data/crawl/manifest.parquet",
        "data/dedup/images.parquet",
        "models/teacher/model.safetensors",
        "data/embed/index.faiss",
        "models/student/model.safetensors",
        "data/distill/selection.parquet",
        "reports/distill.csv",
        "reports/metrics.json",
        "models/export/README.md",
        "reports/predictions.csv",
        "reports/index.html",
    ):
        assert (project / output).stat().st_size, output


def test_every_candidate_of_the_crawl_is_accounted_for(project: Path) -> None:
    counts = json.loads((project / "reports/crawl.json").read_text())
    manifest = pq.read_table(project / "data/crawl/manifest.parquet")
    assert manifest.num_rows == counts["candidates"] == sum(counts["outcomes"].values())
    shards = sorted((project / "data/crawl").glob("images-*.parquet"))
    assert sum(pq.read_metadata(shard).num_rows for shard in shards) == counts["stored"]


def test_a_finished_run_leaves_no_state_but_downloads_and_hashes(project: Path) -> None:
    left = {path.name for path in (project / ".cache").iterdir() if any(path.iterdir())}
    assert left == {"crawl", "dedup", "inputs"}
    assert not list(project.rglob("*.tmp*"))


def test_a_second_repro_runs_nothing_and_finds_the_environments_commands(
    project: Path, tmp_path: Path
) -> None:
    folder = fresh_copy(project, tmp_path)
    done = run(folder, "env", "PATH=/usr/bin:/bin", sys.executable, "-m", "kd3_stages", "repro")
    assert stages_run(done) == ["inputs"]
    assert "Stage 'report' didn't change, skipping" in done.stdout


def test_pipeline_status_looks_at_the_inputs_first(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    with (folder / "original.parquet").open("ab") as file:
        file.write(b"more")
    said = run(folder, "pipeline", "status").stdout
    assert "teacher:" in said
    assert "data/inputs/teacher.json" in said
    assert "crawl:" not in said


def test_repro_runs_what_changed_and_nothing_else(stub: Path, tmp_path: Path) -> None:
    folder = fresh_copy(stub, tmp_path)
    set_param(folder, "epochs: 2", "epochs: 3")
    set_param(folder, "seed: 0", "seed: 1")
    assert repro(folder) == ["distill", "evaluate", "export", "report"]
    set_param(folder, "styles: styles", "styles: images")
    assert repro(folder) == ["evaluate", "export", "report"]
    set_param(folder, "leaks: false", "leaks: true")
    assert repro(folder) == ["dedup", "embed", "distill", "evaluate", "export", "report"]


def test_a_quiet_repro_prints_nothing_of_its_stages(stub: Path, tmp_path: Path) -> None:
    folder = fresh_copy(stub, tmp_path)
    (folder / "data/inputs/report.json").unlink()
    done = run(folder, "pipeline", "repro", "--quiet")  # in which `inputs` always runs
    assert (done.stdout, done.stderr) == ("", "")
    assert (folder / "data/inputs/report.json").exists()


@pytest.mark.slow
def test_an_experiment_distils_with_its_own_values(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    done = run(folder, "dvc", "exp", "run", "-S", "distill.lr=0.02")
    assert stages_run(done) == ["inputs", "distill", "evaluate", "export", "report"]
    assert "lr: 0.02" in (folder / "params.yaml").read_text()
    table = run(folder, "dvc", "exp", "show", "--csv").stdout
    assert "0.02" in table
    changed = run(folder, "dvc", "exp", "show", "--only-changed", "--csv").stdout.splitlines()[0]
    assert "distill.lr" in changed and "crawl.classes" not in changed
    show = ("dvc", "exp", "show", "--only-changed", "--drop", "(data|models|reports)/", "--csv")
    narrow = run(folder, *show).stdout.splitlines()[0]
    assert "distill.lr" in narrow and "/" not in narrow
