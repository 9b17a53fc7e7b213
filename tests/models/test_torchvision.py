import copy

import pytest
import torch
from torchvision import models

from pipeline.errors import UserError
from pipeline.models import build
from pipeline.models.network import drop_classifier, pool

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CUT = {  # channels and side of the feature map of 64-pixel images
    "resnet18": (512, 2),
    "resnet50": (2048, 2),
    "mobilenet_v2": (1280, 2),
    "mobilenet_v3_small": (576, 2),
    "shufflenet_v2_x1_0": (1024, 2),
    "densenet121": (1024, 2),
    "efficientnet_b0": (1280, 2),
    "regnet_y_400mf": (440, 2),
    "mnasnet0_5": (1280, 2),
    "convnext_tiny": (768, 2),
    "swin_t": (768, 2),
}


@pytest.mark.parametrize("name", CUT)
def test_a_model_of_torchvision_is_the_same_network_in_two_parts(name):
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=7).eval()
    network = build(f"torchvision/{name}", 7).eval()
    assert list(network.state_dict()) == list(model.state_dict())
    network.load_state_dict(model.state_dict())
    with torch.no_grad():
        feature_map = network.features(IMAGES)
        logits = network.classifier(pool(feature_map))
        expected = model(IMAGES)
    assert feature_map.shape == (2, CUT[name][0], CUT[name][1], CUT[name][1])
    assert (network.feature_channels, network.num_classes) == (CUT[name][0], 7)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(network(IMAGES), logits)


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "resnet18", "shufflenet_v2_x0_5"])
def test_its_parts_are_found_by_their_names(name):
    network = build(f"torchvision/{name}", 3).eval()
    doubled = {key: 2 * value for key, value in network.named_parameters()}
    with torch.no_grad():  # torch.export reaches parameters in the same way
        called = torch.func.functional_call(network, doubled, IMAGES)
        other = copy.deepcopy(network)
        other.load_state_dict(doubled, strict=False)
        assert torch.equal(other(IMAGES), called)
        assert not torch.equal(network(IMAGES), called)


def test_dropout_before_the_classifier_acts_in_training_only():
    network = build("torchvision/googlenet", 3, init_weights=False)
    pooled = torch.ones(64, network.feature_channels)
    with torch.no_grad():
        assert network.classify(pooled).std(dim=0).min() > 0
        assert torch.equal(network.eval().classify(pooled), network.fc(pooled))


def test_auxiliary_classifiers_keep_their_weights_and_have_no_say():
    network = build("torchvision/googlenet", 3, init_weights=False)
    assert any(key.startswith("aux1.") for key in network.state_dict())
    assert network(IMAGES).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("vgg11_bn", "its last pooling leaves 7×7 positions"),
        ("alexnet", "its last pooling leaves 6×6 positions"),
        ("squeezenet1_1", "it pools after its last convolution, at the end of 'classifier'"),
        ("maxvit_t", "it pools inside 'classifier'"),
        ("vit_b_16", "it pools none"),
    ],
)
def test_a_model_without_a_pooled_feature_map_is_refused(name, found):
    message = f"torchvision/{name} has no feature map to use: {found}: choose one like"
    with torch.device("meta"), pytest.raises(UserError, match=message):
        build(f"torchvision/{name}", 10)


def test_an_unknown_model_is_answered_with_near_ones():
    with pytest.raises(UserError, match=r"'torchvision/resnet19': did you mean .*ision/resnet18'"):
        build("torchvision/resnet19", 10)
    with pytest.raises(UserError, match=r"'torchvision/zzz': see torchvision\.models\.list_models"):
        build("torchvision/zzz", 10)


def test_options_are_those_of_the_model():
    with torch.device("meta"):
        narrow = build("torchvision/mobilenet_v2", 10, width_mult=0.35, dropout=0.5)
        network = build("torchvision/mobilenet_v2", num_classes=10)
    assert narrow.features[1].conv[-1].num_features == 8
    assert network.features[1].conv[-1].num_features == 16


@pytest.mark.parametrize("option", ["breadth", "weights"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5"])
def test_an_unknown_option_of_a_model_is_named(name, option):
    with pytest.raises(UserError, match=f"'torchvision/{name}' has no option '{option}'"):
        build(f"torchvision/{name}", 10, **{option: "DEFAULT"})


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_a_model_without_its_classifier_gives_pooled_features(name):
    network = build(f"torchvision/{name}", 3).eval()
    drop_classifier(network)
    with torch.no_grad():
        assert torch.equal(network(IMAGES), pool(network.features(IMAGES)))
    assert not any(key.startswith(("fc.", "classifier.")) for key in network.state_dict())
