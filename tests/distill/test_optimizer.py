"""What a step does with its gradients: optimizers, clipping, and a batch in parts."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from kd3_pipeline.distill.objectives.kd import KD
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.optimizer import decay_groups, make_optimizer
from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.state import State
from kd3_pipeline.distill.views import Views
from kd3_pipeline.errors import TrainingError, UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from tests.distill.world import (
    CPU,
    MEAN,
    STD,
    copied,
    equal,
    objective,
    pixels,
    run,
    same,
    section,
    teacher,
    web,
)

ADAMW = {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.05}


class Normless(Network):
    """A network in which no image sees another one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(8, num_classes)
        self.feature_channels = 8


def normless(of: Distill) -> Objective:
    torch.manual_seed(of.seed)
    return KD(Normless(10), teacher(), torch.zeros(1, 3, 16, 16), of)


def state_of(of: Distill, student: Objective) -> State:
    student.train()
    return State(web(), student, Views(of, MEAN, STD), of, torch.float32)


def stepped(of: Distill, student: Objective, count: int = 16) -> tuple[State, dict[str, Tensor]]:
    """The state after one step on the first `count` images, and its terms."""
    state = state_of(of, student)
    rows = torch.arange(count)
    return state, state.step(rows, pixels(slice(count)), 1, 0.1)


def gradients(student: Objective) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}


# optimizers


def test_sgd_decays_every_parameter_in_one_group():
    found = make_optimizer(objective(), section(weight_decay=0.1), CPU)
    assert type(found) is torch.optim.SGD
    (group,) = found.param_groups
    assert len(group["params"]) == len(list(objective().parameters()))
    assert (group["weight_decay"], group["momentum"]) == (0.1, 0.9)


def spared(network: nn.Module) -> set[str]:
    """Names of the parameters that do not decay."""
    groups = decay_groups(network.named_parameters(), 0.05)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert sum(len(group["params"]) for group in groups) == len(names)
    return {
        names[id(parameter)]
        for group in groups
        if not group["weight_decay"]
        for parameter in group["params"]
    }


def test_adamw_spares_norms_and_biases():
    network = build("resnet8", 10)
    norms = {
        f"{name}.{kind}"
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert spared(network) == norms | {"fc.bias"}


@pytest.mark.parametrize(
    ("make", "also", "decayed"),
    [
        (
            lambda: models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=4),
            {"class_token", "encoder.pos_embedding"},
            "in_proj_weight",
        ),
        (
            lambda: models.SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=4),
            {"features.1.0.attn.relative_position_bias_table"},
            "qkv.weight",
        ),
        (
            lambda: models.ConvNeXt([models.convnext.CNBlockConfig(8, None, 2)], num_classes=4),
            {"features.1.0.layer_scale"},
            "block.0.weight",
        ),
    ],
    ids=["vit", "swin", "convnext"],
)
def test_adamw_spares_embeddings_and_scales_and_no_kernel(make, also, decayed):
    torch.manual_seed(0)
    network = make()
    found = spared(network)
    assert also <= found
    kernels = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    assert not kernels & found
    assert any(name.endswith(decayed) for name in dict(network.named_parameters()).keys() - found)


def test_both_groups_of_adamw_follow_the_schedule():
    state = state_of(section(**ADAMW), objective())
    state.step(torch.arange(8), pixels(slice(8)), 1, 0.007)
    assert [group["lr"] for group in state.optimizer.param_groups] == [0.007, 0.007]
    assert [group["weight_decay"] for group in state.optimizer.param_groups] == [0.05, 0.0]
    assert state.rate == 0.007


def test_adamw_lowers_the_loss_and_ends_elsewhere_than_sgd(tmp_path):
    of = section(**ADAMW, epochs=5, selection="none")
    done = run(tmp_path / "adamw", of)
    losses = [row["loss"] for row in done.trained.curves]
    assert losses[-1] < 0.9 * losses[0]
    assert not same(done, run(tmp_path / "sgd", section(epochs=5, selection="none")))


# clipping


@pytest.mark.parametrize("longest", [1e-3, 1e6])
def test_the_gradient_is_no_longer_than_it_may_be(longest):
    of = section(clip=longest)
    free, clipped = objective(), objective()
    stepped(section(), free)
    stepped(of, clipped)
    before, after = gradients(free), gradients(clipped)
    length = math.sqrt(sum(float(one.square().sum()) for one in before.values()))
    assert 1e-3 < length < 1e6
    factor = min(1, longest / length)
    for name, one in before.items():
        torch.testing.assert_close(after[name], factor * one, rtol=1e-3, atol=1e-9)


def test_a_loss_that_is_not_finite_is_told_with_clipping_and_parts_too(tmp_path):
    of = section(lr=1e9, epochs=3, clip=1e9, accumulate=2)
    with pytest.raises(TrainingError, match=r"not finite.*\n?.*distill\.clip"):
        run(tmp_path, of)


# a batch in parts


@pytest.mark.parametrize("count", [16, 13])
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_batch(parts, count):
    whole, split = (normless(section(objective="kd", accumulate=n)) for n in (1, parts))
    _, terms = stepped(whole.section, whole, count)
    _, same_terms = stepped(split.section, split, count)
    wanted, found = gradients(whole), gradients(split)
    for name, one in wanted.items():
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-6)
    for name, one in terms.items():
        torch.testing.assert_close(same_terms[name], one, rtol=1e-5, atol=1e-6)


def test_weights_of_images_go_with_their_parts():
    prior = torch.linspace(0.2, 1.8, 64)
    found = []
    for parts in (1, 4):
        student = normless(section(objective="kd", accumulate=parts))
        state = state_of(student.section, student)
        state.web = type(state.web)(*vars(web()).values())
        object.__setattr__(state.web, "prior", prior)
        state.step(torch.arange(16), pixels(slice(16)), 1, 0.1)
        found.append(gradients(student))
    for name, one in found[0].items():
        torch.testing.assert_close(found[1][name], one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "parts", "processes", "sizes"),
    [
        (16, 1, 1, [16]),
        (16, 4, 1, [4, 4, 4, 4]),
        (13, 4, 1, [3, 3, 3, 4]),
        (5, 4, 1, [2, 3]),
        (3, 4, 1, [3]),
        (16, 2, 2, [8, 8]),
        (10, 2, 2, [4, 6]),
        (2, 4, 2, [2]),
    ],
)
def test_every_part_has_two_images_and_as_many_for_every_process(count, parts, processes, sizes):
    state = state_of(section(accumulate=parts), objective())
    state.objective.world = World(0, processes)
    found = state._parts(count)
    assert [part.stop - part.start for part in found] == sizes
    assert [part.start for part in found] == [sum(sizes[:at]) for at in range(len(sizes))]


def test_a_network_with_batch_norms_trains_in_parts_and_deploys_what_it_trained(tmp_path):
    of = section(accumulate=4, epochs=5, selection="none")
    done = run(tmp_path, of)
    losses = [row["loss"] for row in done.trained.curves]
    assert losses[-1] < 0.9 * losses[0]
    counted = [v for k, v in done.weights.items() if k == "student.bn1.num_batches_tracked"]
    assert counted == [torch.tensor(5 * 3 * 4 * 2)]  # epochs, steps, parts, views


def test_more_parts_than_pairs_of_images_are_an_error_that_says_how_many_may_be(tmp_path):
    with pytest.raises(UserError, match=r"distill\.accumulate 9 .* 16 .*set it to 8 or less"):
        run(tmp_path, section(accumulate=9))


class Reads(TorchDispatchMode):
    """Counts where the host waits for a value of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if "_local_scalar_dense" in str(function) or "nonzero" in str(function):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["kd3", "kd"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulate": 2, "clip": 1.0, "ema": 0.9}, {**ADAMW, "clip": 1.0}],
    ids=["plain", "in parts", "adamw"],
)
def test_a_step_reads_nothing_from_the_device(name, changes):
    of = section(objective=name, **changes)
    state = state_of(of, objective(of))
    rows, shown = torch.arange(16), pixels(slice(16))
    state.step(rows, shown, 1, 0.01)  # the first makes the optimizer's state
    with Reads() as reads:
        state.step(rows, shown, 1, 0.01)
    # the counts of steps of an optimizer lie on the host, as do the draws of crops
    assert not reads.found


def test_an_interrupted_step_in_parts_goes_on_as_if_it_had_not(tmp_path: Path):
    of = section(accumulate=2, clip=1.0, ema=0.3, **ADAMW)
    whole = run(tmp_path / "whole", of)

    class Stopped(Exception):
        pass

    def stop(curves: list[Any]) -> None:
        if len(curves) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path / "broken", of, report=stop)
    before = copied(whole.objective)
    resumed = run(tmp_path / "broken", of)
    assert same(whole, resumed)
    assert equal(before, resumed.weights)
