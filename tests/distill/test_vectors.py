"""Alignment where teacher or student is cut at a vector, or cannot be cut."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd3_pipeline import models
from kd3_pipeline.distill.objectives import kd3
from kd3_pipeline.distill.objectives.objective import Objective, with_own_settings
from kd3_pipeline.errors import UserError
from kd3_pipeline.kd3 import disagreement_weights
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.distilled import Distilled, load_student
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.pixels import normalise
from kd3_pipeline.registry import OBJECTIVES
from tests.distill.world import CPU, MEAN, SIDE, STD, pixels, run, section

CLASSES = 10
ALIGNED = ("kd3", "simkd", "official")


class Flat(Network):
    """A network with a flattened map before its tail of two layers."""

    cut = "vector"

    def __init__(self, num_classes: int, channels: int = 4, *, normed: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, channels, 3, 4, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.LayerNorm(16 * channels) if normed else nn.Identity(),
        )
        self.feature_channels = 16 * channels
        hidden = nn.Linear(16 * channels, 12)
        self.fc = nn.Sequential(hidden, nn.ReLU(), nn.Linear(12, num_classes))

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)


class Mapped(Flat):
    """A network that pools a map of its classes, as SqueezeNet does: its tail does nothing."""

    cut = "map"

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.maps = nn.Sequential(nn.Conv2d(3, num_classes, 3, 4, 1), nn.ReLU())
        del self.body
        self.fc = nn.Identity()
        self.feature_channels = num_classes

    def features(self, images: Tensor) -> Tensor:
        return self.maps(images)


class OwnTail(nn.Module):
    """A tail that is no plain layer of torch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        return 2 * self.linear(pooled)


class Owned(Flat):
    """A vector, and a tail with code of its own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.fc = OwnTail(self.feature_channels, num_classes)


class Answers(Flat):
    """A network that gives logits alone."""

    cut = "logits"

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head, self.outputs = self.fc, num_classes
        self.fc = nn.Identity()
        self.feature_channels = num_classes

    @property
    def num_classes(self) -> int:
        return self.outputs

    def features(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """These networks have names, as a library's would."""
    for name, make in {"flat": Flat, "owned": Owned, "answers": Answers, "mapped": Mapped}.items():
        monkeypatch.setitem(models.ARCHITECTURES, name, make)


def batch(count: int = 12) -> Tensor:
    return normalise(pixels(slice(count)), MEAN, STD)


def made(name: str, **options: Any) -> Network:
    torch.manual_seed(3)
    network = build(name, CLASSES, **options)
    with torch.no_grad():
        for _ in range(5):
            network(batch())
    return network.eval().requires_grad_(False)


def objective(student: str, teacher: Network, **changes: Any) -> Objective:
    of = with_own_settings(section(student=student, **changes))
    torch.manual_seed(0)
    return OBJECTIVES.load(of.objective)(build(student, CLASSES), teacher, batch(), of)


def forward(of: Objective) -> dict[str, Tensor]:
    return of(*of.views(batch(), torch.Generator().manual_seed(7)))


CUTS = [
    (student, teacher)
    for student, teacher in product(("resnet8", "flat"), ("resnet8", "flat", "owned"))
    if (student, teacher) != ("resnet8", "resnet8")
]


@pytest.mark.parametrize("name", ALIGNED)
@pytest.mark.parametrize(("student", "teacher"), CUTS)
def test_every_pair_of_cuts_trains_all_that_it_has(name, student, teacher):
    of = objective(student, made(teacher), objective=name).train()
    sum(forward(of).values()).backward()
    for key, parameter in of.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), key


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize(("student", "teacher"), CUTS)
def test_the_deployed_student_says_what_the_objective_predicts(tmp_path, student, teacher, fused):
    of = objective(student, made(teacher)).train()
    with torch.no_grad():
        forward(of)
        expected = of.eval().predict(batch())
        built = {"name": student, "num_classes": CLASSES}
        network, architecture = of.deployed(built, {"name": teacher, "num_classes": CLASSES})
        assert torch.equal(network.eval()(batch()), expected)
        assert expected.std(dim=0).min() > 0
        shipped = fuse(network) if fused else network
        config = ModelConfig(
            architecture | {"fused": fused}, list("abcdefghij"), MEAN, STD, SIDE, "a test"
        )
        save_model(tmp_path, shipped, config)
        loaded = load_student(tmp_path, CPU)[0]
        torch.testing.assert_close(loaded(batch()), expected, rtol=1e-4, atol=1e-5)
    assert ("teacher" in architecture) == (teacher == "owned")


def test_a_tail_of_plain_layers_is_loaded_where_the_teachers_network_is_unknown(
    tmp_path, monkeypatch
):
    of = objective("resnet8", made("flat")).eval()
    network, architecture = of.deployed(
        {"name": "resnet8", "num_classes": CLASSES}, {"name": "flat", "num_classes": CLASSES}
    )
    save_model(
        tmp_path, network, ModelConfig(architecture, list("abcdefghij"), MEAN, STD, SIDE, "a test")
    )
    monkeypatch.delitem(models.ARCHITECTURES, "flat")
    with torch.no_grad():
        assert torch.equal(load_student(tmp_path, CPU)[0](batch()), of.predict(batch()))


def test_a_tail_with_code_of_its_own_needs_the_teachers_network(tmp_path, monkeypatch):
    of = objective("resnet8", made("owned")).eval()
    network, architecture = of.deployed(
        {"name": "resnet8", "num_classes": CLASSES}, {"name": "owned", "num_classes": CLASSES}
    )
    save_model(
        tmp_path, network, ModelConfig(architecture, list("abcdefghij"), MEAN, STD, SIDE, "a test")
    )
    monkeypatch.delitem(models.ARCHITECTURES, "owned")
    with pytest.raises(UserError, match="no architecture named 'owned'"):
        load_student(tmp_path, CPU)


def test_the_feature_term_of_a_vector_is_the_weighted_square_of_the_difference():
    of = objective("resnet8", made("flat"), mixing=False).eval()
    with torch.no_grad():
        ours = pool(of.transfer.transfer(of.student.features(batch()))).double()
        theirs = of.teacher.features(batch()).double()
        logits = of.predict(batch()).double(), of.teacher(batch()).double()
        found = forward(of)["feature"].item()
    squares = (ours - theirs).square().mean(dim=1)
    expected = (disagreement_weights(*logits) * squares).mean().item()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("normed", [False, True], ids=["after a ReLU", "after a layer norm"])
def test_what_may_be_negative_in_the_teacher_may_be_so_in_the_student(normed):
    of = objective("resnet8", made("flat", normed=normed)).train()
    with torch.no_grad():
        ours = of.transfer.transfer(of.student.features(batch()))
    assert (ours < 0).any() == normed


@pytest.mark.parametrize(("name", "below"), [("kd3", True), ("official", False)])
def test_a_map_that_goes_below_zero_is_met_but_by_the_published_code(name, below):
    teacher = made("resnet8")
    last = teacher.layer3[-1]
    last.register_forward_hook(lambda module, inputs, output: output - 0.5)
    of = objective("resnet8", teacher, objective=name).train()
    with torch.no_grad():
        ours = of.transfer.transfer(of.student.features(batch()))
    assert (ours < 0).any() == below


def test_the_inner_width_to_a_vector_is_half_of_it_within_bounds(monkeypatch):
    monkeypatch.setattr(kd3, "WIDEST", 48)
    widths = {
        channels: objective("resnet8", made("flat", channels=channels)).transfer.transfer[0]
        for channels in (2, 5, 8)
    }
    found = {channels: layer.out_channels for channels, layer in widths.items()}
    assert found == {2: 32, 5: 40, 8: 48}  # of 32, 80 and 128


def test_a_map_of_classes_is_not_squeezed_through_half_of_them(tmp_path):
    of = objective("resnet8", made("mapped")).eval()
    assert of.transfer.transfer[0].out_channels == 32
    network, architecture = of.deployed(
        {"name": "resnet8", "num_classes": CLASSES}, {"name": "mapped", "num_classes": CLASSES}
    )
    config = ModelConfig(architecture, list("abcdefghij"), MEAN, STD, SIDE, "a test")
    save_model(tmp_path, network, config)
    loaded = load_student(tmp_path, CPU)[0]
    assert loaded.num_classes == CLASSES
    with torch.no_grad():
        assert torch.equal(loaded(batch()), of.predict(batch()))


def test_the_convolution_in_the_middle_is_1_by_1_for_a_student_of_one_position():
    for student, size in (("resnet8", (3, 3)), ("flat", (1, 1))):
        assert objective(student, made("flat")).transfer.transfer[3].kernel_size == size


@pytest.mark.parametrize("name", ALIGNED)
def test_logits_alone_cannot_be_aligned_and_what_can_be_done_is_told(name):
    with pytest.raises(UserError, match=r"teacher gives logits alone.*\n?.*kd or dfnd"):
        objective("resnet8", made("answers"), objective=name)
    with pytest.raises(UserError, match=r"of 'answers' only the logits.*\n?.*kd or dfnd"):
        objective("answers", made("resnet8"), objective=name)


@pytest.mark.parametrize("name", ["kd", "dfnd"])
def test_logits_alone_are_enough_without_alignment(name):
    of = objective("answers", made("answers"), objective=name).train()
    terms = forward(of)
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize("student", ["resnet8", "flat"])
def test_a_run_from_a_vector_lowers_its_loss_and_is_deployed_as_a_distilled_network(
    tmp_path: Path, student
):
    of = section(student=student, epochs=12, selection="none", lr=0.2, crop="none", mixing=False)
    done = run(tmp_path, of, student=objective(student, made("flat"), mixing=False))
    losses = [row["feature"] for row in done.trained.curves]
    assert losses[-1] < 0.9 * losses[0]
    network, _ = done.objective.deployed(
        {"name": student, "num_classes": CLASSES}, {"name": "flat", "num_classes": CLASSES}
    )
    assert isinstance(network, Distilled)
