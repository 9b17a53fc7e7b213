import numpy as np
import pytest
import torch

from pipeline.console import no_progress
from pipeline.demo.domains import original_images
from pipeline.errors import UserError
from pipeline.models import build
from pipeline.teacher.train import Recipe, train

CPU = torch.device("cpu")
MEAN, STD = [0.5] * 3, [0.25] * 3
PIXELS, LABELS = original_images("train", 96, 16)


def run(seed: int = 0, epochs: int = 2, pixels=PIXELS, labels=LABELS, advance=no_progress):
    torch.manual_seed(0)
    network = build("resnet8", 10)
    recipe = Recipe(epochs, 32, 0.1, True, seed, torch.float32)
    accuracy = train(network, pixels, labels, MEAN, STD, recipe, CPU, advance)
    return network, accuracy


def test_training_is_of_the_seed_alone():
    first, second, other = run(1)[0], run(1)[0], run(2)[0]
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    assert not first.training


def test_training_learns_what_is_easy():
    labels = np.arange(96) % 2
    pixels = np.full((96, 16, 16, 3), 40, np.uint8) + (labels * 170)[:, None, None, None]
    network, accuracy = run(pixels=pixels.astype(np.uint8), labels=labels, epochs=4)
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
