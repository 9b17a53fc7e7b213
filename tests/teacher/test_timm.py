import copy

import pytest
import torch
from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.cutting import cut
from kd3_pipeline.models.network import drop_classifier, pool
from kd3_pipeline.models.timm_network import timm_network
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import load_teacher

timm = pytest.importorskip("timm", reason="needs the extra 'teachers'")
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CUT = {  # channels and side of the feature map of 64-pixel images, and linear layers after it
    "resnet18": (512, 2, 1),
    "regnetx_002": (368, 2, 1),
    "mobilenetv3_small_050": (288, 2, 1),
    "densenet121": (1024, 2, 1),
    "convnext_atto": (320, 2, 1),
    "repvgg_a0": (1280, 2, 1),
    "efficientnet_b0": (1280, 2, 1),
}


def moved(model: nn.Module) -> nn.Module:
    """`model` with batch norms that do something."""
    draw = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=draw)
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return model.eval()


@pytest.mark.parametrize("name", CUT)
def test_a_model_of_timm_is_the_same_network_in_two_parts(tmp_path, name):
    torch.manual_seed(0)
    model = moved(timm.create_model(name, num_classes=7))
    torch.save(model.state_dict(), tmp_path / "teacher.pt")
    network = timm_network(name, 7)
    load_teacher(network, read_weights(tmp_path / "teacher.pt"), 64)
    with torch.no_grad():
        feature_map = network.eval().features(IMAGES)
        logits = network.classifier(pool(feature_map))
        expected = model(IMAGES)
    channels, side, linear = CUT[name]
    assert feature_map.shape == (2, channels, side, side)
    assert (network.feature_channels, network.num_classes) == (channels, 7)
    assert sum(isinstance(m, nn.Linear) for m in network.classifier.modules()) == linear
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(network(IMAGES), logits)


def test_weights_saved_from_a_cut_network_are_read_too(tmp_path):
    network = timm_network("densenet121", 7)
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    fresh = timm_network("densenet121", 7)
    load_teacher(fresh, read_weights(tmp_path / "teacher.pt"), 64)
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in fresh.state_dict().items())


def test_layers_between_the_pooling_and_the_classifier_are_part_of_the_tail():
    network = timm_network("mobilenetv3_small_050", 7)
    assert any(isinstance(m, nn.Conv2d) for m in network.classifier.modules())


def test_a_cut_network_is_copied_and_dropped_like_any_other():
    network = timm_network("resnet18", 7).eval()
    tail = copy.deepcopy(network.classifier)
    pooled = torch.randn(2, 512)
    with torch.no_grad():
        assert torch.equal(tail(pooled), network.classify(pooled))
        doubled = {key: 2 * value for key, value in network.named_parameters()}
        called = torch.func.functional_call(network, doubled, IMAGES)
        assert not torch.equal(called, network(IMAGES))
    drop_classifier(network)
    assert network(IMAGES).shape == (2, 512)


def test_the_tail_can_be_made_without_the_weights():
    with torch.device("meta"):
        network = build("timm/convnext_atto", 7)
    assert all(parameter.is_meta for parameter in network.parameters())
    tail = network.classifier.to_empty(device="cpu")
    assert tail(torch.zeros(2, network.feature_channels)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "cut", "features"),
    [
        ("vit_tiny_patch16_224", "vector", (192,)),
        ("mixer_s32_224", "vector", (512,)),
        ("resmlp_12_224", "vector", (384,)),  # its layers start at a scale of 1e-4
        ("resnetv2_50x1_bit", "map", (2048, 3, 3)),
        ("swin_tiny_patch4_window7_224", "map", (768, 7, 7)),
    ],
)
def test_other_kinds_are_cut_at_what_they_have(name, cut, features):
    torch.manual_seed(0)
    network = timm_network(name, 3).eval()
    nn.init.normal_(network.model.get_classifier().weight)
    assert (network.cut, network.map_shape) == (cut, features)
    images = torch.randn(1, 3, network.side, network.side)
    with torch.no_grad():
        found = network.classifier(pool(network.features(images)))
        torch.testing.assert_close(found, network.model(images), rtol=1e-4, atol=1e-5)


def test_a_tail_that_takes_more_than_the_average_is_cut_at_its_vector():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    network = cut(model, "mine", 2, (64,))
    assert (network.cut, network.map_shape) == ("vector", (8,))
    reason = "what follows its last map, of 8×62×62, takes more than the map's average"
    assert network.cut_reason == reason


def test_unknown_names_are_answered():
    with pytest.raises(UserError, match=r"'timm/resnet19': did you mean 'timm/resnet"):
        timm_network("resnet19", 3)


@pytest.mark.slow
def test_published_timm_variants_have_the_logits_of_timm_itself(tmp_path):
    """The networks of huggingface.co/edadaltocg are timm's with another stem and head."""
    from kd3_pipeline.models.published import published_network

    images = IMAGES[:, :, :32, :32]
    torch.manual_seed(0)
    resnet = timm.create_model("resnet18", num_classes=5)
    resnet.conv1, resnet.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    vgg = timm.create_model("vgg16_bn", num_classes=5)
    vgg.pre_logits, vgg.head.fc = nn.Identity(), nn.Linear(512, 5)
    dense = timm.models.DenseNet(growth_rate=12, block_config=(6, 12, 24, 16), num_classes=5)
    dense.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    dense.features.norm0 = dense.features.pool0 = nn.Identity()
    pairs = {
        "resnet18": (resnet, build("resnet18", 5)),
        "vgg16_bn": (vgg, published_network("edadaltocg/vgg16_bn", 5)),
        "densenet121": (dense, published_network("edadaltocg/densenet121", 5)),
    }
    for name, (model, network) in pairs.items():
        path = tmp_path / f"{name}.bin"
        torch.save(moved(model).state_dict(), path)
        load_teacher(network, read_weights(path), 32)
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg_overlay"])
def test_an_option_by_which_timm_would_read_weights_is_refused(option):
    with pytest.raises(UserError, match=rf"takes no option '{option}'"):
        timm_network("resnet18", 7, **{option: "weights.pth"})
