"""Which of the project's files a module executes, found by reading its imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "stages")


def executed_files(start: Path) -> set[Path]:
    """`start` and all of the project's files that importing it, or calling what is in it, runs.

    Files of a package that are not code (templates, class sets) count as read by the package.
    Empty files do not count.
    """
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imported_modules(path):
            waiting += _files_of(module)
    data = {
        file
        for path in seen
        for file in path.parent.iterdir()
        if file.is_file() and file.suffix in (".yaml", ".j2", ".css") and path.parent != ROOT
    }
    return {path.relative_to(ROOT) for path in seen | data if path.stat().st_size}


def imported_modules(path: Path) -> set[str]:
    """Names that a file imports anywhere in it: modules, and for `from a import b` also a.b."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            modules.add(node.module or "")
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def _files_of(module: str) -> list[Path]:
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return []
    found = []
    for end in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:end])
        found += [path for path in (base / "__init__.py", base.with_suffix(".py")) if path.exists()]
    return found
