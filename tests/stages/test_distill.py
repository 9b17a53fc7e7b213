"""`pipeline distill` alone, on web images and a teacher that are made here."""

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.embeddings import write_images
from kd3_pipeline.extras import install_extra
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.distilled import load_student
from kd3_pipeline.models.network import parameter_count
from kd3_pipeline.pixels import normalise
from kd3_pipeline.runkey import digest_of
from tests.distill.world import CPU, MEAN, SIDE, STD, teacher
from tests.stages.workspace import copy_project, environment, invoke

IMAGES = 192
BATCH = 8
PARAMS = f"""
distill:
  epochs: 3
  batch_size: {BATCH}
  lr: 0.05
  keep: agreement
  held_out: 0.1
  teacher_floor: 0.5
  precision: float32
"""
TIMES = ("seconds", "images_per_s", "tflops", "utilisation")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with what the stages before this one leave."""
    folder = copy_project(tmp_path_factory.mktemp("prepared") / "project", PARAMS)
    pixels = original_images("train", IMAGES, SIDE, 2)[0]
    with torch.no_grad():
        logits = teacher()(normalise(torch.from_numpy(pixels), MEAN, STD))
    embed = folder / "data/embed"
    embed.mkdir(parents=True)
    ids = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
    columns = {"id": pa.array(ids), "label": pa.array([-1] * IMAGES, pa.int64())}
    write_images(embed, columns, CLASS_NAMES)
    np.save(embed / "pixels.npy", pixels)
    np.save(embed / "logits.npy", logits.numpy())
    resnet8 = {"name": "resnet8", "num_classes": 10}
    config = ModelConfig(resnet8, list(CLASS_NAMES), MEAN, STD, SIDE, "a test")
    save_model(folder / "models/teacher", teacher(), config)
    return folder


def copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, symlinks=True)
    return target


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder) | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def distil(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, "-m", "kd3_stages", "distill", *options)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return subprocess.CompletedProcess(process.args, 0, stdout, stderr)


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after a distillation that nothing disturbed."""
    folder = copy(prepared, tmp_path_factory.mktemp("finished") / "project")
    done = distil(folder)
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "reports/distill.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in TIMES}
            for row in csv.DictReader(file)
        ]


def summary(folder: Path) -> dict[str, float]:
    return json.loads((folder / "reports/distill.json").read_text())


def states(folder: Path) -> dict[str, bytes]:
    """Checkpoints of unfinished runs."""
    found = (folder / ".cache").glob("distill/*/step-*.pt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def test_the_summary_is_that_of_the_epoch_that_was_deployed(finished: Path) -> None:
    found, rows = summary(finished), curves(finished)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    agreements = [float(row["agreement"]) for row in rows]
    assert found["deployed_epoch"] == agreements.index(max(agreements)) + 1
    deployed = rows[found["deployed_epoch"] - 1]
    for name in ("kept", "loss", "agreement"):
        assert found[name] == float(deployed[name]), name
    assert (found["epochs"], found["lr"]) == (3, 0.05)
    selection = pq.read_table(finished / "data/distill/selection.parquet")
    assert found["images"] == IMAGES - sum(selection["held_out"].to_pylist()) < IMAGES


def test_a_finished_run_says_one_line_and_leaves_no_state(finished: Path) -> None:
    (line,) = (finished / "stdout").read_text().splitlines()
    assert line.startswith("distill: resnet8, agreement with the teacher on held-out web images ")
    found = summary(finished)
    assert f" {found['agreement']:.1%} (always saying its commonest answer: " in line
    assert f"answer: {found['agreement_commonest']:.1%}) " in line
    logits = np.load(finished / "data/embed/logits.npy")
    held_out = pq.read_table(finished / "data/distill/selection.parquet")["held_out"].to_numpy()
    counts = np.bincount(logits[held_out].argmax(axis=1))
    assert found["agreement_commonest"] == pytest.approx(counts.max() / counts.sum(), abs=6e-5)
    assert (
        "note: trained on cpu, torch.float32; pixels resident\n"
        in (finished / "stderr").read_text()
    )
    assert states(finished) == {}
    assert list((finished / ".cache/distill").iterdir()) == []


def test_what_a_run_reads_is_hashed_once(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(prepared, tmp_path / "project")
    hashed: list[str] = []

    def noted(path: Path) -> str:
        hashed.append(path.as_posix())
        return digest_of(path)

    for module in ("runkey", "runrecord"):
        monkeypatch.setattr(f"kd3_pipeline.{module}.digest_of", noted)
    invoke(folder, "distill", "--epochs", "1", "--set", "distill.batch_size=64", "--quiet")
    assert [hashed.count(path) for path in ("data/embed", "models/teacher")] == [1, 1]


def test_a_student_that_agrees_no_more_than_a_constant_is_told_loudly(
    prepared: Path, tmp_path: Path
) -> None:
    folder = copy(prepared, tmp_path / "project")
    logits = np.load(folder / "data/embed/logits.npy")
    logits[:, 3] += 1e4  # all images are of one class to the teacher
    np.save(folder / "data/embed/logits.npy", logits)
    done = distil(folder, "--epochs", "1", "--set", "distill.held_out=0.4")
    said = " ".join(done.stderr.split())
    assert "(always saying its commonest answer: 100.0%)" in done.stdout
    assert "warning: the student agrees with the teacher on " in said
    assert "by these it has learnt nothing" in said


def test_the_student_on_disk_sees_what_was_written_of_every_image(finished: Path) -> None:
    student, config = load_student(finished / "models/student", CPU)
    assert config.architecture["fused"]
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in student.modules())
    assert summary(finished)["parameters"] == parameter_count(student)
    embed = finished / "data/embed"
    with torch.no_grad():
        logits = student(normalise(torch.from_numpy(np.load(embed / "pixels.npy")), MEAN, STD))
    selection = pq.read_table(finished / "data/distill/selection.parquet")
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    recorded = torch.tensor(selection["confidence"].to_pylist())
    torch.testing.assert_close(confidence, recorded, rtol=1e-4, atol=1e-4)
    # a tie may be decided by rounding
    same = predicted == torch.tensor(selection["predicted"].to_pylist())
    assert same.float().mean() > 0.99


def interrupted(folder: Path) -> None:
    """Ctrl-C in the second epoch."""
    process = start(folder, "-m", "kd3_stages", "distill")
    while process.poll() is None and not (folder / "reports/distill.csv").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.splitlines()[-1] == "interrupted: the same command goes on where it stopped"
    assert "Traceback" not in stderr
    assert not (folder / "models/student").exists()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_other_runs_take_nothing_from_it(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    folder = copy(prepared, tmp_path / "project")
    interrupted(folder)
    left = states(folder)
    assert len({Path(name).parent for name in left}) == 1
    steps = [int(name[-12:-3]) for name in left]
    epoch = (summary(finished)["images"]) // BATCH
    assert steps[0] == epoch < steps[1] < 2 * epoch

    # other parameters
    done = distil(folder, "--set", "distill.objective=official", "--epochs", "1")
    assert len(curves(folder)) == 1
    told = next(line for line in done.stderr.splitlines() if "begins anew" in line)
    assert Path(next(iter(left))).parent.name in told
    (note,) = (line for line in done.stderr.splitlines() if "objective" in line and "sets" in line)
    assert note.startswith("note: objective 'official' sets ")
    told = dict(item.split(" ") for item in note.split(" sets ")[1].split(", "))
    assert told == {
        "schedule": "step",
        "teacher_floor": "0.0",
        "judge": "random",
        "refill": "False",
        "crop": "resized",
        "flip": "True",
        "refined": "False",  # there are none here
    }
    assert states(folder) == left

    # other inputs
    other = copy(folder, tmp_path / "other")
    logits = np.load(other / "data/embed/logits.npy")
    np.save(other / "data/embed/logits.npy", logits[:, ::-1])
    distil(other)
    assert states(other) == left

    assert "begins anew" not in distil(folder).stderr
    assert states(folder) == {}
    thresholds = "data/distill/thresholds.parquet"
    assert (folder / thresholds).read_bytes() == (finished / thresholds).read_bytes()
    for name in ("models/student/model.safetensors", "data/distill/selection.parquet"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name
        assert (folder / name).read_bytes() != (other / name).read_bytes(), name
    assert curves(folder) == curves(finished)
    assert summary(folder) == summary(finished)


def lengths(folder: Path, process: subprocess.Popen[str]) -> list[int]:
    """How many epochs the curves had, from one change to the next, until the process ended."""
    path, found = folder / "reports/distill.csv", [0]
    while process.poll() is None:
        rows = len(curves(folder)) if path.exists() else 0
        if rows != found[-1]:
            found.append(rows)
        time.sleep(0.005)
    return found


@pytest.mark.slow
def test_the_curves_grow_by_an_epoch_at_a_time_and_a_resumed_run_has_the_earlier_ones(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    folder = copy(prepared, tmp_path / "project")
    interrupted(folder)
    before = curves(folder)
    assert len(before) == 1
    (folder / "reports/distill.csv").unlink()  # as DVC does before it runs a stage
    process = start(folder, "-m", "kd3_stages", "distill", "--quiet")
    assert lengths(folder, process) == [0, 2, 3]
    assert process.returncode == 0
    assert curves(folder)[:1] == before
    assert curves(folder) == curves(finished)


@pytest.mark.slow
def test_tensorboard_gets_every_epoch_and_does_not_change_the_run(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = copy(prepared, tmp_path / "project")
    distil(folder, "--set", "distill.tensorboard=board")
    events = EventAccumulator(str(folder / "board"))
    events.Reload()
    told = {scalar.step: scalar.value for scalar in events.Scalars("loss")}
    rows = curves(folder)
    assert told == pytest.approx({int(row["epoch"]): float(row["loss"]) for row in rows})
    assert rows == curves(finished)


def test_tensorboard_without_its_package_is_told_before_anything_is_trained(
    prepared: Path, tmp_path: Path
) -> None:
    folder = copy(prepared, tmp_path / "project")
    missing = folder / "tensorboard.py"
    missing.write_text("raise ModuleNotFoundError(\"No module named 'tensorboard'\")\n")
    process = start(folder, "-m", "kd3_stages", "distill", "--set", "distill.tensorboard=board")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, ""), stderr
    assert stderr.splitlines()[-1] == (
        f"error: distill.tensorboard: No module named 'tensorboard': {install_extra('tensorboard')}"
    )
    assert states(folder) == {}
    assert not (folder / "board").exists()


TOY = '''"""Objective that knows the teacher's classes alone."""

from torch import Tensor
from torch.nn import functional

from kd3_pipeline.distill.objectives.objective import Objective


class Toy(Objective):
    settings = {"selection": "none"}

    def forward(self, images: Tensor, *others: Tensor, weights: Tensor | None = None):
        _, target = self.ask_teacher(images)
        return {"toy": functional.cross_entropy(self.student(images), target.argmax(dim=1))}
'''


@pytest.mark.slow
def test_a_new_objective_is_one_file_and_one_line(prepared: Path, tmp_path: Path) -> None:
    folder = copy(prepared, tmp_path / "project")
    (folder / "pipeline/distill/objectives/toy.py").write_text(TOY)
    registry = folder / "pipeline/registry.py"
    head, found, rest = registry.read_text().partition(
        '    "kd3_pipeline.distill.objectives",\n    {\n'
    )
    assert found
    line = '        "toy": Entry("toy:Toy", "the teacher\'s classes"),\n'
    registry.write_text(head + found + line + rest)

    few = ("--epochs", "2", "--set", "distill.batch_size=64")
    done = distil(folder, "--set", "distill.objective=toy", *few)
    assert "note: objective 'toy' sets selection none" in done.stderr
    first, last = curves(folder)
    assert first["loss"] == first["toy"] != last["toy"]
    assert {first["kept"], last["kept"]} == {"1.0"}
    assert load_student(folder / "models/student", CPU)

    wrong = start(folder, "-m", "kd3_stages", "distill", "--set", "distill.objective=toi")
    _, stderr = wrong.communicate(timeout=60)
    assert wrong.returncode == 2
    assert "expected one of toy, kd3, official, kd, simkd, dfnd, got 'toi'" in stderr


@pytest.mark.slow
def test_two_processes_of_torchrun_write_one_student_and_say_one_line(
    prepared: Path, tmp_path: Path
) -> None:
    short = ("--epochs", "1", "--set", "distill.batch_size=32")
    alone = copy(prepared, tmp_path / "alone")
    distil(alone, *short)
    folder = copy(prepared, tmp_path / "two")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(folder, *torchrun, "-m", "kd3_stages", "distill", *short)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    (line,) = stdout.splitlines()
    assert line.startswith("distill: resnet8, agreement with the teacher on held-out web images ")
    assert stderr.count("note: trained on cpu, torch.float32, 2 processes; pixels resident\n") == 1
    assert states(folder) == {}
    assert not [path for path in folder.rglob(".*") if ".tmp" in path.name or ".old" in path.name]
    ours, theirs = summary(folder), summary(alone)
    assert ours.pop("objective") == theirs.pop("objective") == "kd3"
    assert ours.pop("agreement_on") == theirs.pop("agreement_on") == "held-out web images"
    assert ours == pytest.approx(theirs, rel=1e-3)
    one, two = (load_student(path / "models/student", CPU)[0] for path in (alone, folder))
    assert parameter_count(two) == summary(folder)["parameters"]
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(two(images), one(images), rtol=1e-2, atol=1e-2)
