"""Embedding in a process of its own that is interrupted or killed."""

import multiprocessing
import os
import shutil
import signal
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from kd3_pipeline import console
from kd3_pipeline.embed.arrays import ArrayWriter
from kd3_pipeline.models.checkpoint import save_model
from kd3_pipeline.store import write_table
from kd3_stages.cli import app

from .conftest import Crawled, contents, run

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.embed.test_resume"])
CHANNELS: list[Connection] = []
LAYOUT = {"a.npy": (np.uint8, (2,)), "b.npy": (np.float32, ())}


def command(workspace: Path, channel: Connection, stop: int) -> None:
    """Runs `pipeline embed`; at that call of `advance`, counted from 1, waits for its end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(workspace)
    # the server of forks may have been started by another test, with that one's stderr
    os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    calls: list[int] = []

    def advance(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if len(calls) == stop:
            channel.send(calls)
            channel.recv()

    console.no_progress = advance
    try:
        app(["embed", "--quiet"], prog_name="pipeline")
    finally:
        channel.send(calls)


def started(workspace: Path, stop: int) -> tuple[BaseProcess, list[int]]:
    """A process that has come to that call, or to its end, and what it advanced by."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=command, args=(workspace, there, stop), daemon=True)
    process.start()
    there.close()
    calls = here.recv()
    CHANNELS.append(here)  # closed, it would wake the process
    return process, calls


def ended(process: BaseProcess, by: signal.Signals | None = None) -> int | None:
    if by:
        os.kill(process.pid, by)
    process.join(20)
    return process.exitcode


@pytest.fixture
def workspace(crawled: Crawled, tmp_path: Path) -> Path:
    save_model(tmp_path / "models/teacher", crawled.network, crawled.config)
    write_table(tmp_path / "data/dedup/images.parquet", crawled.verdicts())
    (tmp_path / "params.yaml").write_text("embed: {device: cpu, batch_size: 3, redundant: 0.3}")
    return tmp_path


@pytest.mark.parametrize("stop", [2, 4, 6])  # within the first, second and third shard
def test_interrupted_it_goes_on_and_writes_the_same_bytes(crawled, tmp_path, stop):
    calls: list[int] = []

    def interrupted(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if len(calls) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(crawled, tmp_path / "embed", batch_size=3, advance=interrupted)
    assert not (tmp_path / "embed/images.parquet").exists()
    run(crawled, tmp_path / "embed", batch_size=3)
    run(crawled, tmp_path / "other", batch_size=3)
    assert contents(tmp_path / "embed") == contents(tmp_path / "other")


@pytest.mark.slow
def test_interrupted_and_killed_it_goes_on_and_writes_the_same_bytes(workspace):
    other = workspace.parent / "other"
    shutil.copytree(workspace, other)
    process, calls = started(other, stop=0)
    assert ended(process) == 0
    # 6, 7 and 3 images are kept in the shards, and a piece has 3 at most; then come the scores
    assert calls[:7] == [0, 3, 3, 3, 3, 1, 3]

    process, calls = started(workspace, stop=4)  # within the second shard
    assert calls == [0, 3, 3, 3]
    assert ended(process, signal.SIGINT) == 130
    assert not (workspace / "data/embed").exists()
    process, calls = started(workspace, stop=4)  # at the end of the second shard, unsaved rows
    assert calls == [6, 3, 3, 1]
    assert ended(process, signal.SIGKILL) == -signal.SIGKILL
    process, calls = started(workspace, stop=0)
    assert ended(process) == 0
    assert calls[:2] == [13, 3]
    assert sum(calls[2:]) == 3 * 16 + 2  # three scores of 16 images, the check and the index

    found = contents(workspace / "data/embed")
    assert found == contents(other / "data/embed")
    assert set(found) == {
        *("pixels.npy", "features.npy", "logits.npy"),
        *("images.parquet", "index.faiss"),
    }
    reports = contents(workspace / "reports")
    assert reports == contents(other / "reports")
    assert set(reports) == {"embed.json", "classes.csv", "coverage.csv"}
    assert b'"recall_at_10": 1.0' in reports["embed.json"]
    assert list((workspace / ".cache/embed").iterdir()) == []
    assert "interrupted: the same command goes on" in (workspace / "stderr").read_text()


@pytest.mark.slow
def test_other_verdicts_begin_anew(crawled, workspace):
    process, calls = started(workspace, stop=4)
    assert ended(process, signal.SIGKILL) == -signal.SIGKILL
    fewer = crawled.verdicts().slice(1)
    write_table(workspace / "data/dedup/images.parquet", fewer)
    process, calls = started(workspace, stop=0)
    assert ended(process) == 0
    assert calls[0] == 0


def filled(folder: Path, total: int, rows: list[int], saved: int) -> None:
    """Writes `rows`, of which the first `saved` are saved."""
    with ArrayWriter(folder, total, LAYOUT) as array:
        for row in rows:
            array.append({"a.npy": np.full((1, 2), row), "b.npy": np.full(1, row / 2)})
            if row + 1 == saved:
                array.save()


def test_rows_are_what_numpy_would_have_saved(tmp_path):
    filled(tmp_path / "rows", 3, [0, 1, 2], 3)
    np.save(tmp_path / "a.npy", np.array([[0, 0], [1, 1], [2, 2]], np.uint8))
    np.save(tmp_path / "b.npy", np.array([0, 0.5, 1], np.float32))
    for name in ("a.npy", "b.npy"):
        assert (tmp_path / "rows" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_unsaved_rows_are_written_again(tmp_path):
    filled(tmp_path, 4, [0, 1, 2], 2)
    with ArrayWriter(tmp_path, 4, LAYOUT) as array:
        assert array.saved == 2
    filled(tmp_path, 4, [2, 3], 4)
    assert np.load(tmp_path / "a.npy").tolist() == [[row, row] for row in range(4)]
    assert np.load(tmp_path / "b.npy").tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("damage", ["short", "gone", "no mark", "half a mark"])
def test_rows_that_are_not_all_there_are_written_anew(tmp_path, damage):
    filled(tmp_path, 4, [0, 1, 2], 3)
    if damage == "short":
        os.truncate(tmp_path / "b.npy", 130)
    elif damage == "gone":
        (tmp_path / "a.npy").unlink()
    elif damage == "no mark":
        (tmp_path / "saved").unlink()
    else:
        (tmp_path / "saved").write_text("")
    with ArrayWriter(tmp_path, 4, LAYOUT) as array:
        assert array.saved == 0
    filled(tmp_path, 4, [0, 1, 2, 3], 4)
    assert np.load(tmp_path / "b.npy").tolist() == [0, 0.5, 1, 1.5]


def test_a_second_call_for_a_finished_folder_passes_nothing(crawled, tmp_path):
    run(crawled, tmp_path / "embed")
    before = contents(tmp_path / "embed")
    steps: list[int] = []
    run(crawled, tmp_path / "embed", advance=steps.append)
    assert steps == [16]
    assert contents(tmp_path / "embed") == before
