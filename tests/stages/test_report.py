"""`pipeline report` as a user meets it: the page, opened, and watched while others write."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kd3_pipeline.version import __version__
from kd3_stages.cli import app
from kd3_stages.steps.report import _under_way
from tests.report.world import World
from tests.stages.workspace import ROOT, fresh_copy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with what all stages before the report leave."""
    World().write(tmp_path / "data")
    shutil.move(tmp_path / "data/reports", tmp_path / "reports")
    (tmp_path / "params.yaml").write_text("report: {thumbnails: 4, map_images: 20}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(folder: Path) -> str:
    path = folder / "reports/index.html"
    return path.read_text("utf-8") if path.exists() else ""


def wait(until: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_page_is_written_and_its_size_told(folder: Path) -> None:
    done = CliRunner().invoke(app, ["report", "--json"])
    result = json.loads(done.stdout)
    assert result == {"path": "reports/index.html", "bytes": len(page(folder).encode())}
    assert "The student is right on" in page(folder)
    assert 'id="map"' in page(folder)


def test_the_page_says_what_it_is_of_and_which_command_wrote_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> str:
        top = page(folder).split("<main>")[0].split("<body>")[1]
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", top)).split())

    monkeypatch.delenv("DVC_STAGE", raising=False)
    CliRunner().invoke(app, ["report", "--set", "report.map_images=0"])
    text = said()
    assert f"Distillation report of {folder.name} " in text
    assert f"Version kd3-pipeline {__version__}" in text
    assert re.search(r"Made 20\d\d-\d\d-\d\d \d\d:\d\d UTC", text)
    assert "Command pipeline report --set report.map_images=0 2 parameters other" in text
    assert "report.thumbnails 4 60" in text
    monkeypatch.setenv("DVC_STAGE", "report")
    CliRunner().invoke(app, ["report"])
    assert "Command dvc repro 2 parameters other" in said()


def test_a_missing_file_is_one_line(folder: Path) -> None:
    (folder / "reports/metrics.json").unlink()
    done = CliRunner().invoke(app, ["report"])
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "error: reports/metrics.json not found: run `dvc repro evaluate`"
    ]
    assert not page(folder)


def test_open_shows_the_page_that_was_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    CliRunner().invoke(app, ["report", "--open", "--set", "report.map_images=0"])
    assert opened == [(folder / "reports/index.html").resolve().as_uri()]


@pytest.mark.slow
def test_watch_follows_a_run_from_its_first_epoch_to_its_evaluation(folder: Path) -> None:
    curves, metrics = folder / "reports/distill.csv", folder / "reports/metrics.json"
    header, *rows = curves.read_text().splitlines(keepends=True)
    curves.unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "kd3_stages", "report", "--watch", "--set", "report.map_images=0"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait(lambda: "there is nothing to show" in page(folder), process)
        curves.write_text(header + rows[0])  # metrics.json is of the run before
        wait(lambda: "1 epoch has ended" in page(folder), process)
        curves.write_text(header + "".join(rows))
        wait(lambda: "5 epochs have ended" in page(folder), process)
        # evaluated, but a file is gone, as while a stage writes it anew
        selection, index = folder / "data/distill/selection.parquet", folder / "reports/index.html"
        selection.rename(folder / "selection")
        written = index.stat().st_mtime_ns
        os.utime(metrics)
        wait(lambda: index.stat().st_mtime_ns > written, process)
        assert "5 epochs have ended" in page(folder)
        (folder / "selection").rename(selection)
        metrics.write_text(metrics.read_text())
        wait(lambda: "The student is right on" in page(folder), process)
    finally:
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stdout.startswith("report: ")
    assert "Traceback" not in stderr


def test_after_a_checkout_a_watch_shows_the_whole_report(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh_copy(project, tmp_path))
    curves = Path("reports/distill.csv")
    os.utime("reports/metrics.json", (1, 1))  # a checkout writes files in any order
    assert not _under_way()
    curves.write_text(curves.read_text() + "\n")  # another run has begun
    assert _under_way()
