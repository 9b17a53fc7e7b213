import pytest
import torch
from torch import nn

from kd3_pipeline.evaluate.cost import latencies, macs
from kd3_pipeline.models import build
from kd3_pipeline.models.network import Network


class OneLayer(Network):
    """A convolution and a classifier, small enough to count by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3, padding=1)
        self.fc = nn.Linear(5, 7)


def test_multiplications_are_counted_as_by_hand():
    assert macs(OneLayer(), 8) == 5 * 8 * 8 * 3 * 9 + 5 * 7
    assert macs(OneLayer(), 16) == 5 * 16 * 16 * 3 * 9 + 5 * 7


def test_resnet20_has_its_known_cost():
    # He et al. (CVPR 2016), 32 pixels: 40.8 million, with convolutions for shortcuts
    assert macs(build("resnet20", 10).eval(), 32) == pytest.approx(40.8e6, rel=0.01)


def test_latency_has_both_batch_sizes_and_says_how_it_was_taken():
    network, done = OneLayer().eval(), []
    found = latencies(network, 8, torch.device("cpu"), done.append)
    assert [(row["device"], row["batch"]) for row in found] == [("cpu", 1), ("cpu", 128)]
    for row in found:
        assert row["threads"] == torch.get_num_threads()
        assert 0 < row["p50"] <= row["p95"]
    assert found[1]["p50"] > found[0]["p50"]
    assert sum(done) == 2
