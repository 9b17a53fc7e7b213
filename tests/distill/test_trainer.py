import concurrent.futures
import math
import signal
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.distill import checkpoint
from kd3_pipeline.distill.batches import shuffled_batches
from kd3_pipeline.distill.compiling import compiled
from kd3_pipeline.distill.learning_rate import learning_rate
from kd3_pipeline.distill.loader import Streamed
from kd3_pipeline.distill.objectives.kd import KD
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.parallel import ALONE
from kd3_pipeline.distill.progress import Progress
from kd3_pipeline.distill.views import draws
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import TrainingError, UserError
from kd3_pipeline.kd3 import teacher_weight
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.resnet import CifarResNet
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import normalise
from tests.distill.world import (
    CPU,
    IMAGES,
    MEAN,
    SECTION,
    STD,
    Run,
    copied,
    equal,
    objective,
    pixels,
    run,
    same,
    section,
    teacher,
    timeless,
    web,
)

WHOLE = section(crop="none", flip=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("plain"))


def whole_images() -> Tensor:
    """All web images, as they are shown uncropped."""
    return normalise(pixels(), MEAN, STD)


class Recorder:
    """Which images an objective is given at each step, where crops are whole images."""

    def __init__(self, recorded: Objective) -> None:
        self.steps: list[list[int]] = []
        self.shown: list[tuple[Tensor, ...]] = []
        self.predictions = 0
        wholes, predict = whole_images(), recorded.predict

        def note(module: nn.Module, shown: tuple[Tensor, ...]) -> None:
            if module is not recorded:
                return  # a copy, whose arithmetic is counted
            self.shown.append(shown)
            match = (shown[0][:, None] == wholes[None]).flatten(2).all(dim=2)
            self.steps.append([int(row.nonzero()[0]) if row.any() else -1 for row in match])

        def counted(images: Tensor) -> Tensor:
            self.predictions += 1
            return predict(images)

        recorded.register_forward_pre_hook(note)
        recorded.predict = counted


@pytest.mark.parametrize("name", ["kd3", "kd"])
def test_the_loss_falls(tmp_path, name):
    curves = run(tmp_path, section(objective=name, epochs=5, selection="none")).trained.curves
    assert curves[-1]["loss"] < 0.9 * curves[0]["loss"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path, plain):
    first, second = plain, run(tmp_path / "b")
    assert same(first, second)
    assert torch.equal(first.trained.kept, second.trained.kept)
    assert timeless(first) == timeless(second)
    assert not same(first, run(tmp_path / "c", section(seed=1)))


def test_the_seed_of_training_alone_changes_crops_and_order(tmp_path, plain):
    assert not same(plain, run(tmp_path, section(seed=1), student=objective()))


def test_training_leaves_the_teacher_as_it_was(tmp_path):
    before = copied(teacher())
    run(tmp_path)
    assert not teacher().training
    assert equal(teacher().state_dict(), before)
    assert all(weight.grad is None for weight in teacher().parameters())


@pytest.mark.parametrize("refill", [True, False])
def test_only_the_kept_images_are_trained_on_and_never_the_held_out(tmp_path, refill):
    of = WHOLE.model_copy(update={"refill": refill})
    student = objective(of)
    recorder = Recorder(student)
    kept = run(tmp_path, of, student=student).trained.kept
    steps = iter(recorder.steps)
    for mask in kept:
        chosen = mask.nonzero().flatten().tolist()
        left_out = 0 if refill else len(chosen) % 16 == 1  # a batch norm cannot train on one
        count = 3 if refill else math.ceil((len(chosen) - left_out) / 16)
        given = [row for _ in range(count) for row in next(steps)]
        assert set(given) <= set(chosen)
        if refill:
            assert len(given) == 48
        else:
            assert len(set(given)) == len(given) == len(chosen) - left_out
    assert next(steps, None) is None
    assert 0 < kept.sum() < kept[:, web().train].numel()
    assert not kept[:, web().held_out].any()


@pytest.mark.parametrize("cutoff", [0.2, 0.95])
def test_with_refill_the_steps_do_not_depend_on_what_is_kept(tmp_path, cutoff):
    of = WHOLE.model_copy(update={"cutoff": cutoff})
    student = objective(of)
    recorder = Recorder(student)
    trained = run(tmp_path, of, student=student).trained
    assert [len(step) for step in recorder.steps] == [16] * 3 * 3
    shares = [row["kept"] for row in trained.curves]
    assert (min(shares) == 1) == (cutoff == 0.2)


@pytest.mark.parametrize("count", [2, 7, 80, 100])
def test_refilled_images_are_given_equally_often(count):
    batches = shuffled_batches(web(), torch.arange(count), 5, SECTION, 1, ALONE)
    assert [len(batch) for batch in batches] == [16] * 5
    counts = torch.cat(batches).bincount(minlength=count)
    assert counts.max() - counts.min() <= 1


def test_every_epoch_has_another_order():
    orders = [
        torch.cat(shuffled_batches(web(), torch.arange(64), 4, SECTION, epoch, ALONE)).tolist()
        for epoch in (1, 2, 3)
    ]
    assert all(sorted(order) == list(range(64)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_without_selection_every_image_to_train_on_is_kept(tmp_path):
    of = WHOLE.model_copy(update={"selection": "none"})
    student = objective(of)
    recorder = Recorder(student)
    trained = run(tmp_path, of, images=web(held_out=0), student=student).trained
    assert trained.kept.all()
    assert {row["kept"] for row in trained.curves} == {1.0}
    assert {row["agreement"] for row in trained.curves} == {None}
    assert recorder.predictions == 4  # the images are judged once, at the end, in four batches
    for epoch in range(3):
        given = recorder.steps[4 * epoch : 4 * epoch + 4]
        assert sorted(row for step in given for row in step) == list(range(IMAGES))


def test_a_last_batch_of_one_image_is_left_out(tmp_path):
    of = WHOLE.model_copy(update={"selection": "none", "refill": False})
    student = objective(of)
    recorder = Recorder(student)
    run(tmp_path, of, images=web(held_out=15), student=student)
    assert [len(step) for step in recorder.steps] == [16] * 3 * 3
    given = [{row for step in recorder.steps[i : i + 3] for row in step} for i in (0, 3, 6)]
    assert all(len(rows) == 48 for rows in given)
    assert len(set.union(*given)) == 49  # another one each time


def sure_of(count: int) -> WebImages:
    """The teacher has a say on the first `count` images only."""
    logits = torch.zeros_like(web().teacher_logits)
    logits[torch.arange(count), torch.arange(count)] = 40.0
    return replace(web(), teacher_logits=logits)


SURE_ONLY = section(teacher_floor=1.0, epochs=1)


def test_one_selected_image_is_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"distill: 1 image selected in epoch 1: "):
        run(tmp_path, SURE_ONLY, images=sure_of(1))


def test_two_selected_images_fill_an_epoch(tmp_path):
    trained = run(tmp_path, SURE_ONLY, images=sure_of(2)).trained
    assert trained.kept[0].nonzero().flatten().tolist() == [0, 1]
    assert math.isfinite(trained.curves[0]["loss"])


def test_labels_and_confidence_are_those_of_the_deployed_student(plain):
    done = plain
    assert teacher_weight(1 + 2 * 240 / 3) == 0  # the student alone judges
    with torch.no_grad():
        probability = done.objective.eval().predict(whole_images()).softmax(1)
    confidence, labels = probability.max(dim=1)
    assert torch.equal(done.trained.labels, labels)
    torch.testing.assert_close(done.trained.confidence, confidence)


def test_agreement_is_measured_on_the_held_out_images(tmp_path):
    done = run(tmp_path, images=web(held_out=40), of=section(batch_size=8))
    rows = web(held_out=40).held_out
    with torch.no_grad():
        student = done.objective.eval().predict(whole_images()[rows])
    agree = student.argmax(dim=1) == web().teacher_logits[rows].argmax(dim=1)
    assert done.trained.curves[-1]["agreement"] == round(float(agree.float().mean()), 4)


def test_a_loss_that_is_not_finite_names_epoch_step_and_terms(tmp_path):
    of = section(lr=1e30, schedule="step", selection="none")
    with pytest.raises(
        TrainingError,
        match=r"^distill: the loss is not finite in epoch 1, step 2: loss (nan|inf), feature "
        r"(nan|inf), contrast \S+; the last good state is the start: lower distill\.lr, or set "
        r"distill\.clip, as 1$",
    ):
        run(tmp_path, of)


def test_a_loss_that_is_not_finite_names_the_last_good_state(tmp_path):
    student = objective()
    told = 0

    def spoil(n: int = 1, note: str = "") -> None:
        nonlocal told
        told += n
        if told == 7:
            next(student.parameters()).data.fill_(math.nan)

    with pytest.raises(TrainingError, match=r"epoch 3, step 2: .*good state is \S*step-000000006"):
        run(tmp_path, student=student, advance=spoil)
    assert [path.name for path in checkpoint.saved(tmp_path)] == [
        "step-000000003.pt",
        "step-000000006.pt",
    ]


def test_fewer_images_than_a_batch_are_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"56 images to train on are fewer than a batch of 57"):
        run(tmp_path, section(batch_size=57))
    assert run(tmp_path, section(batch_size=56, epochs=1)).trained.curves


def test_the_best_agreement_cannot_be_kept_without_held_out_images(tmp_path):
    with pytest.raises(UserError, match=r"'agreement' needs held-out images.*distill\.held_out"):
        run(tmp_path, section(keep="agreement"), images=web(held_out=0))


@pytest.mark.parametrize("refill", [True, False])
def test_progress_ends_at_the_total_whatever_is_kept(tmp_path, refill):
    told: list[tuple[int, str]] = []
    run(
        tmp_path,
        section(refill=refill, batch_size=5, epochs=2),
        advance=lambda n=1, note="": told.append((n, note)),
    )
    assert sum(n for n, _ in told) == 2 * (56 // 5)
    ended = [note for _, note in told if note.endswith("images/s")]
    assert [note.split(",")[0] for note in ended] == ["epoch 1", "epoch 2"]


def test_the_images_that_an_epoch_chooses_among_are_counted_as_they_are_looked_at(tmp_path):
    told: list[str] = []
    of = section(batch_size=20, epochs=2, teacher_floor=1.0)
    run(tmp_path, of, advance=lambda n=1, note="": told.append(note))
    first = [f"looked at {done} of 64 images" for done in (20, 40, 60, 64)]
    assert told[: len(first) + 1] == [*first, "epoch 1 is under way"]
    second = [note for note in told if note.startswith("epoch 1, loss ") and ";" in note]
    looked = [note.rpartition("; ")[2] for note in second]
    assert looked[:5] == [*first, "epoch 2 is under way"]


def test_the_curves_have_a_row_an_epoch_whose_loss_is_the_sum_of_its_terms(tmp_path):
    seen: list[int] = []
    done = run(tmp_path, report=lambda rows: seen.append(len(rows)))
    assert seen == [1, 2, 3]
    for epoch, row in enumerate(done.trained.curves, start=1):
        assert row["epoch"] == epoch
        assert row["loss"] == pytest.approx(row["feature"] + row["contrast"], rel=1e-4)
        assert row["kept"] == round(int(done.trained.kept[epoch - 1].sum()) / 56, 4)
        limits = done.trained.thresholds[epoch - 1]
        assert row["threshold_low"] == round(float(limits.min()), 4)
        assert row["threshold_mean"] == round(float(limits.mean()), 4)
        assert limits.max() == pytest.approx(0.95)
        assert row["lr"] == round(learning_rate((3 * epoch - 1) / 9, SECTION), 6)
        assert row["alpha"] == round(teacher_weight(1 + (epoch - 1) * 80), 4)
        assert row["seconds"] > 0
        assert row["images_per_s"] > 0
        assert row["tflops"] > 0
        assert row["utilisation"] is None


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(tmp_path):
    of = section(selection="none", refill=False, epochs=1)
    student, steps = objective(of), []

    def note(module: nn.Module, shown: tuple[Tensor, ...], terms: dict[str, Tensor]) -> None:
        if module is student:
            steps.append(sum(float(term.detach()) for term in terms.values()))

    student.register_forward_hook(note)
    curves = run(tmp_path, of, student=student).trained.curves
    assert len(steps) == 4
    assert curves[0]["loss"] == pytest.approx(sum(steps) / 4, rel=1e-5)


@pytest.mark.parametrize("crop", ["pad", "resized", "none"])
def test_every_crop_trains(tmp_path, crop):
    curves = run(tmp_path, section(crop=crop, epochs=1)).trained.curves
    assert math.isfinite(curves[0]["loss"])


def test_training_in_bfloat16_keeps_float32_weights_and_losses(tmp_path):
    of = section(epochs=1)
    done, plain = (run(tmp_path / str(p), of, precision=p) for p in (torch.bfloat16, torch.float32))
    assert {value.dtype for value in done.weights.values()} == {torch.float32, torch.int64}
    assert all(math.isfinite(row["loss"]) for row in done.trained.curves)
    assert done.trained.confidence.dtype == torch.float32
    assert not same(done, plain)


def test_pixels_read_from_disk_give_the_same_weights_as_resident_ones(tmp_path, plain):
    np.save(tmp_path / "pixels.npy", pixels().numpy())
    file = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    streamed = replace(web(), pixels=Streamed(file, CPU))
    done = run(tmp_path / "run", images=streamed)
    assert same(done, plain)
    assert timeless(done) == timeless(plain)


def test_training_works_outside_of_the_main_thread(tmp_path, plain):
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        done = thread.submit(run, tmp_path).result()
    assert same(done, plain)


def test_training_leaves_the_interrupt_handler_as_it_was(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    seen = []
    run(
        tmp_path,
        section(epochs=1),
        # what is looked at once more at the end is no training
        advance=lambda n=1, note="": n and seen.append(signal.getsignal(signal.SIGINT)),
    )
    assert before not in seen
    assert signal.getsignal(signal.SIGINT) is before


def test_draws_depend_on_every_counter_and_on_their_order():
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0), (2**32 - 1, 2**32, 5)]
    drawn = [torch.rand(4, generator=draws(*place)).tolist() for place in places]
    assert len({tuple(values) for values in drawn}) == len(places)
    assert drawn == [torch.rand(4, generator=draws(*place)).tolist() for place in places]


def test_what_a_step_draws_does_not_depend_on_the_steps_before_it(tmp_path):
    recorders = []
    for refill in (True, False):  # with 3 and with 4 steps an epoch
        of = section(selection="none", refill=refill, epochs=2)
        student = objective(of)
        recorders.append(Recorder(student))
        run(tmp_path / str(refill), of, student=student)
    one, other = (recorder.shown for recorder in recorders)
    assert (len(one), len(other)) == (6, 8)
    for epoch in range(2):
        for step in range(3):
            views, same_views = one[3 * epoch + step], other[4 * epoch + step]
            assert len(views) == 2  # the cropped images and the mixed ones
            assert all(torch.equal(a, b) for a, b in zip(views, same_views, strict=True))


class Forgetful(CifarResNet):
    """Drops out half of its features, by torch's own generator."""

    def features(self, images: Tensor) -> Tensor:
        return functional.dropout(super().features(images), 0.5, self.training)


def forgetful() -> Objective:
    torch.manual_seed(0)
    student = Forgetful(10, depth=8, widths=(16, 16, 32, 64))
    return KD(student, teacher(), whole_images()[:1], SECTION)


def test_dropout_does_not_depend_on_the_steps_before_it_either(tmp_path):
    of = section(epochs=2)
    whole = run(tmp_path / "whole", of, student=forgetful())

    def interrupt_fifth(n: int = 1, note: str = "") -> None:
        if n:
            steps.append(n)
        if n and len(steps) == 5:
            signal.raise_signal(signal.SIGINT)

    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", of, student=forgetful(), advance=interrupt_fifth)
    torch.rand(100)
    assert same(whole, run(tmp_path / "broken", of, student=forgetful()))


class Sequence(Network):
    """A network whose `features` is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, 10)
        self.feature_channels = 8


@pytest.fixture
def without_cpp(monkeypatch) -> list[object]:
    """torch.compile without its C++ back end, which takes half a minute; and what it was given."""
    given: list[object] = []
    real = torch.compile

    def compile(function, **options):
        given.append(function)
        return real(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", compile)
    yield given
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_networks_train_alike_and_are_plain_again_without_the_cpp_back_end(
    tmp_path, without_cpp
):
    of = section(selection="none", mixing=False, epochs=2)
    plain = run(tmp_path / "plain", of)
    assert without_cpp == []
    done = run(tmp_path / "compiled", of.model_copy(update={"compile": "always"}))
    assert len(without_cpp) == 2
    for name, value in plain.weights.items():
        torch.testing.assert_close(done.weights[name], value, rtol=1e-3, atol=1e-5)
    for network in (done.objective.teacher, done.objective.student):
        assert "features" not in vars(network)
        assert network.features.__func__ is CifarResNet.features


def test_a_features_module_is_compiled_and_plain_again_without_the_cpp_back_end(
    tmp_path, without_cpp
):
    of = section(selection="none", epochs=1, compile="always")

    def student(of: Distill) -> Objective:
        torch.manual_seed(0)
        return KD(Sequence(), teacher(), whole_images()[:1], of)

    done = run(tmp_path / "compiled", of, student=student(of))
    features = done.objective.student.features
    assert any(function is features for function in without_cpp)
    assert isinstance(features, nn.Sequential)
    assert done.objective.teacher.features.__func__ is CifarResNet.features
    plain = run(tmp_path / "plain", of, student=student(SECTION))
    assert done.weights.keys() == plain.weights.keys()
    for name, value in plain.weights.items():
        torch.testing.assert_close(done.weights[name], value, rtol=1e-3, atol=1e-5)


def test_networks_are_plain_again_after_an_error():
    student = objective(section(compile="always"))
    with pytest.raises(ArithmeticError), compiled(student, CPU):
        assert "features" in vars(student.student)
        assert "features" in vars(student.teacher)
        raise ArithmeticError
    assert "features" not in vars(student.student)
    assert "features" not in vars(student.teacher)


def finished(agreements: list[float]) -> Progress:
    """Progress through epochs in which the only weight is the epoch's number."""
    progress, weight = Progress(1, len(agreements), 2), torch.zeros(())
    for epoch, agreement in enumerate(agreements, start=1):
        weight.fill_(epoch)
        progress.finish({"epoch": epoch, "agreement": agreement}, {"weight": weight})
    return progress


@pytest.mark.parametrize(
    ("agreements", "best"),
    [
        ([0.0], 1),
        ([0.5, 0.75, 0.25], 2),
        ([0.5, 0.75, 0.75], 2),
        ([0.5, 0.5, 0.75], 3),
        ([0.75, 0.5, 0.6], 1),
        ([0.0, 0.0], 1),
    ],
)
def test_the_best_epoch_is_the_first_of_equals(agreements, best):
    progress = finished(agreements)
    assert progress.best_epoch == best
    assert progress.best == {"weight": torch.tensor(float(best))}


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_weights_of_the_best_epoch_are_deployed(tmp_path, ema):
    of = section(keep="agreement", epochs=6, seed=3, batch_size=8, ema=ema, mixing=False)
    images = web(held_out=40)
    done = run(tmp_path / "best", of, images=images)
    agreements = [row["agreement"] for row in done.trained.curves]
    best = agreements.index(max(agreements)) + 1
    assert done.trained.epoch == best < of.epochs
    with torch.no_grad():
        logits = done.objective.eval().predict(whole_images())
    assert torch.equal(done.trained.labels, logits.argmax(dim=1))
    agree = logits.argmax(dim=1)[images.held_out] == images.teacher_logits[images.held_out].argmax(
        dim=1
    )
    assert float(agree.float().mean()) == pytest.approx(max(agreements), abs=1e-4)
    last = run(tmp_path / "last", of.model_copy(update={"keep": "last"}), images=images)
    assert last.trained.epoch == of.epochs
    assert timeless(last) == timeless(done)
    assert not same(last, done)


def test_the_deployed_weights_are_those_that_the_best_epoch_ended_with(tmp_path):
    of = section(keep="agreement", epochs=6, seed=3, batch_size=8)
    student, ends = objective(of), []
    done = run(
        tmp_path,
        of,
        images=web(held_out=40),
        student=student,
        report=lambda curves: ends.append(copied(student)),
    )
    assert equal(done.weights, ends[done.trained.epoch - 1])
    assert not equal(done.weights, ends[-1])


PUBLISHED = section(epochs=240, lr=0.05, schedule="step")


@pytest.mark.parametrize("steps", [1, 7, 1251])
@pytest.mark.parametrize(
    ("epoch", "drops"),
    [(1, 0), (150, 0), (151, 1), (180, 1), (181, 2), (210, 2), (211, 3), (240, 3)],
)
def test_the_step_schedule_drops_after_the_published_epochs(epoch, drops, steps):
    for step in (0, steps - 1):
        done = (epoch - 1 + step / steps) / 240
        assert learning_rate(done, PUBLISHED) == pytest.approx(0.05 * 0.1**drops, rel=1e-12)


def test_the_onecycle_schedule_rises_then_falls_to_nothing():
    rates = [learning_rate(step / 1000, SECTION) for step in range(1001)]
    peak = rates.index(max(rates))
    assert peak == 200
    assert rates[0] == pytest.approx(0.04 * SECTION.lr)
    assert rates[peak] == pytest.approx(SECTION.lr)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    # no jump between rise and fall
    assert max(abs(a - b) for a, b in pairwise(rates)) < 0.01 * SECTION.lr
