"""dvc.yaml and the code's floors: who may import whom, and what makes a stage stale."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from kd3_pipeline.params import Params
from kd3_pipeline.runkey import NO_RESULT
from kd3_stages.cli import app
from kd3_stages.code import PACKAGES, ROOT, code_of, executed_files, imported_modules
from kd3_stages.generate import own_project
from tests.stages.workspace import fresh_copy, run, status

STAGES = {
    name: stage
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
    if "params" in stage
}
SOURCES = sorted(
    path for part in PACKAGES for path in (ROOT / part).rglob("*.py")
)  # fmt: skip
PARTS = ("crawl", "dedup", "teacher", "embed", "distill", "evaluate", "export", "report", "demo")
MOST_LINES = 80  # of a function
BORROWED = {
    ("labelled", "demo"),  # the demo's originals are a labelled data set like others
    ("copies", "dedup.verify"),  # how alike edges are is measured once, also for `evaluate`
}


def test_this_repository_is_a_project_as_init_makes_one() -> None:
    for name, text in own_project().items():
        assert (ROOT / name).read_text("utf-8") == text, "run `make generated`"
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert not {*(ROOT / "stages/project/gitignore").read_text().splitlines()} - {*ignored}


def test_the_crawl_depends_on_no_code() -> None:
    assert STAGES["crawl"]["deps"] == ["data/inputs/crawl.json"]


def test_a_stage_is_its_command_its_section_and_its_files() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands}
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"pipeline {name}"
        assert stage["params"][0] == name
        assert stage["deps"][0] == f"data/inputs/{name}.json"
        assert name in commands
        assert name in Params.model_fields
        assert (ROOT / f"stages/{name}.py").exists()
        assert (ROOT / f"stages/steps/{name}.py").exists()
    assert list(STAGES) == list(Params.model_fields)


def test_no_output_escapes_a_stage_by_persist_or_frozen() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert not {"persist", "frozen", "foreach"} & set(text.replace(":", " ").split())


def test_code_without_a_result_is_named_once_and_is_no_dependency() -> None:
    code = {file for stage in STAGES for file in code_of(stage)}
    for file in NO_RESULT:
        assert (ROOT / file).exists(), file
        assert file not in code


def test_a_class_that_is_loaded_by_name_counts_as_run() -> None:
    listed = code_of("distill")
    for path in (ROOT / "kd3_pipeline/distill/objectives").glob("*.py"):
        assert path.relative_to(ROOT).as_posix() in listed


def test_templates_beside_the_code_count_as_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kd3_stages.code.ROOT", tmp_path)
    package = tmp_path / "kd3_pipeline/page"
    for name in ("__init__.py", "a.py", "page.css", "templates/base.j2", "other/__init__.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x = 1\n")
    (package / "other/other.j2").write_text("of a package that nothing imports")
    (package / "notes.txt").write_text("no code reads it")
    found = {path.as_posix() for path in executed_files(package / "a.py")}
    assert found == {
        f"kd3_pipeline/page/{name}" for name in ("a.py", "page.css", "templates/base.j2")
    }


def test_words_make_no_stage_stale_and_work_does(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    for file in NO_RESULT:
        touch(folder / file)
    touch(folder / "stages/distill.py")
    run(folder, "pipeline", "inputs")
    assert status(folder) == {"inputs": ["always changed"]}
    touch(folder / "kd3_pipeline/kd3/selection.py")
    run(folder, "pipeline", "inputs")
    changed = status(folder)
    assert changed["distill"] == [{"changed deps": {"data/inputs/distill.json": "modified"}}]
    assert "embed" not in changed


def touch(path: Path) -> None:
    path.write_text(path.read_text() + "# edited\n")


# who imports whom


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    floor, part, *_ = path.relative_to(ROOT).with_suffix("").parts
    for module in imported_modules(path):
        other, name = [*module.split("."), "", ""][:2]
        if floor == "kd3_pipeline":
            assert other != "kd3_stages", module
        if floor == "kd3_pipeline" and part == "kd3":
            allowed = other in {"math", "typing", "torch"} or module.startswith("kd3_pipeline.kd3")
            assert allowed, f"kd3 knows tensors alone, not {module}"
        if floor == "kd3_pipeline" and other == "kd3_pipeline" and name in PARTS:
            borrowed = any(
                part == who and f"{module}.".startswith(f"kd3_pipeline.{what}.")
                for who, what in BORROWED
            )
            assert part == name or borrowed, f"{part} imports {module}"
        if floor == "kd3_stages" and part == "steps" and other == "kd3_stages":
            assert name in ("", "steps", "paths", "code", "sources"), f"a step imports {module}"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def test_no_import_comes_back_in_a_circle() -> None:
    waiting = {path: set(imported_files(path)) - {path} for path in SOURCES}
    while free := [path for path, needs in waiting.items() if not needs & waiting.keys()]:
        for path in free:
            del waiting[path]
    assert not {str(path.relative_to(ROOT)) for path in waiting}


def imported_files(path: Path) -> Iterator[Path]:
    """The project's files that a file names in its imports, without the packages they are in."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if file_of(name) else str(node.module) for name in inner]
        else:
            continue
        yield from filter(None, map(file_of, names))


@cache
def file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next(
        (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None
    )


def test_no_function_is_too_long_to_read() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno >= MOST_LINES
    ]
    assert not long
