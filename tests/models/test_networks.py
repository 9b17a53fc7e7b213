from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.models import ARCHITECTURES, build
from pipeline.models.network import Network, parameter_count, pool

GOLDEN = np.load(Path(__file__).parent.parent / "data" / "kd3.npz", allow_pickle=False)
RENAMED = {
    "resnet34_cifar": "resnet34",
    "resnet18_cifar": "resnet18",
    "wrn402": "wrn40_2",
    "wrn162": "wrn16_2",
}
RECORDED = [name.removeprefix("params/").split("/") for name in GOLDEN if name.startswith("params")]
PUBLISHED = [
    (name, int(classes)) for name, classes in RECORDED if RENAMED.get(name, name) in ARCHITECTURES
]


def test_nine_of_the_recorded_networks_are_built():
    assert len(PUBLISHED) == 2 * 9


@pytest.mark.parametrize(("name", "classes"), PUBLISHED)
def test_networks_have_the_published_sizes(name, classes):
    with torch.device("meta"):
        network = build(RENAMED.get(name, name), classes)
        feature_map = network.eval().features(torch.zeros(1, 3, 32, 32))
    assert parameter_count(network) == GOLDEN[f"params/{name}/{classes}"]
    assert list(feature_map.shape[1:]) == GOLDEN[f"featmap/{name}/{classes}"].tolist()
    assert feature_map.shape[1] == network.feature_channels == network.classifier.in_features


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_maps_images_to_logits(name):
    with torch.device("meta"):
        network = build(name, 7)
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 7)
        assert network.classifier.out_features == 7


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


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(
        UserError, match=r"no architecture named 'resnet_20': did you mean 'resnet20'\? "
    ):
        build("resnet_20", 10)
    with pytest.raises(UserError, match=r"'zzz': known: resnet110, .*wrn40_2"):
        build("zzz", 10)


def test_a_network_without_features_says_so():
    with pytest.raises(TypeError, match="Network defines no features"):
        Network()(torch.zeros(1, 3, 8, 8))
