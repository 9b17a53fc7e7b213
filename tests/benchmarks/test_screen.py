"""The screen of ideas: pools by name, on a teacher and images of no size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.cifar10 import screen
from kd3_pipeline.models import build


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(screen, "COUNT", 20)
    monkeypatch.setattr(screen, "HELD", 40)


def teacher() -> nn.Module:
    torch.manual_seed(3)
    network = build("resnet8", 10)
    for _ in range(60):  # until running statistics have settled
        network(torch.randn(16, 3, 32, 32))
    return network.eval().requires_grad_(False)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_pools_are_chosen_by_the_teachers_answers_and_without_what_is_held_out(small):
    answers = np.arange(200) % 10
    maps = np.zeros((screen.VIEWS, 200, 64, 8, 8), np.float16)
    maps[:, np.arange(200), answers] = np.linspace(1, 4, 200)[:, None, None]
    of = teacher()
    of.fc = nn.Linear(64, 10, bias=False)
    of.fc.weight = nn.Parameter(torch.eye(10, 64), requires_grad=False)
    pool = screen.Pool(pixels(200), np.zeros((screen.VIEWS, 200, 3), np.int64), maps)
    held = np.random.default_rng(5).permutation(200)[-40:]
    for how in ("balanced", "sure"):
        rows = screen.chosen(how, pool, of)
        assert np.bincount(answers[rows]).tolist() == [2] * 10
        assert not set(rows) & set(held)
    free = np.setdiff1d(np.arange(200), held)
    best = [free[answers[free] == one][-2:] for one in range(10)]
    assert rows.tolist() == sorted(np.concatenate(best).tolist())


def test_refined_and_translated_images_are_nearer_to_what_the_teacher_remembers():
    of, before = teacher(), pixels(128)
    remembered = screen.Remembered(of)

    def apart(images: np.ndarray) -> float:
        with torch.no_grad():
            return float(remembered(screen.shown(images))[0])

    assert apart(screen.refined(before, of)) < 0.7 * apart(before)
    assert apart(screen.translated(before, of, steps=10)) < 0.97 * apart(before)


def test_a_student_learns_the_maps_and_a_pool_is_made_once(small, tmp_path, monkeypatch):
    of = teacher()
    work = screen.Work.__new__(screen.Work)
    work.folder, work.teacher = tmp_path, of
    asked = []

    def made(name: str) -> screen.Pool:
        asked.append(name)
        return screen.answered(pixels(40), of)

    monkeypatch.setattr(work, "_made", made, raising=False)
    pool = work.pool("random")
    assert np.array_equal(work.pool("random").maps, pool.maps) and asked == ["random"]
    assert not list(Path(tmp_path).glob("*.partial.npy"))
    loss = screen.losses(of, pool)["maps"]
    images = screen.cut(pool.pixels, torch.from_numpy(pool.views[0]))
    theirs = torch.from_numpy(np.array(pool.maps[0])).float()

    def left(steps: int) -> float:
        student = screen.trained(pool, loss, steps, 0)
        with torch.no_grad():
            return float(loss(student(images), theirs))

    assert left(12) < left(0)


def test_moment_weights_are_worth_the_share_that_is_asked_for(tmp_path):
    of = teacher()
    pool = screen.Pool(pixels(256), np.zeros(0), np.zeros(0))
    for share in (0.97, 0.5):  # the rule itself would leave less than the first, not the second
        found = screen.weights(pool, of, share, tmp_path / f"moments-{share}").numpy()
        effective = found.sum() ** 2 / (found**2).sum()
        assert effective >= share * 256
        assert (effective == pytest.approx(share * 256, rel=0.021)) == (share == 0.97)
