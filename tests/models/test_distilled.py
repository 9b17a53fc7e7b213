import json

import pytest
import torch
from torch import nn

from pipeline.distill.objectives import KD3, Terms
from pipeline.errors import UserError
from pipeline.models import build
from pipeline.models.checkpoint import CONFIG, ModelConfig, load_model, save_model
from pipeline.models.distilled import load_student
from pipeline.models.network import Network

CPU = torch.device("cpu")
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TERMS = Terms(True, 0.1, 0.001, 0.3, 4.0)


class Plain(Network):
    """A teacher whose feature maps are `side` pixels wide."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(side))
        self.fc = nn.Linear(12, 5)
        self.feature_channels = 12

    def features(self, images):
        return self.body(images)


def objective(side: int) -> KD3:
    """A KD3 objective, a step into its training; the student's maps are 4 pixels wide."""
    torch.manual_seed(3)
    teacher = Plain(side).eval().requires_grad_(False)
    made = KD3(build("resnet8", 5), teacher, IMAGES, TERMS)
    terms = made.losses(IMAGES, torch.Generator().manual_seed(0))
    sum(terms.values()).backward()
    torch.optim.SGD(made.parameters(), 0.5).step()
    return made.eval()


def config(architecture) -> ModelConfig:
    return ModelConfig(architecture, list("abcde"), [0.5] * 3, [0.2] * 3, 16, "a test")


@pytest.mark.parametrize("side", [2, 4, 7], ids=["larger", "equal", "smaller"])
def test_the_deployed_student_predicts_what_the_trained_one_did(tmp_path, side):
    trained = objective(side)
    with torch.no_grad():
        expected = trained.predict(IMAGES)
    network, architecture = trained.deployed()
    with torch.no_grad():
        assert (network.eval()(IMAGES) - expected).abs().max() < 1e-5
    assert expected.std(dim=0).min() > 0

    save_model(tmp_path, network, config({"backbone": "resnet8"} | architecture))
    loaded, _ = load_student(tmp_path, CPU)
    with torch.no_grad():
        assert (loaded(IMAGES) - expected).abs().max() < 1e-5


def test_the_deployed_student_has_no_classifier_but_the_teachers():
    trained = objective(4)
    network, _ = trained.deployed()
    assert not [name for name in network.state_dict() if name.startswith("backbone.fc")]
    assert torch.equal(network.fc.weight, trained._teacher[0].fc.weight)
    assert network.fc.weight is not trained._teacher[0].fc.weight


def test_a_plain_student_comes_back_too(tmp_path):
    torch.manual_seed(0)
    student = build("wrn16_1", 5).eval()
    save_model(tmp_path, student, config({"name": "wrn16_1", "num_classes": 5}))
    loaded, _ = load_student(tmp_path, CPU)
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), student(IMAGES))


@pytest.mark.parametrize("key", ["teacher_channels", "num_classes", "factor", "side"])
def test_a_config_that_lacks_a_size_is_one_error(tmp_path, key):
    network, architecture = objective(4).deployed()
    save_model(tmp_path, network, config({"backbone": "resnet8"} | architecture))
    values = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    del values["architecture"][key]
    (tmp_path / CONFIG).write_text(json.dumps(values), "utf-8")
    with pytest.raises(UserError, match=f"holds no model: .*{key}"):
        load_student(tmp_path, CPU)


def test_a_distilled_student_is_no_plain_network(tmp_path):
    network, architecture = objective(4).deployed()
    save_model(tmp_path, network, config({"backbone": "resnet8"} | architecture))
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path, CPU)
