import copy

import pytest
import torch
from torch import nn
from torchvision import models

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.cutting import cut
from kd3_pipeline.models.network import drop_classifier, pool

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

BATCH_NORM = {"googlenet": "conv1.bn", "inception_v3": "Conv2d_1a_3x3.bn"}
AUXILIARY = {"googlenet": {"aux1", "aux2"}, "inception_v3": {"AuxLogits"}}


@pytest.mark.parametrize("name", CUT)
def test_a_model_of_torchvision_is_the_same_network_in_two_parts(name):
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=7).eval()
    network = build(f"torchvision/{name}", 7).eval()
    assert list(network.state_dict()) == [f"model.{key}" for key in model.state_dict()]
    network.model.load_state_dict(model.state_dict())
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
        assert torch.equal(network.eval().classify(pooled), network.model.fc(pooled))


def test_auxiliary_classifiers_keep_their_weights_and_have_no_say():
    network = build("torchvision/googlenet", 3, init_weights=False)
    assert any(key.startswith("model.aux1.") for key in network.state_dict())
    assert network(IMAGES).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "features", "layers"),
    [
        ("alexnet", 4096, [nn.Linear]),
        ("squeezenet1_1", 7, []),  # the map of the classes: no layer follows the pooling
        ("maxvit_t", 512, [nn.LayerNorm, nn.Linear, nn.Tanh, nn.Linear]),
    ],
)
def test_models_that_pool_elsewhere_are_cut_where_they_do(name, features, layers):
    torch.manual_seed(0)
    network = build(f"torchvision/{name}", 7).eval()
    images = torch.randn(1, 3, network.side, network.side)
    with torch.no_grad():
        expected = network.model(images)
        found = network.classifier(pool(network.features(images)))
    assert network.feature_channels == features
    kinds = [type(one) for one in network.classifier.modules() if not list(one.children())]
    assert [kind for kind in kinds if kind is not nn.Identity] == layers
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_is_cut_at_its_class_token():
    torch.manual_seed(0)
    model = models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=7)
    nn.init.normal_(model.heads.head.weight)
    network = cut(model, "vit", 7, (32,)).eval()
    assert (network.cut, network.map_shape) == ("vector", (24,))
    assert network.cut_reason == "no map of it carries its whole answer"
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images))
    with pytest.raises(AssertionError, match="Wrong image height! Expected 32 but got another"):
        network(torch.randn(1, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_mode_of_training_reaches_all_parts(name):
    torch.manual_seed(0)
    network = build(f"torchvision/{name}", 3, init_weights=False)
    images = torch.randn(4, 3, network.side, network.side)
    before = network.model.get_submodule(BATCH_NORM[name]).running_mean.clone()
    network(images).sum().backward()
    assert not torch.equal(network.model.get_submodule(BATCH_NORM[name]).running_mean, before)
    trained = {name.split(".")[1] for name, one in network.named_parameters() if one.grad is None}
    assert trained == AUXILIARY[name]
    drop_classifier(network)
    assert not any(key.split(".")[1] in {*AUXILIARY[name], "fc"} for key in network.state_dict())


def test_an_unknown_model_is_answered_with_near_ones():
    with pytest.raises(UserError, match=r"'torchvision/resnet19': did you mean .*ision/resnet18'"):
        build("torchvision/resnet19", 10)
    with pytest.raises(UserError, match=r"'torchvision/zzz': see torchvision\.models\.list_models"):
        build("torchvision/zzz", 10)


def test_options_are_those_of_the_model():
    with torch.device("meta"):
        narrow = build("torchvision/mobilenet_v2", 10, width_mult=0.35, dropout=0.5)
        network = build("torchvision/mobilenet_v2", num_classes=10)
    assert narrow.model.features[1].conv[-1].num_features == 8
    assert network.model.features[1].conv[-1].num_features == 16
    assert next(network.parameters()).is_meta


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
    assert not any(".fc." in key or ".classifier." in key for key in network.state_dict())
    with pytest.raises(TypeError, match="has no classifier"):
        _ = network.num_classes
