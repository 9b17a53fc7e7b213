"""ResNets of the paper's form, against their authors' definition written out here."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import fitted_network

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Two convolutions; where the size changes, the shortcut is option A: every other position,
    and zeros for the channels that are new."""

    def __init__(self, inputs, outputs, stride, all_after):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.new, self.all_after = stride, outputs - inputs, all_after

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.stride > 1:
            x = x[:, :, ::2, ::2]
            empty = torch.zeros(len(x), self.new, *x.shape[2:])
            x = torch.cat((x, empty), 1) if self.all_after else self.between(x, empty)
        return (out + x).relu()

    def between(self, x, empty):
        before, after = empty.chunk(2, 1)
        return torch.cat((before, x, after), 1)


class Paper(nn.Module):
    def __init__(self, depth, classes=10, all_after=False):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, width in enumerate((16, 32, 64), start=1):
            layers = []
            for place in range(blocks):
                stride = 2 if stage > 1 and place == 0 else 1
                layers.append(Block(inputs, width, stride, all_after))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.avg_pool2d(x, x.shape[-1]).flatten(1))


def trained(depth, **options):
    torch.manual_seed(depth)
    network = Paper(depth, **options)
    for _ in range(3):
        network.train()(IMAGES)
    return network.eval()


@pytest.mark.parametrize("depth", [20, 32, 44, 56, pytest.param(110, marks=pytest.mark.slow)])
def test_a_public_resnet_of_the_papers_form_has_its_authors_logits(tmp_path, depth):
    paper = trained(depth)
    state = {f"module.{name}": value for name, value in paper.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "model.th")
    found = fitted_network(read_weights(tmp_path / "model.th"), f"resnet{depth}", input_size=32)
    with torch.no_grad():
        torch.testing.assert_close(
            found.network.eval()(IMAGES), paper(IMAGES), rtol=1e-5, atol=1e-5
        )
    assert found.options == {"shortcut": "padded"}
    assert "by its keys and shapes the network has the options shortcut: padded" in found.notes
    assert build(f"resnet{depth}", 10, **found.options).state_dict().keys() == {
        name.replace("linear.", "fc.") for name in paper.state_dict()
    }


def test_zeros_behind_all_channels_are_an_option(tmp_path):
    paper = trained(20, all_after=True)
    torch.save(paper.state_dict(), tmp_path / "model.pt")
    weights = read_weights(tmp_path / "model.pt")
    logits = {}
    for shortcut in ("padded", "padded_after"):
        options = {"shortcut": shortcut}
        found = fitted_network(weights, "resnet20", input_size=32, options=options)
        with torch.no_grad():
            logits[shortcut] = found.network.eval()(IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(logits["padded_after"], paper(IMAGES), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits["padded"], logits["padded_after"], atol=1e-2)


def test_projections_stay_projections(tmp_path):
    network = build("resnet8", 5)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    found = fitted_network(read_weights(tmp_path / "model.pt"), "resnet8", input_size=32)
    assert found.options == {}
    with pytest.raises(UserError, match="the shortcut is one of projection, padded"):
        build("resnet8", 5, shortcut="zeros")
