import numpy as np
import pytest
import torch

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.network import Network
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Teacher
from kd3_pipeline.teacher.train import cut_out, train
from tests.imports import ROOT

CPU = torch.device("cpu")
PIXELS, LABELS = original_images("train", 96, 16)
TINY = Teacher(epochs=2, batch_size=32, lr=0.1, flip=True)


def run(section=TINY, pixels=PIXELS, labels=LABELS, advance=no_progress) -> tuple[Network, float]:
    torch.manual_seed(0)
    network = build("resnet8", 10)
    accuracy = train(network, pixels, labels, section, CPU, torch.float32, advance)
    return network, accuracy


def test_training_is_of_the_seed_alone():
    first, second, other = (run(TINY.model_copy(update={"seed": n}))[0] for n in (1, 1, 2))
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    assert not first.training


def test_training_learns_what_is_easy():
    labels = np.arange(96) % 2
    pixels = np.full((96, 16, 16, 3), 40, np.uint8) + (labels * 170)[:, None, None, None]
    easy = TINY.model_copy(update={"epochs": 4})
    network, accuracy = run(easy, pixels.astype(np.uint8), labels)
    assert accuracy > 0.9
    assert network.fc.weight.isfinite().all()


def test_every_step_and_epoch_is_told():
    told: list[tuple[int, str]] = []
    run(advance=lambda n=1, note="": told.append((n, note)))
    assert sum(n for n, _ in told) == 2 * 3
    assert [note.split(",")[0] for _, note in told if note] == ["epoch 1 of 2", "epoch 2 of 2"]


def test_fewer_images_than_a_batch_are_an_error_of_the_user():
    with pytest.raises(UserError, match="31 images are fewer than a batch of 32"):
        run(pixels=PIXELS[:31], labels=LABELS[:31])


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


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 0.2},
        {"label_smoothing": 0.2},
        {"cutout": 4},
        {"flip": False},
        {"mean": (0.4, 0.5, 0.6)},
        {"std": (0.2, 0.25, 0.3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_parameter_of_training_has_an_effect(change):
    plain = TINY.model_copy(update={"epochs": 1})
    before, after = (run(plain.model_copy(update=update))[0] for update in ({}, change))
    assert not torch.equal(before.fc.weight, after.fc.weight)
    assert after.fc.weight.isfinite().all()


def test_the_recipe_for_a_gpu_is_that_of_its_preset_and_runs():
    section = read_params(ROOT / "pipeline/presets/cifar10-gpu.yaml").teacher
    assert (section.architecture, section.batch_size, section.flip) == ("resnet34", 512, True)
    assert section.label_smoothing > 0 and section.cutout > 0
    with torch.device("meta"):
        assert build(section.architecture, 10).num_classes == 10
    network = build("resnet8", 10)  # one that a CPU passes in bfloat16 in no time
    small = section.model_copy(update={"epochs": 1, "batch_size": 8})
    train(network, PIXELS[:16], LABELS[:16], small, CPU, torch.bfloat16, no_progress)
    assert all(value.isfinite().all() for value in network.state_dict().values())
