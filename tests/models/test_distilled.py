import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.errors import UserError
from kd3_pipeline.kd3 import Transfer
from kd3_pipeline.models import build, distilled
from kd3_pipeline.models.checkpoint import CONFIG, ModelConfig, load_model, save_model
from kd3_pipeline.models.distilled import Distilled, load_student
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.layers import layers_of
from kd3_pipeline.models.network import Network, drop_classifier, parameter_count, pool

CPU = torch.device("cpu")
IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
RESNET8 = {"name": "resnet8", "num_classes": 5}
TEACHERS = [
    RESNET8,
    {"name": "mobilenetv2", "num_classes": 5, "width_mult": 0.25},
    {"name": "torchvision/mobilenet_v3_small", "num_classes": 5},
    {"name": "torchvision/regnet_y_400mf", "num_classes": 5},
    {"name": "torchvision/convnext_tiny", "num_classes": 5},
]


def seen(network: nn.Module) -> None:
    """Takes in running statistics, so that they are not the initial ones."""
    with torch.no_grad():
        network(IMAGES)
    network.eval()


def student(teacher: Network, side: int = 8, name: str = "resnet8", **options) -> Distilled:
    torch.manual_seed(2)
    backbone = build(name, 5, **options)
    drop_classifier(backbone)
    transfer = Transfer(backbone.feature_channels, teacher.feature_channels)
    made = Distilled(backbone, transfer, teacher.classifier, side)
    seen(made)
    return made


def made_by(architecture) -> Network:
    torch.manual_seed(1)
    teacher = build(**architecture)
    seen(teacher)
    return teacher


def config(architecture) -> ModelConfig:
    return ModelConfig(architecture, list("abcde"), [0.5] * 3, [0.2] * 3, 32, "a test")


def saved(folder, network: Network, architecture) -> Network:
    save_model(folder, network, config(architecture))
    return load_student(folder, CPU)[0]


def logits(network: Network) -> Tensor:
    with torch.no_grad():
        return network(IMAGES)


@pytest.fixture
def folder(tmp_path):
    network = student(made_by(RESNET8))
    architecture = Distilled.architecture(
        backbone="resnet8", teacher=RESNET8, side=8, num_classes=5
    )
    save_model(tmp_path, network, config(architecture))
    return tmp_path


@pytest.mark.parametrize("side", [2, 8, 11], ids=["larger", "equal", "smaller"])
def test_logits_are_the_teachers_classifier_on_the_transferred_map(side):
    teacher = made_by(RESNET8)
    network = student(teacher, side)
    with torch.no_grad():
        feature_map = network.backbone.features(IMAGES)
        if side < 8:
            feature_map = functional.adaptive_avg_pool2d(feature_map, side)
        transferred = network.transfer(feature_map)
        assert torch.equal(network.features(IMAGES), transferred)
        assert torch.equal(network(IMAGES), teacher.classify(pool(transferred)))
    assert network(IMAGES).std(dim=0).min() > 0


@pytest.mark.parametrize("described", [False, True], ids=["by its teacher", "by its tail"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("teacher", TEACHERS, ids=lambda teacher: teacher["name"])
def test_a_student_comes_back_without_its_teacher(tmp_path, teacher, fused, described):
    network = student(made_by(teacher))
    expected = logits(network)
    architecture = Distilled.architecture(
        backbone="resnet8",
        teacher=teacher,
        tail=layers_of(network.fc) if described else None,
        channels=network.feature_channels,
        side=8,
        num_classes=5,
        fused=fused,
    )
    plain = described and teacher["name"] != "torchvision/convnext_tiny"  # has a norm of its own
    assert ("teacher" in architecture) != plain
    loaded = saved(tmp_path, fuse(network) if fused else network, architecture)
    assert (logits(loaded) - expected).abs().max() < 1e-4
    assert loaded.num_classes == 5
    assert loaded.feature_channels == network.feature_channels
    assert any(isinstance(m, nn.BatchNorm2d) for m in loaded.modules()) != fused
    assert not [key for key in loaded.state_dict() if key.startswith("backbone.fc")]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wrn16_1", {}),
        ("mobilenetv2", {"width_mult": 0.25}),
        ("shufflev2", {}),
        ("vgg8", {}),
        ("torchvision/mobilenet_v2", {"width_mult": 0.35}),
    ],
)
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_every_kind_of_backbone_comes_back(tmp_path, name, options, fused):
    network = student(made_by(RESNET8), name=name, **options)
    expected = logits(network)
    architecture = Distilled.architecture(
        backbone=name,
        backbone_options=options,
        teacher=RESNET8,
        side=8,
        num_classes=5,
        fused=fused,
    )
    deployed = fuse(network) if fused else network
    loaded = saved(tmp_path, deployed, architecture)
    assert (logits(loaded) - expected).abs().max() < 1e-4
    assert parameter_count(loaded) == parameter_count(deployed)


def test_only_the_classifier_of_a_teacher_is_drawn(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        distilled, "build", lambda *a, **k: drawn.append(build(*a, **k)) or drawn[-1]
    )
    load_student(folder, CPU)
    student, teacher = drawn
    assert student.conv1.weight.device == CPU
    assert teacher.conv1.weight.is_meta
    assert not teacher.fc.weight.is_meta


def test_a_transfer_module_for_the_widened_map_is_refused():
    backbone = build("mobilenetv2", 5)
    transfer = Transfer(backbone.feature_channels, 64)
    with pytest.raises(ValueError, match="made before the backbone's classifier went"):
        Distilled(backbone, transfer, nn.Linear(64, 5), 8)


def test_a_student_of_a_student_comes_back_too(tmp_path):
    first = Distilled.architecture(backbone="resnet8", teacher=RESNET8, side=8, num_classes=5)
    network = student(student(made_by(RESNET8)), name="wrn16_1")
    second = Distilled.architecture(backbone="wrn16_1", teacher=first, side=8, num_classes=5)
    assert torch.equal(logits(saved(tmp_path, network, second)), logits(network))


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "wrn16_1", "num_classes": 5},
        {"name": "wrn16_1", "num_classes": 5, "widen": 2},
        {"name": "torchvision/shufflenet_v2_x0_5", "num_classes": 5},
    ],
    ids=["name", "options", "torchvision"],
)
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_plain_student_comes_back_too(tmp_path, architecture, fused):
    network = made_by(architecture)
    expected = logits(network)
    loaded = saved(tmp_path, fuse(network) if fused else network, architecture | {"fused": fused})
    assert (logits(loaded) - expected).abs().max() < 1e-4


def test_a_folder_of_an_older_release_still_loads(folder):
    """Without what is said of the tail and of the transfer module since."""
    expected = logits(load_student(folder, CPU)[0])
    written = json.loads((folder / CONFIG).read_text("utf-8"))["architecture"]
    assert written.keys() == {"backbone", "teacher", "num_classes", "factor", "side", "fused"}
    assert torch.equal(logits(load_student(folder, CPU)[0]), expected)


def change(folder, **values) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    changed = {key: value for key, value in (config["architecture"] | values).items() if value}
    (folder / CONFIG).write_text(json.dumps(config | {"architecture": changed}), "utf-8")


@pytest.mark.parametrize("key", ["teacher", "num_classes", "factor", "side"])
def test_a_config_that_lacks_a_key_is_one_error(folder, key):
    change(folder, **{key: None})
    with pytest.raises(UserError, match=f"holds no model: .*{key}"):
        load_student(folder, CPU)


@pytest.mark.parametrize(
    "values", [{"teacher": "resnet8"}, {"backbone_options": [1]}, {"teacher_channels": 64}], ids=str
)
def test_a_damaged_architecture_is_one_error(folder, values):
    change(folder, **values)
    with pytest.raises(UserError, match="holds no model"):
        load_student(folder, CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"factor": 4}, r"does not fit the architecture: transfer\.0\.weight"),
        ({"fused": True}, r"does not fit the architecture: missing backbone\.conv1\.bias"),
        ({"teacher": {"name": "resnet8x4", "num_classes": 5}}, "does not fit the architecture"),
        ({"teacher": {"name": "resnet9", "num_classes": 5}}, "no architecture named 'resnet9'"),
        ({"backbone_options": {"breadth": 2}}, "'resnet8' has no option 'breadth'"),
        ({"tail": [{"name": "", "type": "Exec"}], "channels": 64}, "no layer of the type 'Exec'"),
        ({"tail": [{"type": "ReLU"}], "channels": 64}, "5 class names for 64 outputs"),
        ({"transfer": {"kernel": 1}}, r"does not fit the architecture: transfer\.3\.weight"),
    ],
    ids=str,
)
def test_another_architecture_is_told(folder, values, message):
    change(folder, **values)
    with pytest.raises(UserError, match=message):
        load_student(folder, CPU)


def test_a_distilled_student_is_no_plain_network(folder):
    with pytest.raises(UserError, match="holds no model"):
        load_model(folder, CPU)
