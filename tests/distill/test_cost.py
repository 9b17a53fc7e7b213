import copy

import pytest
import torch
from torch import Tensor

from kd3_pipeline.distill.cost import flops_per_image, peak_flops
from kd3_pipeline.pixels import normalise
from kd3_pipeline.registry import OBJECTIVES
from tests.distill.world import MEAN, STD, objective, pixels, section

# products of a forward pass of resnet8 with 10 classes for one image of 16 × 16, layer by layer:
# places × outputs × inputs × kernel
STEM = 16 * 16 * 16 * 3 * 9
RESNET8 = (
    STEM
    + 2 * (16 * 16 * 16 * 16 * 9)
    + 8 * 8 * 32 * 16 * 9
    + 8 * 8 * 32 * 32 * 9
    + 8 * 8 * 32 * 16  # shortcut
    + 4 * 4 * 64 * 32 * 9
    + 4 * 4 * 64 * 64 * 9
    + 4 * 4 * 64 * 32  # shortcut
    + 64 * 10
)
HEAD = 64 * 10
TRANSFER = 4 * 4 * (64 * 32 + 32 * 32 * 9 + 32 * 64)


def images(count: int = 2) -> Tensor:
    return normalise(pixels(slice(count)), MEAN, STD)


def test_a_step_of_plain_distillation_is_counted_to_the_product():
    found = flops_per_image(objective(section(objective="kd")), images())
    teacher, forward = RESNET8, RESNET8
    backward = 2 * RESNET8 - STEM  # nobody asks for the gradient of the pixels
    assert found == 2 * (teacher + forward + backward)


def test_an_aligned_step_has_the_transfer_module_and_the_teachers_head():
    found = flops_per_image(objective(section(objective="simkd", weighting=False)), images())
    body = RESNET8 - HEAD
    student = 3 * (body + TRANSFER) - STEM
    # the logits serve only the weights: computed forward, with no loss to go back from
    assert found == 2 * (RESNET8 + student + HEAD)


def test_a_second_view_costs_a_second_pass_of_the_student():
    without = flops_per_image(objective(section(mixing=False)), images())
    views = flops_per_image(objective(), images())
    body = RESNET8 - HEAD
    second = 3 * body - STEM
    projections = 3 * 2 * (64 * 128)
    contrast = 3 * 4 * 4 * 128 / 2  # the rows of two images by each other
    assert views - without == 2 * (second + projections + contrast)


@pytest.mark.parametrize("count", [2, 6])
def test_the_count_is_for_one_image_however_many_are_shown(count):
    of = objective(section(objective="kd"))
    assert flops_per_image(of, images(count)) == flops_per_image(of, images(2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", sorted(OBJECTIVES.entries))
def test_counting_changes_nothing(name, training):
    of = objective(section(objective=name)).train(training)
    shown, state = images(), torch.get_rng_state()
    before = copy.deepcopy(of.state_dict())
    teacher = copy.deepcopy(of.teacher.state_dict())
    assert flops_per_image(of, shown) > 0
    for held, state_before in ((of, before), (of.teacher, teacher)):
        assert held.state_dict().keys() == state_before.keys()
        for key, value in held.state_dict().items():
            assert torch.equal(value, state_before[key]), key
        assert all(parameter.grad is None for parameter in held.parameters())
    assert of.training == training
    assert not of.teacher.training
    assert torch.equal(shown, images())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_only_of_cuda_devices_the_peak_is_known(kind):
    assert peak_flops(torch.device(kind), torch.bfloat16) is None


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000 Laptop GPU", None),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_is_that_of_the_card_of_this_name_and_of_bfloat16(monkeypatch, name, teraflops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    cuda = torch.device("cuda")
    found = peak_flops(cuda, torch.bfloat16)
    assert found == (None if teraflops is None else pytest.approx(teraflops * 1e12))
    assert peak_flops(cuda, torch.float32) is None
