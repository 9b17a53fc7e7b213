"""Imports between files of the project, also of those that no test runs."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.imports import ROOT

OURS = ("kd3_pipeline", "kd3_stages", "benchmarks", "tests")


def test_what_a_file_imports_from_another_is_there() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {node.module}.{alias.name}"
        for part in OURS
        for path in sorted((ROOT / part).rglob("*.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and f"{node.module}".partition(".")[0] in OURS
        for alias in node.names
        if alias.name not in names_of(f"{node.module}")
    ]
    assert missing == []


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def names_of(module: str) -> set[str]:
    """What can be imported from a module, or a package."""
    base = ROOT.joinpath(*module.split("."))
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    inside = {path.stem for path in base.glob("*")}
    return inside | (set(bound(tree(file))) if file.exists() else set())


def bound(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
