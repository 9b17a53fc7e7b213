"""Interface that callers count on: signatures, and work that does not grow with the batch."""

import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kd3_pipeline import kd3
from kd3_pipeline.kd3 import Selection

REQUIRED = inspect.Parameter.empty
SIGNATURES = {
    "teacher_weight": (("epoch", REQUIRED), "*", ("horizon", 160), ("switch", 120)),
    "select": (
        ("teacher_logits", REQUIRED),
        ("student_logits", REQUIRED),
        ("alpha", REQUIRED),
        ("cutoff", 0.95),
    ),
    "disagreement_weights": (("student_logits", REQUIRED), ("teacher_logits", REQUIRED)),
    "weighted_feature_loss": (
        ("student_map", REQUIRED),
        ("teacher_map", REQUIRED),
        ("weights", REQUIRED),
    ),
    "Transfer": (
        ("student_channels", REQUIRED),
        ("teacher_channels", REQUIRED),
        ("factor", 2),
        "*",
        ("inner", None),
        ("kernel", 3),
        ("signed", False),
    ),
    "mix_distribution": (
        ("images", REQUIRED),
        ("lam", None),
        ("permutation", None),
        "*",
        ("alpha", 0.1),
        ("generator", None),
    ),
    "ChannelVariance": (("channels", REQUIRED),),
    "per_channel": (("values", REQUIRED), ("features", REQUIRED)),
    "draw_mixture": (
        *(("how", REQUIRED), ("count", REQUIRED)),
        *(("side", REQUIRED), ("generator", REQUIRED)),
    ),
    "Projection": (("in_features", REQUIRED), ("out_features", 128)),
    "nt_xent": (("a", REQUIRED), ("b", REQUIRED), ("temperature", 0.3)),
}


class Operations(TorchDispatchMode):
    """Names of the operations that torch carries out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def step(count: int) -> None:
    """Every part of the loss, forward and backward."""
    images, student_map = torch.rand(count, 3, 4, 4), torch.rand(count, 3, 4, 4, requires_grad=True)
    kd3.mix_distribution(images, generator=torch.Generator().manual_seed(0))
    ours, theirs = kd3.Transfer(3, 4)(student_map, torch.rand(count, 4, 2, 2))
    weights = kd3.disagreement_weights(ours.mean(dim=(2, 3)), theirs.mean(dim=(2, 3)))
    a, b = kd3.Projection(4, 2)(ours.mean(dim=(2, 3))), torch.rand(count, 2)
    (kd3.weighted_feature_loss(ours, theirs, weights) + kd3.nt_xent(a, b)).backward()


def selection(count: int) -> None:
    kd3.select(torch.rand(count, 3), torch.rand(count, 3), 0.5)


def operations(work, count: int) -> list[str]:
    with Operations() as seen:
        work(count)
    return seen.names


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signature_is_the_agreed_one(name):
    found = []
    for parameter in inspect.signature(getattr(kd3, name)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        found.append((parameter.name, parameter.default))
    assert tuple(found) == SIGNATURES[name]


def test_a_selection_has_the_agreed_fields():
    assert Selection._fields == ("mask", "labels", "confidence", "thresholds", "counts")


@pytest.mark.parametrize("work", [step, selection])
def test_there_is_no_loop_over_the_images(work):
    assert operations(work, 4) == operations(work, 40)


def test_a_step_reads_no_value_back_from_the_device():
    names = operations(step, 4)
    assert "aten.convolution.default" in names
    assert not [name for name in names if "_local_scalar_dense" in name or "nonzero" in name]
