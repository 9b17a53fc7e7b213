import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.distill import checkpoint
from tests.distill.world import LONG, Run, run, same

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")


class Interrupted(Exception):
    pass


def stop_after(epoch: int):
    def report(curves):
        if len(curves) == epoch:
            raise Interrupted

    return report


def timeless(done: Run) -> list[dict[str, float]]:
    times = ("seconds", "images_per_s")
    return [{k: v for k, v in row.items() if k not in times} for row in done.trained.curves]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path, epoch):
    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", report=stop_after(epoch))
    assert len(checkpoint.load(tmp_path / "broken", CPU)["curves"]) == epoch
    told: list[int] = []
    seen: list[int] = []
    resumed = run(
        tmp_path / "broken",
        advance=lambda n=1, note="": told.append(n),
        report=lambda curves: seen.append(len(curves)),
    )
    assert seen == list(range(epoch + 1, 4))
    assert sum(told) == 3 * 3
    assert same(whole, resumed)
    assert torch.equal(whole.trained.kept, resumed.trained.kept)
    assert torch.equal(whole.trained.labels, resumed.trained.labels)
    assert torch.equal(whole.trained.confidence, resumed.trained.confidence)
    assert timeless(whole) == timeless(resumed)


def test_a_process_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    command = [sys.executable, "-m", "tests.distill.world", str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=ROOT) as process:
        while not (tmp_path / "killed" / "last.pt").exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(random.Random(4).uniform(0, 0.3))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done = len(checkpoint.load(tmp_path / "killed", CPU)["curves"])
    assert 1 <= done < LONG.epochs
    assert same(run(tmp_path / "killed", LONG), run(tmp_path / "whole", LONG))


def test_nothing_saved_is_a_fresh_start(tmp_path):
    assert checkpoint.load(tmp_path, CPU) is None


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    checkpoint.save(tmp_path, {"a": torch.arange(3), "curves": [{"loss": 0.5}]})
    checkpoint.save(tmp_path, {"a": torch.arange(4), "curves": [{"loss": 0.25}]})
    loaded = checkpoint.load(tmp_path, CPU)
    assert torch.equal(loaded["a"], torch.arange(4))
    assert loaded["curves"] == [{"loss": 0.25}]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
