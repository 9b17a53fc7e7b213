from dataclasses import replace

import pytest
import torch

from pipeline.console import no_progress
from pipeline.demo.domains import original_images
from pipeline.models import build
from pipeline.paramfile import read_params
from pipeline.runkey import fields_of
from pipeline.teacher.train import Recipe, cut_out, train
from tests.imports import ROOT

PIXELS, LABELS = original_images("train", 64, 32)
CPU = torch.device("cpu")


def losses_of(recipe: Recipe) -> torch.Tensor:
    torch.manual_seed(0)
    network = build("resnet8", 10)
    train(network, PIXELS, LABELS, (0.5,) * 3, (0.25,) * 3, recipe, CPU, no_progress)
    return network.fc.weight.detach().clone()


@pytest.mark.parametrize("side", [1, 4, 7, 8, 32])
def test_cutout_blanks_one_square_around_any_point(side):
    images = torch.ones(400, 3, 32, 32)
    cut = cut_out(images, torch.Generator().manual_seed(0), side)
    assert torch.equal(cut[:, 0], cut[:, 2])
    holes = cut[:, 0] == 0
    heights, widths = holes.any(dim=2).sum(dim=1), holes.any(dim=1).sum(dim=1)
    assert torch.equal(holes.sum(dim=(1, 2)), heights * widths)  # filled rectangles
    assert heights.max() == widths.max() == side
    assert heights.min() >= side // 2  # cut off at the border at most by half
    assert holes.any(dim=(0, 1)).all() and holes.any(dim=(0, 2)).all()


@pytest.mark.parametrize("field", ["weight_decay", "label_smoothing", "cutout"])
def test_each_part_of_the_recipe_has_an_effect(field):
    plain = Recipe(1, 32, 0.1, False, 0, torch.float32)
    changed = replace(plain, **{field: {"cutout": 8}.get(field, 0.2)})
    assert not torch.equal(losses_of(plain), losses_of(changed))
    assert losses_of(changed).isfinite().all()


def test_the_recipe_for_a_gpu_is_that_of_its_preset_and_runs():
    section = read_params(ROOT / "presets/cifar10-gpu.yaml").teacher
    assert (section.architecture, section.batch_size, section.flip) == ("resnet34", 512, True)
    values = section.model_copy(update={"precision": torch.bfloat16, "epochs": 1, "batch_size": 8})
    recipe = Recipe(**fields_of(Recipe, values))
    assert recipe.label_smoothing > 0 and recipe.cutout > 0
    torch.manual_seed(0)
    network = build(section.architecture, 10)
    train(network, PIXELS[:16], LABELS[:16], section.mean, section.std, recipe, CPU, no_progress)
    assert all(value.isfinite().all() for value in network.state_dict().values())
