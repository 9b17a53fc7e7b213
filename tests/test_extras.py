"""Hints that say what to install: packages that every registry has, into this environment."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kd3_pipeline import extras
from kd3_pipeline.extras import ONNX, PACKAGES, install, install_extra
from tests.imports import ROOT

SOURCES = [path for part in ("pipeline", "stages") for path in (ROOT / part).rglob("*.py")]


def test_the_extras_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = declared["optional-dependencies"]
    assert {name: sorted(of) for name, of in PACKAGES.items()} == {
        name: sorted(of) for name, of in optional.items() if name not in ("dev", "slow")
    }
    assert set(ONNX) <= set(declared["dependencies"])


def test_a_hint_names_packages_and_quotes_what_a_shell_would_take_for_its_own() -> None:
    said = install_extra("tune")
    assert shlex.split(said)[-2:] == ["optuna>=4.2", "optuna-dashboard>=0.17"]
    assert "'optuna>=4.2'" in said and sys.executable in said


@pytest.mark.parametrize("own_pip", [True, False])
def test_the_environment_is_this_one_with_or_without_a_pip_of_its_own(
    own_pip: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "my env/bin/python"
    monkeypatch.setattr(extras.sys, "executable", str(python))
    monkeypatch.setattr(extras, "find_spec", lambda name: object() if own_pip else None)
    start = [str(python), "-m", "pip"] if own_pip else ["pip", "--python", str(python)]
    assert shlex.split(install("onnx")) == [*start, "install", "onnx"]


def test_no_hint_names_an_install_that_no_registry_has() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text().splitlines()
        if re.search(r"install (-e|'?kd3-pipeline|the extra)", line)
    ]
    assert found == []


def test_without_the_package_a_command_says_how_to_get_it_here(tmp_path: Path) -> None:
    code = "import sys; sys.modules['onnx'] = None\n" + (
        "from pathlib import Path; from kd3_pipeline.program import onnx_graph\n"
        "onnx_graph.read_onnx(Path('x.onnx'))"
    )
    (tmp_path / "x.onnx").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"onnx is not installed: {install(*ONNX)}" in done.stderr


def test_the_environment_of_a_clone_has_a_pip_of_its_own() -> None:
    """Else `pip install` in it is that of the machine, and installs elsewhere."""
    dry = ["make", "--dry-run", "--always-make", "setup"]
    done = subprocess.run(dry, cwd=ROOT, text=True, capture_output=True, check=True)
    (line,) = [one for one in done.stdout.splitlines() if "--editable" in one]
    assert "pip" in line.split()[line.split().index("--constraint") :]
