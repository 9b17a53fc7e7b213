"""Ctrl-C on a distillation in a process of its own."""

import os
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch import Tensor

from kd3_pipeline.distill import checkpoint
from tests.distill.world import CPU, PROCESSES, Run, objective, run, same, section, start, timeless

OF = section(epochs=2, teacher_floor=0.5, mixing=False, ema=0.3)


def distil(folder: Path, channel: Connection, stop: int) -> None:
    """Distils, but waits to be told in that step, counted from 1."""
    steps = 0

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal steps
        steps += not note
        if steps == stop and not note:
            channel.send("here")
            channel.recv()

    run(folder, OF, advance=advance)


def waiting_in(step: int, folder: Path) -> tuple[BaseProcess, Connection]:
    """A distillation that has come to that step."""
    here, there = PROCESSES.Pipe()
    process = start(distil, folder, there, step)
    there.close()
    assert here.recv() == "here"
    return process, here


def interrupt(process: BaseProcess) -> None:
    os.kill(process.pid, signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("whole"), OF)


@pytest.mark.parametrize(
    ("step", "epochs", "left"),
    [
        pytest.param(1, 0, 1, id="first epoch", marks=pytest.mark.slow),
        pytest.param(5, 1, 2, id="middle of the second"),
        pytest.param(3, 1, 0, id="end of the first", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_process_finishes_its_step_and_saves_it(tmp_path, whole, step, epochs, left):
    process, channel = waiting_in(step, tmp_path)
    interrupt(process)
    time.sleep(0.1)
    assert process.is_alive()  # the step is not finished
    channel.send("go on")
    process.join(20)
    assert process.exitcode == 130
    assert checkpoint.saved(tmp_path)[-1].name == f"step-{step:09d}.pt"
    progress = checkpoint.load(tmp_path, CPU)["progress"]
    assert (len(progress["curves"]), progress["step"]) == (epochs, left)
    resumed = run(tmp_path, OF)
    assert same(resumed, whole)
    assert timeless(resumed) == timeless(whole)


@pytest.mark.slow
def test_a_process_interrupted_in_its_last_step_ends_as_usual(tmp_path, whole):
    process, channel = waiting_in(6, tmp_path)
    interrupt(process)
    channel.send("go on")
    process.join(20)
    assert process.exitcode == 0
    assert same(run(tmp_path, OF), whole)


@pytest.mark.slow
def test_a_second_interruption_stops_at_once(tmp_path, whole):
    process, _ = waiting_in(5, tmp_path)
    interrupt(process)
    process.join(0.5)
    assert process.is_alive()
    interrupt(process)
    process.join(20)  # nobody has told it to go on
    assert process.exitcode == 130
    assert [path.name for path in checkpoint.saved(tmp_path)] == ["step-000000003.pt"]
    assert same(run(tmp_path, OF), whole)


def test_an_interruption_while_images_are_selected_is_obeyed_after_the_next_step(tmp_path, whole):
    student = objective(OF)
    predict, calls = student.predict, 0

    def interrupting(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # of the second epoch: each selects in four batches and measures in one
            signal.raise_signal(signal.SIGINT)
        return predict(images)

    student.predict = interrupting
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, OF, student=student)
    assert checkpoint.saved(tmp_path)[-1].name == "step-000000004.pt"
    assert same(run(tmp_path, OF), whole)
