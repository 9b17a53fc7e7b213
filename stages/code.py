"""Code of a stage: the files of this software that it executes, found by reading their imports."""

import ast
import hashlib
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from kd3_pipeline import registry
from kd3_pipeline.registry import Registry
from kd3_pipeline.runkey import NO_RESULT

ROOT = Path(__file__).parent.parent  # of both packages: this repository, or site-packages
PACKAGES = ("kd3_pipeline", "kd3_stages")
DATA = (".yaml", ".j2", ".css", ".js")  # files beside the code that it reads


def code_hash(stage: str) -> str:
    """SHA-256 of the files that decide a stage's result, with their names."""
    digest = hashlib.sha256()
    for name in code_of(stage):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256((ROOT / name).read_bytes()).digest())
    return digest.hexdigest()


def code_of(stage: str) -> list[str]:
    """The files that decide a stage's result, relative to the folder of both packages.

    They begin at the stage's step: its options in stages/ only set parameters, for one run.
    """
    found = executed_files(ROOT / "kd3_stages" / "steps" / f"{stage}.py", NO_RESULT)
    return sorted(path.as_posix() for path in found)


def executed_files(start: Path, without: Collection[str] = ()) -> set[Path]:
    """`start` and all files of this software that importing it, or calling what is in it, runs.

    Files of a package that are not code (templates, class sets) count as read by the package;
    empty files do not count. Classes of a registry count where one is loaded by name.

    Args:
        start: a file of one of the packages.
        without: files, relative to the folder of both, that neither count nor are followed.
    """
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in seen or path.relative_to(ROOT).as_posix() in without:
            continue
        seen.add(path)
        for module in imported_modules(path):
            waiting += _files_of(ROOT, module)
    data = {file for folder in {path.parent for path in seen} for file in _data_in(folder)}
    return {path.relative_to(ROOT) for path in seen | data if path.stat().st_size}


@cache
def imported_modules(path: Path) -> frozenset[str]:
    """Names that a file imports anywhere in it: modules, and for `from a import b` also a.b.

    Which module `OBJECTIVES.load(name)` imports, only running it can tell: all of the registry's
    package are named.
    """
    modules: set[str] = set()
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    called: dict[str, str] = {}  # names in this file: what they are
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{path}:{node.lineno}: relative import: its full name is needed here"
                )
            modules |= {node.module or "", *(f"{node.module}.{one.name}" for one in node.names)}
            called |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in ast.walk(tree) if ".load" in text else ():
        if isinstance(node, ast.Attribute) and node.attr == "load":
            name = getattr(node.value, "id", "") or getattr(node.value, "attr", "")
            modules |= _registered(called.get(name, name))
    return frozenset(modules)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node; imports are statements, and most nodes are in expressions."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        below = getattr(node, field, ())
        for one in below if isinstance(below, list) else ():
            yield one
            yield from _statements(one)


def _registered(name: str) -> set[str]:
    """All modules that the registry of this name in pipeline/registry.py may load."""
    found = getattr(registry, name, None)
    if not isinstance(found, Registry):
        return set()
    folder = ROOT.joinpath(*found.package.split("."))
    return {f"{found.package}.{path.stem}" for path in folder.glob("*.py")}


def _data_in(folder: Path) -> Iterator[Path]:
    """Files that are not code in a package, and in its folders that are no packages."""
    for path in folder.iterdir():
        if path.suffix in DATA:
            yield path
        elif path.is_dir() and not (path / "__init__.py").exists():
            yield from _data_in(path)


@cache
def _files_of(root: Path, module: str) -> list[Path]:
    """Files that importing a module runs: its own and those of the packages that it is in."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return []
    found = []
    for end in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:end])
        found += [path for path in (base / "__init__.py", base.with_suffix(".py")) if path.exists()]
    return found
