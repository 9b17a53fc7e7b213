import copy

import numpy as np
import pytest
import torch

from pipeline.console import no_progress
from pipeline.demo.domains import original_images
from pipeline.models import build
from pipeline.models.checkpoint import ModelConfig
from pipeline.models.fuse import fuse
from pipeline.params import Teacher
from pipeline.teacher.normalisation import CONFIGURED, NORMALISATIONS, check_normalisation, sample
from pipeline.teacher.train import train

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TRAIN, LABELS = original_images("train", 600, 16)
WEB = np.clip(0.8 * TRAIN[:256, ::-1].astype(np.float64) + 40, 0, 255).astype(np.uint8)  # paler


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    network = build("resnet8", 10)
    section = Teacher(epochs=6, batch_size=50, lr=0.2, mean=MEAN, std=STD)
    train(network, TRAIN, LABELS, section, torch.device("cpu"), torch.float32, no_progress)
    return network.eval()


def config(mean, std) -> ModelConfig:
    architecture = {"name": "resnet8", "num_classes": 10}
    names = [str(k) for k in range(10)]
    return ModelConfig(architecture, names, list(mean), list(std), 16, "")


@pytest.mark.parametrize("pixels", [TRAIN[:256], WEB], ids=["original", "web"])
def test_the_right_normalisation_is_not_flagged(teacher, pixels):
    check = check_normalisation(teacher, config(MEAN, STD), pixels)
    assert (check.better, check.warning, check.by_confidence) == (None, "", False)


@pytest.mark.parametrize("pixels", [TRAIN[:256], WEB], ids=["original", "web"])
@pytest.mark.parametrize("wrong", ["0.5 / 0.5", "none, 0 to 1", "none, 0 to 255"])
def test_a_wrong_normalisation_is_flagged_and_a_near_one_named(teacher, pixels, wrong):
    check = check_normalisation(teacher, config(*NORMALISATIONS[wrong]), pixels)
    assert check.better in ("0.5 / 0.25", "CIFAR-10", "CIFAR-100")
    mean, std = NORMALISATIONS[check.better]
    assert np.allclose([*mean, *std], [*MEAN, *STD], rtol=0.15)
    assert f"with {check.better} (mean [" in check.warning
    assert "\n" not in check.warning


def test_the_table_has_a_line_for_each_normalisation(teacher):
    check = check_normalisation(teacher, config((0.1, 0.2, 0.3), STD), TRAIN[:64])
    lines = check.table().splitlines()
    names = [line[:18].strip() for line in lines[1:]]
    assert names == [CONFIGURED, *NORMALISATIONS]
    known = check_normalisation(teacher, config(MEAN, STD), TRAIN[:64])
    assert "0.5 / 0.25" not in [one.name for one in known.measurements]  # it is the configured one


def test_the_divergence_is_that_of_normal_distributions(teacher):
    """Of one batch norm alone, against torch's own formula."""
    network = build("resnet8", 10).eval()
    stem = network.bn1
    stem.running_mean.fill_(0.3)
    stem.running_var.fill_(2.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module is not stem:
            module.running_mean = module.running_var = None
    with torch.no_grad():
        scaled = (torch.from_numpy(TRAIN[:100]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        x = network.conv1(scaled).transpose(0, 1).flatten(1)
    web = torch.distributions.Normal(x.mean(1), (x.var(1, correction=0) + stem.eps).sqrt())
    there = torch.distributions.Normal(torch.tensor(0.3), torch.tensor(2.0 + stem.eps).sqrt())
    expected = torch.distributions.kl_divergence(web, there).mean().item()
    check = check_normalisation(network, config(MEAN, STD), TRAIN[:100])
    assert check.measurements[0].divergence == pytest.approx(expected, rel=1e-3)


def test_nothing_is_changed(teacher):
    before = copy.deepcopy(teacher.state_dict())
    check_normalisation(teacher, config(MEAN, STD), TRAIN[:64])
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_without_batch_norms_confidence_decides_and_it_says_so(teacher):
    network = fuse(teacher)
    right = check_normalisation(network, config(MEAN, STD), TRAIN[:256])
    assert right.better is None and right.by_confidence
    assert "judged by confidence alone" in right.table()
    wrong = check_normalisation(network, config(*NORMALISATIONS["none, 0 to 1"]), TRAIN[:256])
    assert wrong.better is not None and wrong.better != "none, 0 to 255"
    assert "mean confidence" in wrong.warning


@pytest.mark.parametrize(
    ("total", "count"), [(5, 5), (16, 16), (3000, 16), (30_000, 100), (10**6, 512)]
)
def test_the_images_to_check_with_are_few_and_from_all_over(total, count):
    rows = sample(total)
    assert len(set(rows.tolist())) == count
    assert (rows[0], rows[-1]) == (0, total - 1)
    assert np.diff(rows).max() <= np.diff(rows).min() + 1
