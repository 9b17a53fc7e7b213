"""Whether a teacher is fed as it was trained: by its first batch norm, else by its answers."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.norms import first_divergence, first_norm
from kd3_pipeline.params import Teacher
from kd3_pipeline.teacher.normalisation import (
    CONFIGURED,
    NORMALISATIONS,
    ORDER_RATIO,
    ORDER_SCORE,
    Measurement,
    check_normalisation,
    check_order,
    judged,
    near_to,
    sample,
    spread,
)
from kd3_pipeline.teacher.train import train

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TRAIN, LABELS = original_images("train", 600, 16)
WEB = np.clip(0.8 * TRAIN[:256, ::-1].astype(np.float64) + 40, 0, 255).astype(np.uint8)  # paler
SETS = pytest.mark.parametrize("pixels", [TRAIN[:256], WEB], ids=["original", "web"])
GROSS = ("0.5 / 0.5", "none, 0 to 1", "none, 0 to 255", "ImageNet's mean alone")


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


@SETS
def test_the_right_normalisation_fits(teacher, pixels):
    check = check_normalisation(teacher, config(MEAN, STD), pixels)
    assert (check.verdict, check.better, check.warning) == ("fits", None, "")
    assert check.text.startswith("they fit: the first batch norm is off by 0.")


@SETS
@pytest.mark.parametrize("wrong", GROSS)
def test_a_wrong_normalisation_is_told_and_a_near_one_named(teacher, pixels, wrong):
    check = check_normalisation(teacher, config(*NORMALISATIONS[wrong]), pixels)
    assert check.verdict == "wrong"
    mean, std = NORMALISATIONS[check.better]
    assert np.allclose([*mean, *std], [*MEAN, *STD], rtol=0.25)
    assert f"with {check.better} (mean [" in check.warning
    assert check.text == check.warning and "\n" not in check.warning


@pytest.mark.parametrize(
    ("mean", "std"),
    [(MEAN, (0.05,) * 3), ((0.05, 0.05, 0.05), STD), ((0.95, 0.5, 0.05), STD)],
    ids=["std alone", "mean alone", "mean by channel"],
)
def test_what_is_half_right_is_wrong(teacher, mean, std):
    assert check_normalisation(teacher, config(mean, std), TRAIN[:256]).verdict == "wrong"


def test_images_unlike_those_of_the_training_tell_nothing(teacher):
    """White pages with a thin line: nothing fits, and that is no fault of the normalisation."""
    pages = np.full((128, 16, 16, 3), 250, np.uint8)
    pages[np.arange(128), :, np.arange(128) % 16] = 20
    check = check_normalisation(teacher, config(MEAN, STD), pages)
    assert (check.verdict, check.better) == ("unknown", None)
    assert "cannot tell" in check.text and "images are unlike" in check.text


@pytest.mark.parametrize("wrong", [*GROSS, "pages"])
def test_a_teacher_that_was_trained_here_is_never_said_to_be_fed_otherwise(teacher, wrong):
    """Its images may be unlike those of its training, which the divergence goes on to tell."""
    pixels, given = TRAIN[:256], NORMALISATIONS.get(wrong, (MEAN, STD))
    if wrong == "pages":
        pixels = np.full((128, 16, 16, 3), 250, np.uint8)
    check = check_normalisation(teacher, replace(config(*given), known_input=True), pixels)
    other = check_normalisation(teacher, config(*given), pixels)
    assert other.verdict != "fits"
    assert (check.verdict, check.warning) == ("fits", "")
    assert check.text == "they fit: the teacher was trained here, with them"
    assert (check.measurements, check.divergence) == (other.measurements, other.divergence)


@pytest.mark.parametrize("batches", [0, 3])
def test_batch_norms_that_saw_few_images_or_none_tell_nothing(batches):
    torch.manual_seed(0)
    network = build("resnet8", 10).train()
    for _ in range(batches):
        network(torch.randn(8, 3, 16, 16))
    check = check_normalisation(network.eval(), config(MEAN, STD), TRAIN[:64])
    assert check.verdict == "unknown"
    assert "too few images in training" in check.text


def test_a_count_that_a_file_lacks_does_not_make_a_teacher_untrained(teacher):
    network = copy.deepcopy(teacher)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.zero_()
    assert check_normalisation(network, config(MEAN, STD), TRAIN[:256]).verdict == "fits"


def test_a_program_that_normalises_by_itself_is_not_judged(teacher):
    network = copy.deepcopy(teacher)
    network.own_input = True
    check = check_normalisation(network, config(*NORMALISATIONS["0.5 / 0.5"]), TRAIN[:64])
    assert check.verdict == "unknown"
    assert "normalises by itself" in check.text


def test_without_images_it_cannot_tell(teacher):
    check = check_normalisation(teacher, config(MEAN, STD), TRAIN[:0])
    assert check.verdict == "unknown" and "no images" in check.text
    assert check_order(teacher, config(MEAN, STD), TRAIN[:0]).verdict == "unknown"


def test_the_table_has_a_line_for_each_normalisation(teacher):
    check = check_normalisation(teacher, config((0.1, 0.2, 0.3), STD), TRAIN[:64])
    names = [line[:22].strip() for line in check.table().splitlines()[1:]]
    assert names == [CONFIGURED, *NORMALISATIONS]
    known = check_normalisation(teacher, config(MEAN, STD), TRAIN[:64])
    assert "0.5 / 0.25" not in [one.name for one in known.measurements]  # it is the configured one


def test_the_divergence_is_that_of_normal_distributions(teacher):
    """Of the first batch norm, against torch's own formula."""
    network = copy.deepcopy(teacher)
    stem = network.bn1
    stem.running_mean.fill_(0.3)
    stem.running_var.fill_(2.0)
    images = ((torch.from_numpy(TRAIN[:100]).permute(0, 3, 1, 2) / 255) - 0.5) / 0.25
    with torch.no_grad():
        x = network.conv1(images).transpose(0, 1).flatten(1)
    web = torch.distributions.Normal(x.mean(1), (x.var(1, correction=0) + stem.eps).sqrt())
    there = torch.distributions.Normal(torch.tensor(0.3), torch.tensor(2.0 + stem.eps).sqrt())
    expected = torch.distributions.kl_divergence(web, there).mean().item()
    assert first_norm(network, images[:2]) is stem
    assert first_divergence(network, stem, images.split(33)) == pytest.approx(expected, rel=1e-3)
    check = check_normalisation(network, config(MEAN, STD), TRAIN[:100])
    assert check.measurements[0].first == pytest.approx(expected, rel=1e-3)


def test_only_the_first_layers_are_passed_for_each_normalisation(teacher):
    passed = []
    hook = teacher.fc.register_forward_hook(lambda *_: passed.append(1))
    check_normalisation(teacher, config(MEAN, STD), TRAIN[:512], whole=64)
    hook.remove()
    assert len(passed) == 1  # of 64 images, for the divergence of all layers


class Late(Network):
    """Its batch norms are called in another order than they are registered."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        from torchvision.ops import FrozenBatchNorm2d

        self.later = nn.BatchNorm2d(8)
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = FrozenBatchNorm2d(8) if frozen else nn.SyncBatchNorm(8)
        self.fc = nn.Linear(8, 10)
        self.feature_channels = 8

    def features(self, images):
        return self.later(self.norm(self.stem(images)).relu())


@pytest.mark.parametrize("frozen", [False, True])
def test_the_first_is_the_first_of_the_pass_whatever_its_kind(frozen):
    network = Late(frozen).eval()
    assert first_norm(network, torch.zeros(2, 3, 8, 8)) is network.norm


def test_nothing_is_changed(teacher):
    before = copy.deepcopy(teacher.state_dict())
    check_normalisation(teacher, config(MEAN, STD), TRAIN[:64])
    check_order(teacher, config(MEAN, STD), TRAIN[:64])
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_without_batch_norms_answers_tell_what_is_wrong_and_never_what_is_right(teacher):
    network = fuse(teacher)
    right = check_normalisation(network, config(MEAN, STD), TRAIN[:256])
    assert right.verdict == "unknown" and math.isnan(right.divergence)
    assert "no batch norms are seen" in right.text and "cannot tell" in right.text
    wrong = check_normalisation(network, config(*NORMALISATIONS["none, 0 to 1"]), TRAIN[:256])
    assert wrong.verdict == "wrong" and "none" not in wrong.better
    assert "diversity of its answers" in wrong.warning


def test_answers_to_images_of_one_class_do_not_judge(teacher):
    """How many classes are answered is then the images' doing."""
    network = fuse(teacher)
    one = TRAIN[LABELS == 3][:64].repeat(2, axis=0)
    check = check_normalisation(network, config(MEAN, STD), one)
    assert check.better is None


def test_answers_do_not_tell_what_is_near_to_the_configured_one():
    """Of images of one class they move from one normalisation to a near one as by a gross one."""
    said = {CONFIGURED: 0.67, "CIFAR-10, std 0.2": 0.86, "ImageNet": 0.8, "0.5 / 0.5": 0.3}
    found = [Measurement(name, diversity=value) for name, value in said.items()]
    near = near_to((MEAN, STD))
    assert near == {"CIFAR-10", "CIFAR-10, std 0.2", "CIFAR-100", "ImageNet", "0.5 / 0.25"}
    assert (judged(found).verdict, judged(found).better) == ("wrong", "CIFAR-10, std 0.2")
    assert judged(found, near=near).verdict == "unknown"
    gross = [*found, Measurement("MNIST", diversity=0.9)]
    assert judged(gross, near=near).better == "MNIST"


def test_too_few_images_for_answers_are_no_verdict(teacher):
    check = check_normalisation(fuse(teacher), config(MEAN, STD), TRAIN[:256], whole=16)
    assert check.verdict == "unknown" and "16 images are too few" in check.text


def test_the_other_order_of_colours_is_told_where_both_signs_say_so():
    """Of a network that has seen warm colours alone: bluish pictures are none of its kind."""
    warm = (TRAIN.astype(np.float64) * (1.0, 0.6, 0.2)).round().astype(np.uint8)
    torch.manual_seed(0)
    network = build("resnet8", 10)
    section = Teacher(epochs=6, batch_size=50, lr=0.2, mean=MEAN, std=STD)
    train(network, warm, LABELS, section, torch.device("cpu"), torch.float32, no_progress)
    right = check_order(network.eval(), config(MEAN, STD), warm)
    wrong = check_order(network, config(MEAN, STD), warm[..., ::-1].copy())
    assert (right.verdict, wrong.verdict) == ("unknown", "wrong")
    assert right.ratio < 1 < ORDER_RATIO < wrong.ratio
    assert right.score < 0 < ORDER_SCORE < wrong.score


def test_where_colours_hardly_matter_their_order_is_not_told(teacher):
    assert check_order(teacher, config(MEAN, STD), TRAIN[:256]).verdict == "unknown"
    assert check_order(fuse(teacher), config(MEAN, STD), TRAIN[:256]).verdict == "unknown"


@pytest.mark.parametrize(
    ("total", "count"), [(5, 5), (16, 16), (3000, 16), (30_000, 100), (10**6, 512)]
)
def test_the_images_of_whole_passes_are_few_and_from_all_over(total, count):
    rows = sample(total)
    assert len(set(rows.tolist())) == count
    assert (rows[0], rows[-1]) == (0, total - 1)
    assert np.diff(rows).max() <= np.diff(rows).min() + 1


@pytest.mark.parametrize(("total", "count"), [(0, 0), (5, 5), (3000, 512)])
def test_512_images_or_all_there_are(total, count):
    assert len(set(spread(total).tolist())) == count
