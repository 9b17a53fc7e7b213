"""Stored views through `pipeline distill`, and where they are kept."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kd3_pipeline.conflicts import conflicts
from kd3_pipeline.params import Distill, Params
from kd3_stages import paths
from kd3_stages.steps.views import answers_folder
from tests.distill.world import CPU
from tests.stages.test_distill import copy, distil, prepared, start  # noqa: F401  a fixture

IDS = ["a", "b"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what decides over the teacher's answers."""
    monkeypatch.chdir(tmp_path)
    for path in (paths.EMBED, paths.TEACHER):
        path.mkdir(parents=True)
    np.save(paths.EMBED / "pixels.npy", np.zeros((2, 4, 4, 3), np.uint8))
    (paths.TEACHER / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def folder() -> Path:
    return answers_folder(IDS, CPU, torch.float32)


def test_answers_are_kept_by_teacher_pixels_and_arithmetic(made: Path) -> None:
    first = folder()
    assert first == folder() and first.parent == paths.VIEWS
    assert answers_folder(IDS[::-1], CPU, torch.float32) != first
    assert answers_folder(IDS, CPU, torch.bfloat16) != first
    assert answers_folder(IDS, torch.device("cuda"), torch.float32) != first
    (paths.TEACHER / "model.safetensors").write_bytes(b"other weights")
    second = folder()
    assert second != first
    np.save(paths.EMBED / "refined.npy", np.zeros((2, 4, 4, 3), np.uint8))
    assert folder() not in (first, second)


def test_what_embed_leaves_beside_the_pixels_does_not_count(made: Path) -> None:
    first = folder()
    (paths.EMBED / "logits.npy").write_bytes(b"other scores")
    (paths.EMBED / "images.parquet").write_bytes(b"one more column")
    (paths.EMBED / "crop_boxes.npy").write_bytes(b"where they were cut")
    assert folder() == first


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"mix": "mixup", "teacher_views": 2}, ["distill.teacher_views"]),
        ({"mix": "mixup", "teacher_views": 2, "objective": "official"}, []),
        ({"mix": "mixup"}, []),
        ({"teacher_views": 2}, []),
    ],
)
def test_mixed_images_exclude_stored_views(changes: dict, found: list[str]) -> None:
    params = Params(distill=Distill(batch_size=8, **changes))
    assert [key for key, _ in conflicts(params)] == found


@pytest.mark.slow
def test_a_second_student_asks_no_teacher_again(prepared: Path, tmp_path: Path) -> None:  # noqa: F811
    project = copy(prepared, tmp_path / "project")
    views = ("--set", "distill.teacher_views=2", "--set", "distill.epochs=1")
    first = distil(project, *views)
    assert "2 of each of 192 images, 64 × 4 × 4 numbers of 16 bits, take 0.00 GB in" in first.stderr
    assert "rm -r .cache/views" in first.stderr
    (file,) = (project / ".cache/views").glob("*/*")
    assert file.stat().st_size == 192 * 2 * 64 * 4 * 4 * 2
    written = file.stat().st_mtime_ns
    again = distil(project, *views, "--set", "distill.lr=0.1", "--set", "distill.student=resnet14")
    assert "are in" in again.stderr and "take" not in again.stderr
    assert file.stat().st_mtime_ns == written
    assert not list((project / ".cache/distill").glob("*"))

    changed = project / "data/embed/pixels.npy"
    np.save(changed, np.load(changed)[:, ::-1])
    other = distil(project, *views)
    assert "views of other teachers, images or versions take 0.00 GB: rm -r" in other.stderr

    mixed = start(project, "-m", "kd3_stages", "distill", *views, "--set", "distill.mix=half")
    _, stderr = mixed.communicate(timeout=60)
    assert mixed.returncode == 2
    assert "distill.teacher_views" in stderr
