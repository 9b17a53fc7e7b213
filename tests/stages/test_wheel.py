"""The wheel, built and run as a user has it: no clone, an empty folder, `init` and `repro`."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kd3_pipeline.presets import preset_names
from kd3_pipeline.version import __version__
from kd3_stages.steps.init import COPIES
from tests.imports import ROOT
from tests.stages.workspace import STAGES, environment, stages_run

pytestmark = pytest.mark.slow
PYTHON = Path(sys.base_prefix) / "bin/python3"  # it has a pip; this environment may have none
SOURCES = ("pipeline", "stages", "pyproject.toml", "README.md", "LICENSE", "Makefile")
SMALL = {
    "  per_class: 100\n": "  per_class: 16\n",
    "  images: 2000\n": "  images: 200\n",
    "  epochs: 6\n": "  epochs: 1\n",
    "  epochs: 20\n": "  epochs: 2\n",
    "  images: 500\n": "  images: 100\n",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheel` builds of a copy of the sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    command = ["make", "--silent", "wheel", f"PYTHON={PYTHON}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / f"dist/kd3_pipeline-{__version__}-py3-none-any.whl"


def test_the_wheel_has_both_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"kd3_pipeline-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"kd3_pipeline", "kd3_stages", info}
    for package, folder in (("kd3_pipeline", "pipeline"), ("kd3_stages", "stages")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        there = {
            f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
            for path in files
            if "__pycache__" not in path.parts
        }
        assert there == {name for name in names if name.startswith(f"{package}/")}
    templates = {f"kd3_stages/project/{name}" for name in (*COPIES.values(), "gitignore")}
    presets = {f"kd3_pipeline/presets/{name}.yaml" for name in preset_names()}
    assert templates | presets <= names
    entry = zipfile.ZipFile(wheel).read(f"{info}/entry_points.txt").decode()
    assert "pipeline = kd3_stages.cli:main" in entry


def test_with_the_wheel_alone_init_and_repro_end_with_a_report(wheel: Path, tmp_path: Path) -> None:
    site, place = tmp_path / "site", tmp_path / "an empty place"
    place.mkdir()
    for name in ("pipeline", "stages"):  # a user's own, which the packages must not meet
        (place / f"{name}.py").write_text("raise ImportError('a file of the user')\n")
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, timeout=300)
    env = environment(site) | {"PYTHONPATH": os.fspath(site), "HOME": os.fspath(tmp_path / "home")}

    def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "kd3_stages", *words],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=550,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    said = command(place, *["init", "demo", "--preset", "quick"]).stdout
    assert said == "init: demo, preset quick; next: cd demo; pipeline repro\n"
    folder = place / "demo"
    text = (folder / "params.yaml").read_text()
    for old, new in SMALL.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)
    assert sorted(stages_run(command(folder, "repro"))) == sorted(STAGES)
    for file in ("reports/index.html", "reports/figures.json", "models/export/model.onnx"):
        assert (folder / file).stat().st_size, file
    assert stages_run(command(folder, "repro")) == ["inputs"]
