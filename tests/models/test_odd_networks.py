"""Cut of networks whose code does what few do."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.cutting import cut
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import pool


class Base(nn.Module):
    """A body, an average pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, 5)

    def pooled(self, images: Tensor) -> Tensor:
        return self.body(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pooled(images))


class BranchOnImages(Base):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return 3 * logits if images.mean() > 0.1 else logits


class BranchOnNumber(Base):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + int(images.numpy().mean() > 0)


class ScaledByImages(Base):
    def forward(self, images: Tensor) -> Tensor:
        most = images.abs().max()
        return super().forward(images / most) * most


class ScaledByNumber(Base):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * float(images.std())


class Counting(Base):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen: object = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.pooled(images)
        return self.fc(self.seen)


class Attending(Base):
    """Its attention takes its number of images from Python, so only its last layer is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        places = self.body(images).flatten(2).transpose(1, 2)
        found, _ = self.attention(self.query.expand(len(images), -1, -1), places, places)
        return self.fc(found[:, 0])


class Scripted(Base):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.body = torch.jit.script(self.body.eval())


class WeightNormed(Base):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.fc)


class AlwaysDropping(Base):
    def forward(self, images: Tensor) -> Tensor:
        return self.fc(functional.dropout(self.pooled(images), 0.5, True))


class FeaturesFirst(Base):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pooled(images)
        return pooled, self.fc(pooled)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (BranchOnImages, "logits"),
        (BranchOnNumber, "logits"),
        (ScaledByImages, "logits"),
        (ScaledByNumber, "logits"),
        (Counting, "map"),
        (Attending, "vector"),
        (Scripted, "map"),
        (WeightNormed, "map"),
    ],
)
def test_a_cut_gives_the_networks_logits_for_images_of_any_brightness(
    kind: type[Base], expected: str
) -> None:
    model = kind().eval()
    own = copy.deepcopy(model)
    network = cut(model, kind.__name__, 5, sides=(32,)).eval()
    draw = torch.Generator().manual_seed(7)
    assert network.cut == expected
    for one in (network, copy.deepcopy(network), fuse(network)):
        for count, scale, level in ((3, 1.0, 0.0), (1, 2.0, -2.0), (4, 0.5, 2.0)):
            images = scale * torch.randn(count, 3, 32, 32, generator=draw) + level
            with torch.no_grad():
                wanted = own(images)
                pooled = pool(one.features(images))
                for logits in (one(images), one.classify(pooled), one.classifier(pooled)):
                    assert torch.allclose(logits, wanted, atol=1e-4)


def test_what_a_forward_pass_sets_is_as_it_was_after_a_cut() -> None:
    model = Counting().eval()
    cut(model, "counting", 5, sides=(32,))
    assert type(model.calls) is Tensor
    assert type(model.seen) is Tensor


class InItsWeights(Base):
    """It takes its images in the dtype of its weights."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.to(self.fc.weight.dtype))


class AlwaysIn(Base):
    """It takes its images in one dtype, whatever its weights are."""

    kind = torch.float32

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.to(self.kind))

    def to(self, kind: torch.dtype) -> "AlwaysIn":  # type: ignore[override]
        self.kind = kind
        return super().to(kind)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", [Base, InItsWeights])
def test_a_network_of_other_floats_is_cut_as_its_float32_form(
    form: type[Base], kind: torch.dtype
) -> None:
    network = cut(form().to(kind).eval(), "other", 5, sides=(32,))
    plain = cut(form().to(kind).float().eval(), "plain", 5, sides=(32,))
    assert (network.cut, network.map_shape, network.cut_reason) == ("map", (8, 16, 16), "")
    name = str(kind).removeprefix("torch.")
    assert network.told == f"its weights are {name} as it is built, here float32"
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        assert torch.equal(network(images), plain(images))


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_a_network_whose_code_asks_for_other_floats_says_so(kind: torch.dtype) -> None:
    model = AlwaysIn().to(kind).eval()
    network = cut(model, "other", 5, sides=(32,))
    name = str(kind).removeprefix("torch.")
    assert network.cut == "logits"
    assert network.cut_reason == f"its code computes in {name}, and features are float32"
    assert {value.dtype for value in network.parameters()} == {kind}
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_a_network_of_chance_is_told() -> None:
    network = cut(AlwaysDropping().eval(), "chance", 5, sides=(32,))
    assert network.cut == "logits"
    assert network.cut_reason == "it gives the same images other logits each time"


def test_logits_behind_another_output_are_told() -> None:
    with pytest.raises(UserError, match=r"gives \[8\].*its logits are the first of 2 outputs"):
        cut(FeaturesFirst().eval(), "two", 5, sides=(32,))
