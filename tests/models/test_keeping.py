"""Networks that keep values of one pass for another are told from those that do not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kd3_pipeline.models import build
from kd3_pipeline.models.cutting import cut
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.keeping import keeps_values

SIDE = 16


class Block(nn.Module):
    """A convolution, with a use that `kept` makes of what goes into it."""

    count: Tensor

    def __init__(self, kept: Callable[["Block", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, 1, 1)
        self.kept = kept
        self.seen: list[Tensor] = []
        self.sizes: dict[str, int] = {}
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.kept(self, x)


class Net(nn.Module):
    def __init__(self, kept: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block = nn.Conv2d(3, 8, 3, 2, 1), Block(kept)
        self.last, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.block(self.stem(x))).mean((2, 3)))


def attribute(block: Block, x: Tensor) -> Tensor:
    block.before = x
    return block.conv(x) + block.before


def items(block: Block, x: Tensor) -> Tensor:
    block.seen.append(x)
    return block.conv(x) + block.seen.pop()


def number(block: Block, x: Tensor) -> Tensor:
    block.images = len(x)
    return block.conv(x).reshape(block.images, 8, x.shape[-1], -1)


def number_in_a_dictionary(block: Block, x: Tensor) -> Tensor:
    block.sizes["images"] = len(x)
    return block.conv(x)


def buffer(block: Block, x: Tensor) -> Tensor:
    block.count.add_(1)
    return block.conv(x) / block.count


def buffer_anew(block: Block, x: Tensor) -> Tensor:
    block.count = x.mean()
    return block.conv(x) / block.count


ELSEWHERE: dict[str, Tensor] = {}


def elsewhere(block: Block, x: Tensor) -> Tensor:
    ELSEWHERE["x"] = x * 2
    return block.conv(ELSEWHERE["x"])


def nothing(block: Block, x: Tensor) -> Tensor:
    return block.conv(x).relu_() + x


def table(block: Block, x: Tensor) -> Tensor:
    if not hasattr(block, "positions"):
        block.positions = torch.linspace(0, 1, x.shape[-1])
    return block.conv(x) + block.positions


def size(block: Block, x: Tensor) -> Tensor:
    block.side = x.shape[-2:]
    return block.conv(x)


def weights_as_they_are(block: Block, x: Tensor) -> Tensor:
    return nn.functional.conv2d(x, block.conv.weight.contiguous().to(x.dtype), padding=1)


@pytest.mark.parametrize(
    "kept", [attribute, items, number, number_in_a_dictionary, buffer, buffer_anew, elsewhere]
)
def test_a_network_that_keeps_something_is_found(kept: Callable[[Block, Tensor], Tensor]) -> None:
    network = fuse(cut(Net(kept).eval(), "net", 5, sides=(SIDE,)))
    assert keeps_values(network, SIDE)
    ELSEWHERE.clear()


@pytest.mark.parametrize("kept", [nothing, table, size, weights_as_they_are])
def test_what_stays_as_it_is_counts_for_nothing(kept: Callable[[Block, Tensor], Tensor]) -> None:
    network = fuse(cut(Net(kept).eval(), "net", 5, sides=(SIDE,)))
    assert not keeps_values(network, SIDE)


def test_a_hook_that_keeps_maps_is_found() -> None:
    model, maps = Net(nothing).eval(), {}
    model.block.register_forward_hook(lambda module, inputs, output: maps.update(last=output))
    assert keeps_values(fuse(cut(model, "net", 5, sides=(SIDE,))), SIDE)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet8", 32),
        ("torchvision/mobilenet_v3_small", 64),
        ("torchvision/swin_t", 64),
        ("torchvision/squeezenet1_1", 64),
        ("torchvision/vit_b_32", 224),
    ],
)
def test_known_networks_keep_nothing(name: str, side: int) -> None:
    assert not keeps_values(fuse(build(name, 5).eval()), side)
