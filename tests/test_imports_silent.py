"""No import of this software tells anybody of itself, nor writes into the home folder."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from kd3_stages.code import PACKAGES
from tests.watched import can_watch, watched

ROOT = Path(__file__).parent.parent
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
REPORTING = ("onnxruntime", "openvino")  # libraries that tell of themselves unless told not to
needs_namespaces = pytest.mark.skipif(not can_watch(), reason="no namespaces for this user")


def imported() -> set[str]:
    """Libraries that the code imports anywhere, of those that are installed."""
    files = [file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    outer = {name for name in found if name.split(".")[0] not in PACKAGES}
    return {name for name in outer if importlib.util.find_spec(name.split(".")[0])}


def snippets() -> list[tuple[str, str]]:
    """Page and imports of each example in Python that imports a library which reports."""
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("pipeline/*/*.j2")]
    found = []
    for page in pages:
        for code in SNIPPET.findall(page.read_text("utf-8")):
            if any(name in code for name in REPORTING):
                lines = code.splitlines()
                last = max(n for n, line in enumerate(lines) if line.startswith(("import", "from")))
                found.append((page.name, "\n".join(lines[: last + 1])))
    return found


@needs_namespaces
def test_what_is_watched_is_seen(tmp_path: Path) -> None:
    code = (
        "import pathlib, socket\n"
        "pathlib.Path.home().joinpath('id').touch()\n"
        "try: socket.getaddrinfo('collector.example', 443)\nexcept OSError: pass"
    )
    seen = watched(code, tmp_path)
    assert seen.files == ["id"]
    assert set(seen.names) == {"collector.example"}


@needs_namespaces
@pytest.mark.parametrize("library", REPORTING)
def test_a_library_that_reports_is_silent_under_this_one(library: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    code = f"import time, kd3_pipeline, {library}\ntime.sleep(1)"
    seen = watched(code, tmp_path)
    assert (seen.files, seen.names) == ([], [])


@needs_namespaces
@pytest.mark.parametrize("page, code", snippets(), ids=lambda one: one.split("\n")[0][:20])
def test_an_example_reports_nothing(page: str, code: str, tmp_path: Path) -> None:
    seen = watched(f"{code}\nimport time; time.sleep(1)", tmp_path)
    assert (seen.files, seen.names) == ([], [])


def test_every_page_with_such_a_library_is_looked_at() -> None:
    assert {page for page, _ in snippets()} >= {"card.md.j2", "export.md", "runtimes.md"}


@needs_namespaces
@pytest.mark.slow
def test_no_library_that_is_imported_reports(tmp_path: Path) -> None:
    names = sorted(imported() | {"dvc.cli"})  # run as a program of its own
    assert {"torch", "dvc", "faiss"} <= {name.split(".")[0] for name in names}
    code = (
        "import importlib, time, kd3_pipeline\n"
        f"for name in {names}:\n"
        "    try:\n        importlib.import_module(name)\n"
        "    except ImportError:\n        print('left out', name)\n"
        "time.sleep(2)"
    )
    seen = watched(code, tmp_path)
    assert (seen.files, seen.names) == ([], [])
