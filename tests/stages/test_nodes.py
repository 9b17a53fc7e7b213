"""`pipeline distill` on two machines without a shared disk: here two folders, under torchrun."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.stages.test_distill import copy, curves, states
from tests.stages.test_distill import prepared as prepared
from tests.stages.workspace import environment

pytestmark = pytest.mark.slow
OPTIONS = ("distill", "--epochs", "4", "--set", "distill.batch_size=32")
SAME = (
    *("models/student/model.safetensors", "models/student/config.json"),
    *("data/distill/selection.parquet", "data/distill/thresholds.parquet"),
)
STOPPING = '''"""`pipeline`, whose first process stops at a moment until it is killed."""

import io
import os
import sys
import time
from pathlib import Path

import torch

from kd3_pipeline.distill import checkpoint
from kd3_pipeline.distill.state import State
from kd3_stages.cli import main

moment, mark = sys.argv[1:3]
del sys.argv[1:3]
step, save, write = State.step, checkpoint.save, torch.save


def stop():
    Path(mark).touch()
    time.sleep(600)


def stop_inside_an_epoch(self, rows, pixels, epoch, *args, **more):
    if epoch == 2 and self.progress.step == 2:
        stop()
    return step(self, rows, pixels, epoch, *args, **more)


def stop_once_saved(*args):
    save(*args)
    stop()


def stop_while_writing(state, file):
    if isinstance(file, io.BytesIO):
        return write(state, file)
    whole = io.BytesIO()
    write(state, whole)
    Path(file).write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    stop()


if os.environ["RANK"] == "0":
    if moment == "inside":
        State.step = stop_inside_an_epoch
    elif moment == "between":
        checkpoint.save = stop_once_saved
    else:
        torch.save = stop_while_writing
main()
'''


class Nodes:
    """Two machines with a copy of the project each, which share nothing but loopback."""

    def __init__(self, prepared: Path, folder: Path) -> None:
        self.folders = [copy(prepared, folder / name) for name in ("first", "second")]
        self.mark = folder / "now"
        self.program = folder / "stopping.py"
        self.program.write_text(STOPPING)

    def start(self, *command: str, torchrun: bool = True) -> list[subprocess.Popen[str]]:
        """One process a machine, under torchrun, or as torchrun would start it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        started = []
        for rank, folder in enumerate(self.folders):
            where = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
            before = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)]
            before += ["--master-addr", "127.0.0.1", "--master-port", port]
            before += ["--nproc-per-node", "1"]
            if not torchrun:
                where |= {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
                where |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                before = []
            started.append(
                subprocess.Popen(
                    [sys.executable, *before, *command],
                    cwd=folder,
                    env=environment(folder) | where,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started

    def killed(self, moment: str) -> None:
        """A start whose processes are all killed at a moment of the first one."""
        command = (str(self.program), moment, str(self.mark), *OPTIONS)
        processes = self.start(*command, torchrun=False)
        while not self.mark.exists():
            assert all(one.poll() is None for one in processes), processes[0].communicate()
            time.sleep(0.01)
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate(timeout=200)
            assert process.returncode == -signal.SIGKILL
        self.mark.unlink()

    def finished(self) -> str:
        """A start that nothing disturbs; what the first machine says on stderr."""
        agents = self.start("-m", "kd3_stages", *OPTIONS)
        ends = [agent.communicate(timeout=200) for agent in agents]
        assert [agent.returncode for agent in agents] == [0, 0], ends
        return ends[0][1]

    def steps(self) -> list[str]:
        """Names of the states that the first machine has."""
        assert states(self.folders[1]) == {}  # only the first process writes
        return [Path(name).name for name in states(self.folders[0])]


def test_killed_at_three_moments_the_student_is_that_of_a_run_without_a_kill(
    prepared: Path, tmp_path: Path
) -> None:
    nodes = Nodes(prepared, tmp_path)
    nodes.killed("inside")
    one = nodes.steps()
    assert len(one) == 1  # of the first epoch
    nodes.killed("between")
    two = nodes.steps()
    assert len(two) == 2 and two[0] == one[0]
    nodes.killed("writing")
    assert nodes.steps() == two
    (half,) = nodes.folders[0].glob(".cache/distill/*/.*.tmp*")
    assert half.stat().st_size
    said = nodes.finished()
    assert "begins anew" not in said
    assert nodes.steps() == []

    undisturbed = Nodes(prepared, tmp_path / "undisturbed")
    assert "2 processes" in undisturbed.finished()
    (first, second), other = nodes.folders, undisturbed.folders[0]
    for name in SAME:
        assert (first / name).read_bytes() == (other / name).read_bytes(), name
        assert not (second / name).exists()
    assert curves(first) == curves(other)


def test_machines_with_different_files_end_with_what_differs(
    prepared: Path, tmp_path: Path
) -> None:
    nodes = Nodes(prepared, tmp_path)
    path = nodes.folders[1] / "data/embed/logits.npy"
    np.save(path, np.load(path)[:, ::-1])
    processes = nodes.start("-m", "kd3_stages", *OPTIONS, torchrun=False)
    for process in processes:
        stdout, stderr = process.communicate(timeout=200)
        assert (process.returncode, stdout) == (2, ""), stderr
        here = socket.gethostname()
        assert [line for line in stderr.splitlines() if line.startswith("error")] == [
            f"error: distill: process 1 (on {here}) is not of the run of process 0 (on {here}):"
            " data/embed has another content: give all machines the same project, with data/embed"
            " and models/teacher"
        ]
        assert "Traceback" not in stderr


def test_a_machine_without_the_teacher_ends_the_other(prepared: Path, tmp_path: Path) -> None:
    nodes = Nodes(prepared, tmp_path)
    (nodes.folders[1] / "models/teacher/model.safetensors").unlink()
    first, second = nodes.start("-m", "kd3_stages", *OPTIONS, torchrun=False)
    told = second.communicate(timeout=200)[1].splitlines()[-1].removeprefix("error: ")
    said = first.communicate(timeout=200)[1].splitlines()[-1]
    assert said == f"error: process 1 (on {socket.gethostname()}): {told}"
    assert (first.returncode, second.returncode) == (2, 2)
