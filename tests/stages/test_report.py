"""`pipeline report` as a user meets it: the page, opened, and watched while others write."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.conftest import World
from tests.stages.workspace import copy_project, environment, run

PARAMS = "report: {thumbnails: 4, map_images: 20}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project with what all stages before the report leave."""
    folder = copy_project(tmp_path / "project", PARAMS)
    World().write(folder / "data")
    shutil.move(folder / "data/reports", folder / "reports")
    return folder


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
    done = run(folder, "pipeline", "report", "--json")
    result = json.loads(done.stdout)
    assert result == {"path": "reports/index.html", "bytes": len(page(folder).encode())}
    assert "The student is right on" in page(folder)
    assert 'id="map"' in page(folder)


def test_a_missing_file_is_one_line(folder: Path) -> None:
    (folder / "reports/metrics.json").unlink()
    done = run(folder, "pipeline", "report", check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: the report needs reports/metrics.json, which is missing: run `pipeline evaluate`"
    )
    assert not page(folder)


def test_open_shows_the_page_that_was_written(folder: Path) -> None:
    browser = folder / "browser"
    browser.write_text(f'#!{sys.executable}\nimport sys\nopen("opened", "w").write(sys.argv[1])\n')
    browser.chmod(0o755)
    subprocess.run(
        [sys.executable, "-m", "stages", "report", "--open", "--quiet"],
        cwd=folder,
        env=environment(folder) | {"BROWSER": f"{browser} %s"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    opened = (folder / "opened").read_text()
    assert opened == (folder / "reports/index.html").resolve().as_uri()


def test_watch_follows_a_run_from_its_first_epoch_to_its_evaluation(folder: Path) -> None:
    curves, metrics = folder / "reports/distill.csv", folder / "reports/metrics.json"
    header, *rows = curves.read_text().splitlines(keepends=True)
    curves.unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", "report", "--watch"],
        cwd=folder,
        env=environment(folder),
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
