"""Distillation has no way to a labelled original image."""

import shutil
from pathlib import Path

import yaml

from tests.imports import ROOT, executed_files
from tests.stages.workspace import run


def test_distill_runs_with_the_original_data_removed_from_the_disk(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(project, folder, symlinks=True)
    shutil.rmtree(folder / "models/student")
    (folder / "original.parquet").unlink()
    for name in ("labelled", "demo", "crawl", "dedup", "evaluate"):
        shutil.rmtree(folder / "pipeline" / name)
    run(folder, "pipeline", "distill")
    before, after = (path / "models/student/model.safetensors" for path in (project, folder))
    assert before.read_bytes() == after.read_bytes()


def test_no_code_of_distill_reads_labels() -> None:
    code = {str(path) for path in executed_files(ROOT / "kd3_stages/distill.py")}
    of_labels = ("kd3_pipeline/labelled", "kd3_pipeline/demo", "kd3_pipeline/evaluate")
    assert not {path for path in code if path.startswith(of_labels)}


def test_dvc_gives_distill_web_images_and_the_teacher_only() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["distill"]
    assert stage["deps"] == ["data/inputs/distill.json", "data/embed", "models/teacher"]
