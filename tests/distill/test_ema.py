import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd3_pipeline.distill.ema import EMA, EXPONENT, decay_of
from kd3_pipeline.distill.objectives.objective import Objective
from tests.distill.world import copied, equal, objective, run, same, section, timeless

DECAY = 0.3  # lower than that of the warm-up after a few steps
AVERAGED = section(ema=DECAY)


def trained_net() -> nn.Module:
    """A convolution and a batch norm that has seen images."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net(torch.randn(8, 3, 5, 5))
    return net


def move(net: nn.Module) -> None:
    """Another state, as after an optimizer's step."""
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.randn_like(tensor))


@pytest.mark.parametrize("decay", [0.999, 0.5, 0.05])
def test_the_average_is_that_of_the_definition_with_its_warm_up(decay):
    net = trained_net()
    average = EMA(net, decay)
    expected = copied(net)
    for step in range(12):
        move(net)
        average.update(step)
        weight = min(decay, (1 + step) / (10 + step))
        for name, value in copied(net).items():
            if value.is_floating_point():
                expected[name] = weight * expected[name] + (1 - weight) * value
    with average.applied():
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [200, 2000])
def test_auto_remembers_the_same_share_of_a_run_whatever_its_length(steps):
    profile = np.zeros(steps)
    for step in range(steps):
        decay = decay_of("auto", step)
        profile *= decay
        profile[step] += 1 - decay
    at = (np.arange(steps) + 1) / steps
    centre = float(profile @ at)
    spread = float(np.sqrt(profile @ (at - centre) ** 2))
    assert profile.sum() == pytest.approx(1)
    assert centre == pytest.approx((EXPONENT + 1) / (EXPONENT + 2), abs=0.005)
    assert spread == pytest.approx(0.05, abs=0.002)


def test_auto_forgets_where_a_run_began_after_its_first_step():
    net = trained_net()
    average = EMA(net, "auto")
    move(net)
    live = copied(net)
    average.update(0)
    with average.applied():
        assert equal(copied(net), live)


def test_running_statistics_are_averaged_and_counters_are_not():
    net = trained_net()
    average = EMA(net, 0.9)
    move(net)
    net[1].num_batches_tracked.fill_(50)
    average.update(0)
    live = copied(net)
    with average.applied():
        assert not torch.equal(net[1].running_mean, live["1.running_mean"])
        assert not torch.equal(net[1].running_var, live["1.running_var"])
        assert net[1].num_batches_tracked == 50


def test_the_own_weights_are_back_to_the_bit_after_use_and_after_an_error():
    net = trained_net()
    average = EMA(net, 0.9)
    move(net)
    average.update(0)
    live = copied(net)
    with average.applied():
        averaged = copied(net)
    assert equal(copied(net), live)
    with pytest.raises(ArithmeticError), average.applied():
        assert equal(copied(net), averaged)
        raise ArithmeticError
    assert equal(copied(net), live)
    average.swap()
    assert equal(copied(net), averaged)


def test_an_update_changes_nothing_of_the_module():
    net = trained_net()
    average = EMA(net, 0.9)
    move(net)
    live = copied(net)
    average.update(0)
    assert equal(copied(net), live)


def test_a_loaded_average_goes_on_as_the_saved_one():
    net = trained_net()
    one, other = EMA(net, 0.9), EMA(net, 0.9)
    move(net)
    one.update(0)
    other.load([tensor.clone() for tensor in one.tensors])
    move(net)
    one.update(1)
    other.update(1)
    assert all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))


class Watcher:
    """The average of a run, worked out beside it, and the weights that its student predicts with.

    Attributes:
        live, averages: after so many steps.
        judged: steps done and weights, at every prediction.
    """

    def __init__(self, watched: Objective) -> None:
        self.watched = watched
        self.live = [copied(watched)]
        self.averages = [copied(watched)]
        self.judged: list[tuple[int, dict[str, Tensor]]] = []
        predict = watched.predict

        def noted(images: Tensor) -> Tensor:
            self.judged.append((len(self.live) - 1, copied(watched)))
            return predict(images)

        watched.predict = noted

    def advance(self, n: int = 1, note: str = "") -> None:
        if n == 0:
            return
        step = len(self.live) - 1
        decay = min(DECAY, (1 + step) / (10 + step))
        self.live.append(copied(self.watched))
        before = self.averages[-1]
        self.averages.append(
            {
                name: decay * before[name] + (1 - decay) * live
                if live.is_floating_point()
                else live
                for name, live in self.live[-1].items()
            }
        )


def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(
        torch.allclose(value, other[name], rtol=1e-5, atol=1e-6)
        for name, value in one.items()
        if value.is_floating_point()
    )


@pytest.mark.parametrize("keep", ["last", "agreement"])
def test_averaged_weights_are_what_is_judged_and_deployed(tmp_path, keep):
    of = AVERAGED.model_copy(update={"keep": keep})
    student = objective(of)
    watcher = Watcher(student)
    done = run(tmp_path, of, student=student, advance=watcher.advance)
    averages = watcher.averages
    assert len(averages) == 1 + 9
    during, after = watcher.judged[:-4], watcher.judged[-4:]
    # selection in four batches, agreement in one
    expected = [0] * 4 + [3] + [3] * 4 + [6] + [6] * 4 + [9]
    assert [steps for steps, _ in during] == expected
    for steps, weights in during:
        assert close(weights, averages[steps]), steps
        assert steps == 0 or not close(weights, watcher.live[steps]), steps
    assert all(close(weights, averages[3 * done.trained.epoch]) for _, weights in after)
    assert close(done.weights, averages[3 * done.trained.epoch])


def test_an_average_changes_nothing_of_training_itself(tmp_path):
    of = section(selection="none", epochs=2)
    plain, averaged = objective(of), objective(of)
    ends: dict[str, list] = {"plain": [], "averaged": []}
    run(tmp_path / "a", of, student=plain, report=lambda _: ends["plain"].append(copied(plain)))
    run(
        tmp_path / "b",
        of.model_copy(update={"ema": DECAY}),
        student=averaged,
        report=lambda _: ends["averaged"].append(copied(averaged)),
    )
    assert len(ends["plain"]) == 2
    assert all(equal(*pair) for pair in zip(*ends.values(), strict=True))


def test_the_same_seed_gives_the_same_average(tmp_path):
    of = section(ema=DECAY, epochs=2, selection="none")
    one, other = run(tmp_path / "a", of), run(tmp_path / "b", of)
    assert same(one, other)
    assert timeless(one) == timeless(other)
    assert not same(one, run(tmp_path / "c", of.model_copy(update={"ema": 0.5})))
