import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.kd3 import Transfer
from kd3_pipeline.models import ARCHITECTURES, build
from kd3_pipeline.models.distilled import Distilled
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network, drop_classifier, parameter_count

CLASSES = 7
TORCHVISION = {  # batch norms that stay
    "resnet18": 0,
    "mobilenet_v2": 0,
    "mobilenet_v3_small": 0,
    "shufflenet_v2_x0_5": 0,
    "densenet121": 62,
    "efficientnet_b0": 0,
    "regnet_y_400mf": 0,
}


def images(side: int) -> Tensor:
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))


def trained(network: Network, side: int) -> Network:
    """With affine weights of its own, and running statistics that suit them."""
    for norm in norms(network):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        norm.momentum = None  # all of the one batch
    with torch.no_grad():
        network(images(side))
    return network.eval()


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def same(network: Network, fused: Network, side: int) -> None:
    with torch.no_grad():
        expected, found = network(images(side)), fused(images(side))
    assert expected.std(dim=0).max() > 1e-3  # the images make a difference
    assert (found - expected).abs().max() < 1e-4 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fused_network_predicts_what_it_did(name):
    torch.manual_seed(0)
    network = trained(build(name, CLASSES), 32)
    fused = fuse(network)
    same(network, fused, 32)
    if not name.startswith("wrn"):
        assert not norms(fused)
    assert parameter_count(fused) < parameter_count(network)


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_fused_model_of_torchvision_predicts_what_it_did(name):
    torch.manual_seed(0)
    network = trained(build(f"torchvision/{name}", CLASSES), 64)
    fused = fuse(network)
    same(network, fused, 64)
    assert len(norms(fused)) == TORCHVISION[name]


def test_batch_norms_before_convolutions_stay():
    fused = fuse(build("wrn16_2", CLASSES))
    first, second = fused.block2.layer
    assert isinstance(fused.bn1, nn.BatchNorm2d)
    for block in (first, second):
        assert isinstance(block.bn1, nn.BatchNorm2d)  # of a sum
        assert isinstance(block.bn2, nn.Identity) and block.conv1.bias is not None
        assert block.conv2.bias is None
    assert isinstance(fused.block1.layer[0].bn1, nn.Identity)  # of the first convolution alone


def test_a_fused_network_is_as_large_as_its_convolutions_with_biases():
    network = build("resnet8", CLASSES)
    channels = sum(norm.num_features for norm in norms(network))
    assert parameter_count(fuse(network)) == parameter_count(network) - channels


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "torchvision/mobilenet_v2"])
def test_the_network_itself_stays_as_it_was(name):
    network = build(name, CLASSES)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused = fuse(network)
    assert network.training and not fused.training
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("backbone", ["resnet8", "vgg8", "mobilenetv2", "torchvision/resnet18"])
def test_backbone_and_transfer_module_of_a_distilled_student_are_fused(backbone):
    torch.manual_seed(0)
    student = build(backbone, CLASSES)
    drop_classifier(student)
    transfer = Transfer(student.feature_channels, 32)
    network = trained(Distilled(student, transfer, nn.Linear(32, CLASSES), 1), 64)
    fused = fuse(network)
    same(network, fused, 64)
    assert not norms(fused)


class Odd(Network):
    """A convolution and a batch norm, put together in one way or another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        return self.bn(self.conv(images))


class UsedElsewhere(Odd):
    def features(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        return self.bn(x) + x


class ConvolvedTwice(Odd):
    def features(self, images: Tensor) -> Tensor:
        return self.bn(self.conv(self.conv(images)))


class NormedTwice(Odd):
    def features(self, images: Tensor) -> Tensor:
        return self.bn(functional.relu(self.bn(self.conv(images))))


class Between(Odd):
    def features(self, images: Tensor) -> Tensor:
        return self.bn(functional.relu(self.conv(images)))


class Branching(Odd):
    def features(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        return self.bn(x) if x.shape[-1] > 1 else x


class OfTheBatch(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3, track_running_stats=False)


@pytest.mark.parametrize(
    "kind", [UsedElsewhere, ConvolvedTwice, NormedTwice, Between, Branching, OfTheBatch]
)
def test_a_batch_norm_that_cannot_be_folded_stays(kind):
    torch.manual_seed(0)
    network = trained(kind(), 8)
    fused = fuse(network)
    same(network, fused, 8)
    assert len(norms(fused)) == 1
    assert len(norms(fuse(trained(Odd(), 8)))) == 0


class Shared(Network):
    """Two branching parts with one convolution, whose data flow is recorded part by part."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.first = nn.Sequential(convolution, nn.BatchNorm2d(3))
        self.second = nn.Sequential(convolution, nn.BatchNorm2d(3))
        self.fc = nn.Linear(3, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        return self.first(images) + self.second(images) if images.shape[-1] > 1 else images


def test_a_convolution_of_two_parts_is_not_folded():
    torch.manual_seed(0)
    network = trained(Shared(), 8)
    fused = fuse(network)
    same(network, fused, 8)
    assert len(norms(fused)) == 2
