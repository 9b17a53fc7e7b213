"""Names of torch, torchvision and timm that may go without notice are not used."""

import ast

import pytest

from tests.imports import ROOT

PARTS = ("models", "embed", "teacher")


@pytest.mark.parametrize("part", PARTS)
def test_no_private_name_of_a_library_is_used(part):
    for path in sorted((ROOT / "pipeline" / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            where = f"{path.relative_to(ROOT)}, line {getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and not _is_own(node.value):
                private = node.attr.startswith("_") and not node.attr.endswith("__")
                assert not private, f"{where}: .{node.attr} is another's private name"
            if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("kd3_pipeline"):
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                private = [name for name in names if name.startswith("_") and name != "__future__"]
                assert not private, f"{where}: {private[0]} is another's private name"


def _is_own(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls")
