"""The pipeline under the real DVC: what runs, and what does not run again."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from tests.stages.workspace import fresh_copy, run, set_param, stages_run

ALL = ["crawl", "dedup", "teacher", "embed", "distill", "evaluate", "export", "report"]


def test_a_first_repro_runs_every_stage_and_leaves_every_output(project: Path) -> None:
    log = (project / "repro.log").read_text()
    assert sorted(line.split("'")[1] for line in log.splitlines() if "Running stage" in line) == (
        sorted(ALL)
    )
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
    assert left == {"crawl", "dedup"}
    assert not list(project.rglob("*.tmp*"))


def test_repro_runs_what_changed_and_nothing_else(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    assert stages_run(run(folder, "dvc", "repro")) == []
    set_param(folder, "epochs: 2", "epochs: 3")
    assert stages_run(run(folder, "dvc", "repro")) == ["distill", "evaluate", "export", "report"]
    set_param(folder, "images: 60", "images: 50")
    assert stages_run(run(folder, "dvc", "repro")) == ["evaluate", "export", "report"]
    set_param(folder, "radius: 4", "radius: 0")
    ran = stages_run(run(folder, "dvc", "repro"))
    assert ran == ["dedup", "embed", "distill", "evaluate", "export", "report"]


def test_experiments_metrics_and_plots_work(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    done = run(folder, "dvc", "exp", "run", "-S", "distill.lr=0.02")
    assert stages_run(done) == ["distill", "evaluate", "export", "report"]
    assert "lr: 0.02" in (folder / "params.yaml").read_text()
    table = run(folder, "dvc", "exp", "show", "--csv").stdout
    assert "student.accuracy" in table.splitlines()[0]
    assert "0.02" in table
    metrics = json.loads(run(folder, "dvc", "metrics", "show", "--json").stdout)
    shown = metrics[""]["data"]["reports/metrics.json"]["data"]
    assert (
        shown["student"]["accuracy"]
        == json.loads((folder / "reports/metrics.json").read_text())["student"]["accuracy"]
    )
    run(folder, "dvc", "plots", "show", "-o", "plots")
    assert "vega" in (folder / "plots/index.html").read_text().lower()


def test_pipeline_repro_finds_the_environments_commands(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    done = run(folder, "env", "PATH=/usr/bin:/bin", *_python(), "-m", "stages", "repro", "report")
    assert "Stage 'report' didn't change, skipping" in done.stdout


def _python() -> tuple[str, ...]:
    import sys

    return (sys.executable,)
