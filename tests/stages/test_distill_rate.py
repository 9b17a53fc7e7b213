"""`pipeline distill` with `lr: auto`: a rate is found, told, and not found twice."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kd3_pipeline.distill.peak_rate import RATES
from tests.stages.workspace import environment, invoke, run

AUTO = ("distill", "--set", "distill.lr=auto")


@pytest.mark.slow
def test_a_rate_is_found_told_and_written(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(project, folder, symlinks=True)
    done = invoke(folder, *AUTO)
    summary = json.loads((folder / "reports/distill.json").read_text())
    assert summary["lr"] in RATES["sgd"]
    note = next(line for line in done.stderr.splitlines() if line.startswith("note: learning"))
    assert note.startswith(f"note: learning rate {summary['lr']}; agreement after short runs was")
    assert all(f"{rate} (" in note for rate in RATES["sgd"])
    peak = max(
        float(line.split(",")[1])
        for line in (folder / "reports/distill.csv").open()
        if line[0] != "e"
    )
    assert 0 < peak <= summary["lr"]
    assert summary["epochs"] == 2
    assert not list(folder.glob(".cache/distill/*"))


@pytest.mark.slow
def test_an_interrupted_search_for_a_rate_goes_on(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(project, folder, symlinks=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "kd3_stages", *AUTO, "--quiet"],
        cwd=folder,
        env=environment(folder),
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(
        folder.glob(".cache/distill/*/rates/*/agreement.json")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    (known,) = folder.glob(".cache/distill/*/rates/rate-0.1/agreement.json")
    known.write_text('{"agreement": 1.0}')  # no run can beat it, if it is read
    done = run(folder, "pipeline", *AUTO)
    assert "learning rate 0.1; agreement after short runs was 0.1 (100.0%)" in done.stderr
    assert json.loads((folder / "reports/distill.json").read_text())["lr"] == 0.1
