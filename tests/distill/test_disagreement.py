"""The disagreement step of a training: when it comes, and what it leaves alone."""

import pytest
import torch
from torch import Tensor, nn

from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.run import prepare
from kd3_pipeline.errors import UserError
from kd3_pipeline.kd3 import disagreement
from kd3_pipeline.models.checkpoint import ModelConfig
from tests.distill.world import MEAN, SIDE, STD, objective, run, same, section, teacher, web

STILL = {"crop": "none", "flip": False, "selection": "none", "epochs": 5}


def shown_to(student: Objective) -> list[tuple[Tensor, ...]]:
    """What the objective is shown at each step, filled as it is trained."""
    found: list[tuple[Tensor, ...]] = []

    def note(module: nn.Module, views: tuple[Tensor, ...]) -> None:
        if module is student:  # and no copy, whose arithmetic is counted
            found.append(views)

    student.register_forward_pre_hook(note)
    return found


def test_it_comes_in_the_last_fifth_of_the_steps_and_raises_disagreement(tmp_path):
    plain, moved = (section(**STILL, disagreement=size) for size in (0.0, 4.0))
    students = objective(plain), objective(moved)
    seen = [shown_to(student) for student in students]
    for of, student in zip((plain, moved), students, strict=True):
        run(tmp_path / str(of.disagreement), of, student=student)
    assert len(seen[0]) == len(seen[1]) == 15
    same_images = [torch.equal(a[0], b[0]) for a, b in zip(*seen, strict=True)]
    assert same_images == [True] * 12 + [False] * 3
    change = (seen[1][12][0] - seen[0][12][0]).abs()
    assert change.max() == pytest.approx(4 / 255 / 0.25, rel=1e-3)  # levels, by the deviation
    # the mixed view stays that of the image as it was
    assert torch.equal(seen[0][12][1], seen[1][12][1])


def test_the_first_moved_images_are_those_on_which_the_networks_disagree_more(tmp_path):
    of = section(**STILL, objective="kd", disagreement=2.0)
    student = objective(of)
    before: list[float] = []

    def note(module: nn.Module, views: tuple[Tensor, ...]) -> None:
        if module is student and module.training:
            with torch.no_grad():
                module.eval()
                found = disagreement(module.predict(views[0]), teacher()(views[0]))
                module.train()
            before.append(float(found.mean()))

    student.register_forward_pre_hook(note)
    run(tmp_path, of, student=student)
    late, earlier = sum(before[12:]) / 3, sum(before[9:12]) / 3
    assert late > earlier


def test_none_is_the_same_run_to_the_bit_and_some_is_another_one(tmp_path):
    of = section(epochs=5)
    plain = run(tmp_path / "plain", of)
    assert same(plain, run(tmp_path / "none", section(epochs=5, disagreement=0.0)))
    assert not same(plain, run(tmp_path / "some", section(epochs=5, disagreement=2.0)))


def test_a_split_batch_moves_as_a_whole_one(tmp_path):
    changes = {**STILL, "mixing": False, "disagreement": 2.0, "objective": "kd", "epochs": 1}
    seen = []
    for parts in (1, 2):
        of = section(**changes, accumulate=parts, lr=1e-8)
        student = objective(of)
        shown = shown_to(student)
        run(tmp_path / str(parts), of, student=student)
        seen.append(torch.cat([views[0] for views in shown]))
    # the sign of a gradient near nothing is a matter of rounding
    assert (seen[0] - seen[1]).abs().gt(1e-4).float().mean() < 0.02


def test_running_statistics_see_an_image_once(tmp_path):
    of = section(**STILL, disagreement=2.0, objective="kd")
    student = objective(of)
    run(tmp_path, of, student=student)
    assert student.student.bn1.num_batches_tracked == 15


def test_a_teacher_without_gradient_is_refused(monkeypatch):
    built = {"name": "resnet8", "num_classes": 10}
    config = ModelConfig(built, list("abcdefghij"), MEAN, STD, SIDE, "a test")
    network = teacher()
    monkeypatch.setattr(network, "runs_elsewhere", True)
    with pytest.raises(UserError, match=r"distill\.disagreement needs the gradient of the teacher"):
        prepare(section(disagreement=1.0), web(), network, config)
