import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import ALIASES, ARCHITECTURES, build
from kd3_pipeline.models.network import Network, drop_classifier, parameter_count, pool

DATA = Path(__file__).parent.parent / "data"
GOLDEN = np.load(DATA / "kd3.npz", allow_pickle=False)
RECORDED = [name.removeprefix("params/").split("/") for name in GOLDEN if name.startswith("params")]
# logits of RepDistiller's own classes (commit eedab9d) for the weights and images drawn below
PUBLISHED = np.load(DATA / "published_networks.npz", allow_pickle=False)


def draw_weights(network: Network) -> None:
    """Weights that depend on the names in the state dict and on nothing else."""
    for name, tensor in network.state_dict().items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tensor.shape)
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            values = np.exp(0.3 * values)
        elif tensor.ndim > 1:
            values = values * np.sqrt(2 / tensor[0].numel())
        else:
            values = 0.2 * values + name.endswith("weight")
        tensor.copy_(torch.from_numpy(values))


@pytest.mark.parametrize(("name", "classes"), RECORDED)
def test_all_recorded_networks_have_the_published_sizes(name, classes):
    with torch.device("meta"):
        network = build(name.lower(), int(classes)).eval()
        assert parameter_count(network) == GOLDEN[f"params/{name}/{classes}"]
        drop_classifier(network)  # the published map is that by which a student is aligned
        feature_map = network.features(torch.zeros(1, 3, 32, 32))
    assert list(feature_map.shape[1:]) == GOLDEN[f"featmap/{name}/{classes}"].tolist()
    assert feature_map.shape[1] == network.feature_channels


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_under_the_published_names_give_the_published_logits(name):
    network = build(name, 10).eval()
    draw_weights(network)
    images = torch.from_numpy(np.random.RandomState(0).standard_normal((2, 3, 32, 32))).float()
    with torch.no_grad():
        logits = network(images).numpy()
    expected = PUBLISHED[name]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


BLOCK = ["conv1", "bn1", "conv2", "bn2"]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        # chenyaofo, RepDistiller and mdistiller
        ("resnet20", ["conv1", "bn1", "fc", *(f"layer1.2.{layer}" for layer in BLOCK)]),
        ("resnet56", ["layer3.8.conv2", "layer2.0.downsample.0", "layer3.0.downsample.1"]),
        ("resnet32x4", ["layer1.0.downsample.0", "layer1.0.downsample.1", "layer3.4.bn2"]),
        # RepDistiller, mdistiller and CMI
        ("wrn40_2", ["conv1", "bn1", "fc", *(f"block3.layer.5.{layer}" for layer in BLOCK)]),
        ("wrn40_2", ["block1.layer.0.convShortcut", "block3.layer.0.convShortcut"]),
        # CMI and kuangliu
        ("resnet34", ["conv1", "bn1", "linear", *(f"layer3.5.{layer}" for layer in BLOCK)]),
        ("resnet34", ["layer2.0.shortcut.0", "layer4.0.shortcut.1"]),
        # RepDistiller and mdistiller
        ("resnet50", ["layer1.0.shortcut.0", "layer3.5.conv3", "layer4.2.bn3", "linear"]),
        ("vgg13", ["block0.0", "block0.1", "block0.3", "block0.4", "block4.4", "classifier"]),
        ("mobilenetv2", ["conv1.0", "blocks.1.1.conv.7", "conv2.1", "classifier.0"]),
    ],
)
def test_layers_have_their_published_names(name, layers):
    own = {key.rpartition(".")[0] for key in build(name, 10).state_dict()}
    assert own.issuperset(layers)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_maps_images_to_logits(name):
    with torch.device("meta"):
        network = build(name, num_classes=7)
        feature_map = network.features(torch.zeros(2, 3, 16, 16))
        assert feature_map.shape[:2] == (2, network.feature_channels)
        assert network.classify(pool(feature_map)).shape == (2, 7)
        assert network.num_classes == 7


@pytest.mark.parametrize(("other", "name"), ALIASES.items())
def test_other_names_of_a_network_are_known(other, name):
    with torch.device("meta"):
        networks = [build(known, 7) for known in (other, name)]
    assert str(networks[0]) == str(networks[1])


def test_logits_are_the_classifier_on_the_pooled_feature_map():
    torch.manual_seed(0)
    network = build("wrn16_1", 4).eval()
    images = torch.randn(3, 3, 16, 16)
    feature_map = network.features(images)
    assert feature_map.min() >= 0
    pooled = feature_map.flatten(2).mean(dim=2)
    torch.testing.assert_close(pool(feature_map), pooled)
    expected = pooled @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "vgg8", "mobilenetv2", "shufflev2"])
def test_a_network_without_its_classifier_has_the_feature_map_alone(name):
    with torch.device("meta"):
        network = build(name, 10)
        tail = [f"{network.classifier_name}.", *(f"{part}." for part in network.widening)]
        kept = [key for key in network.state_dict() if not key.startswith(tuple(tail))]
        drop_classifier(network)
        pooled = torch.zeros(2, network.feature_channels)
        assert list(network.state_dict()) == kept
        assert network(torch.zeros(2, 3, 16, 16)).shape == network.classify(pooled).shape
    with pytest.raises(TypeError, match="has no classifier"):
        _ = network.num_classes


def test_vgg_pools_once_more_from_64_pixels_on():
    with torch.device("meta"):
        network = build("vgg8", 10)
        sides = [network.features(torch.zeros(1, 3, s, s)).shape[-1] for s in (16, 32, 64)]
    assert sides == [2, 4, 4]


def test_options_are_those_of_the_constructor():
    with torch.device("meta"):
        assert build("mobilenetv2", 10, width_mult=1.0).stage_channels == 320
        assert build("wrn16_1", 10, widen=3).feature_channels == 192
        assert build("resnet8", 10, widths=[8, 8, 16, 32]).feature_channels == 32


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2", "wrn402", "vgg8"])
def test_an_unknown_option_is_named(name):
    with pytest.raises(UserError, match=f"architecture '{name}' has no option 'breadth'"):
        build(name, 10, breadth=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg8", {"depth": 9}),
        ("resnet8", {"widths": (16, 16)}),
        ("wrn16_1", {"widen": -1}),
        ("wrn16_1", {"widen": "2"}),
    ],
)
def test_an_impossible_option_is_one_error(name, options):
    with pytest.raises(UserError, match=f"'{name}' cannot be built with .'{next(iter(options))}'"):
        build(name, 10, **options)


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(
        UserError, match=r"no architecture named 'resnet_20': did you mean 'resnet20'\? "
    ):
        build("resnet_20", 10)
    with pytest.raises(UserError, match=r"'zzz': known: mobilenetv2, .*wrn40_2, torchvision/NAME"):
        build("zzz", 10)


def test_a_new_network_is_known_by_its_line_in_the_table_alone(monkeypatch):
    class Mine(Network):
        def __init__(self, num_classes: int, width: int) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, width, 3)
            self.fc = nn.Linear(width, num_classes)
            self.feature_channels = width

    monkeypatch.setitem(ARCHITECTURES, "mine8", partial(Mine, width=8))
    network = build("mine8", 10)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, network.num_classes)
    assert build("mine8", 10, width=4).feature_channels == 4
    with pytest.raises(UserError, match=r"did you mean 'mine8'.*known: mine8, mobilenetv2"):
        build("mine9", 10)
