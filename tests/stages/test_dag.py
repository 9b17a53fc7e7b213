"""dvc.yaml says what the code says: DVC leaves a stage stale, silently, when a file is missing."""

from pathlib import Path

import pytest
import yaml

from pipeline.params import Params
from stages.cli import app
from tests.imports import PACKAGES, ROOT, executed_files, imported_modules

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
HEAVY_PARTS = ("crawl", "dedup", "embed", "distill", "evaluate", "export", "report", "demo")


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "crawl"])
def test_a_stage_depends_on_exactly_the_code_that_it_runs(stage: str) -> None:
    listed = {Path(dep) for dep in STAGES[stage]["deps"] if dep.startswith(PACKAGES)}
    assert listed == executed_files(ROOT / "stages" / f"{stage}.py")


def test_the_crawl_depends_on_no_code() -> None:
    assert "deps" not in STAGES["crawl"]


def test_a_stage_is_its_command_its_section_and_its_file() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands}
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"pipeline {name}"
        assert stage["params"][0] == name
        assert name in commands
        assert name in Params.model_fields
        assert len((ROOT / "stages" / f"{name}.py").read_text().splitlines()) <= 120


def test_no_output_escapes_a_stage_by_persist_or_frozen() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert not {"persist", "frozen", "foreach"} & set(text.replace(":", " ").split())


def test_imports_go_one_way() -> None:
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        part = path.relative_to(ROOT / "pipeline").parts[0]
        for module in imported_modules(path):
            where = f"{path.relative_to(ROOT)} imports {module}"
            assert not module.startswith("stages"), where
            if part == "kd3":
                assert module.split(".")[0] in {"math", "typing", "torch"} or module.startswith(
                    "pipeline.kd3"
                ), where
            if part in HEAVY_PARTS and module.startswith("pipeline."):
                other = module.split(".")[1]
                assert other == part or other not in HEAVY_PARTS, where
