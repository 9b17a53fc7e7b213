"""What is told before a training: costs and memory."""

import copy

import pytest
import torch

from kd3_pipeline.distill import cautions
from kd3_pipeline.distill.cautions import cost_notes, memory_notes
from kd3_pipeline.distill.objectives.objective import Objective, with_own_settings
from kd3_pipeline.models import build
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import normalise
from kd3_pipeline.registry import OBJECTIVES
from tests.distill.world import MEAN, STD, equal, objective, pixels, section

IMAGES = normalise(pixels(slice(2)), MEAN, STD)


def of(student: str, teacher: str, **changes: object) -> Objective:
    wanted = with_own_settings(section(student=student, **changes))
    torch.manual_seed(0)
    networks = build(student, 10), build(teacher, 10).eval().requires_grad_(False)
    return OBJECTIVES.load(wanted.objective)(*networks, IMAGES, wanted)


def told(found: Objective, free: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cautions, "free_memory", lambda device: int(free))
    return memory_notes(found, IMAGES, found.section, torch.float32)


def test_a_student_that_costs_less_is_not_talked_about():
    assert cost_notes(of("resnet8", "resnet20", objective="kd"), IMAGES) == []
    assert cost_notes(of("resnet8", "resnet32x4"), IMAGES) == []


def test_a_student_that_costs_more_is_told_in_multiplications_and_parameters():
    (note,) = cost_notes(of("resnet20", "resnet8", objective="kd"), IMAGES)
    assert "'resnet20' costs more than the teacher" in note
    parameters = [
        sum(p.numel() for p in build(name, 10).parameters()) for name in ("resnet20", "resnet8")
    ]
    assert "{:,} parameters against {:,}".format(*parameters) in note
    assert "multiplications an image against" in note
    assert "carry" not in note


def test_a_transfer_module_that_makes_a_student_larger_is_named_with_its_parameters():
    found = of("resnet8", "resnet8")
    (note,) = cost_notes(found, IMAGES)
    bridge = sum(p.numel() for p in found.transfer.parameters())
    assert f"{bridge:,} of its parameters carry its features to the teacher's 64 channels" in note


def test_looking_changes_nothing(monkeypatch):
    found = objective().train()
    before, state = copy.deepcopy(found.state_dict()), torch.get_rng_state()
    cost_notes(found, IMAGES)
    told(found, 0, monkeypatch)
    assert equal(before, found.state_dict())
    assert torch.equal(state, torch.get_rng_state())
    assert found.training
    assert all(p.grad is None for p in found.parameters())


def test_enough_memory_is_not_talked_about(monkeypatch):
    assert told(objective(), 1e12, monkeypatch) == []


def test_what_helps_where_memory_is_short_is_told_and_helps(monkeypatch):
    found = of("resnet8", "resnet8", batch_size=64)
    fixed = cautions._fixed_bytes(found, found.section)
    batch = cautions._batch_bytes(found, IMAGES, found.section)
    each = cautions._bytes_per_image(found, IMAGES, torch.float32)
    free = fixed + batch + 20 * each
    (note,) = told(found, free, monkeypatch)
    assert "64 images at a time" in note
    assert "set distill.accumulate to 4, or lower distill.batch_size" in note
    split = of("resnet8", "resnet8", batch_size=64, accumulate=4)
    assert told(split, free, monkeypatch) == []
    (note,) = told(found, fixed, monkeypatch)
    assert "choose a smaller distill.student" in note


@pytest.mark.parametrize(
    ("changes", "copies"),
    [
        ({}, 2),
        ({"momentum": 0.0}, 1),
        ({"ema": 0.9}, 3),
        ({"optimizer": "adamw"}, 3),
    ],
)
def test_gradients_moments_and_average_are_counted(changes, copies):
    found = objective(section(**changes))
    weights = sum(p.nbytes for p in found.parameters())
    assert cautions._fixed_bytes(found, found.section) == copies * weights


def test_two_views_keep_nearly_twice_what_one_keeps():
    one = cautions._bytes_per_image(objective(section(mixing=False)), IMAGES, torch.float32)
    two = cautions._bytes_per_image(objective(section()), IMAGES, torch.float32)
    assert 1.5 * one < two < 2.1 * one


def test_what_autograd_keeps_of_a_resnet_is_its_maps_a_few_times_over():
    """Input of each convolution, of each norm and of each ReLU; 16 × 16 × 16 maps at first."""
    found = of("resnet8", "resnet8", objective="kd")
    each = cautions._bytes_per_image(found, IMAGES, torch.float32) / cautions.MARGIN
    maps = 3 * (16 * 16 * 16) + 2 * (32 * 8 * 8) + 2 * (64 * 4 * 4)
    assert 2 * 4 * maps < each < 4 * 4 * maps


def test_what_the_sections_batch_holds_grows_with_it():
    small, large = (
        cautions._batch_bytes(objective(), IMAGES, Distill(batch_size=size)) for size in (8, 80)
    )
    assert large == 10 * small == 10 * 3 * 8 * 3 * 16 * 16 * 4
