import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from pipeline.distill import trainer
from pipeline.distill.trainer import learning_rate
from pipeline.errors import UserError
from pipeline.kd3 import select
from pipeline.pixels import normalise
from tests.distill.world import (
    IMAGES,
    MEAN,
    SCHEDULE,
    STD,
    TERMS,
    objective,
    run,
    same,
    teacher,
    web,
)


class Recorder:
    """Which images an objective is given at each step, where crops are whole images."""

    def __init__(self, recorded) -> None:
        self.steps: list[list[int]] = []
        self.passes = 0
        wholes = normalise(web().pixels, MEAN, STD)
        losses, predict = recorded.losses, recorded.predict

        def recorded_losses(images, generator):
            equal = (images[:, None] == wholes[None]).flatten(2).all(dim=2)
            assert equal.any(dim=1).all()
            self.steps.append(equal.int().argmax(dim=1).tolist())
            return losses(images, generator)

        def recorded_predict(images):
            self.passes += 1
            return predict(images)

        recorded.losses, recorded.predict = recorded_losses, recorded_predict


WHOLE = replace(SCHEDULE, crop="none", flip=False)


@pytest.mark.parametrize("name", ["kd3", "kd"])
def test_the_loss_falls(tmp_path, name):
    schedule = replace(SCHEDULE, epochs=5, selection=False)
    curves = run(tmp_path, schedule, student=objective(name)).trained.curves
    losses = [row["loss"] for row in curves]
    assert losses[-1] < 0.9 * losses[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert same(first, second)
    assert torch.equal(first.trained.kept, second.trained.kept)
    assert not same(first, run(tmp_path / "c", replace(SCHEDULE, seed=1)))


def test_the_seed_of_the_schedule_alone_changes_crops_and_order(tmp_path):
    other = run(tmp_path / "b", replace(SCHEDULE, seed=1), student=objective(seed=0))
    assert not same(run(tmp_path / "a"), other)


def test_training_leaves_the_teacher_as_it_was(tmp_path):
    before = {name: value.clone() for name, value in teacher().state_dict().items()}
    run(tmp_path)
    assert not teacher().training
    for name, value in teacher().state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(weight.grad is None for weight in teacher().parameters())


def test_the_first_selection_is_that_of_whole_images(tmp_path):
    student = objective()
    with torch.no_grad():
        logits = student.eval().predict(normalise(web().pixels, MEAN, STD))
    chosen = select(web().teacher_logits, logits, trainer._alpha(1, SCHEDULE), SCHEDULE.cutoff)
    expected = chosen.mask.clone()
    expected[web().held_out] = False
    kept = run(tmp_path, student=student).trained.kept
    assert torch.equal(kept[0], expected)
    assert 0 < kept[0].sum() < len(web().train)


@pytest.mark.parametrize("refill", [True, False])
def test_only_the_kept_images_are_trained_on_and_never_the_held_out(tmp_path, refill):
    student = objective()
    recorder = Recorder(student)
    schedule = replace(WHOLE, refill=refill)
    kept = run(tmp_path, schedule, student=student).trained.kept
    steps = iter(recorder.steps)
    for mask in kept:
        chosen = mask.nonzero().flatten().tolist()
        count = 3 if refill else math.ceil(len(chosen) / 16)
        given = [row for _ in range(count) for row in next(steps)]
        assert set(given) <= set(chosen)
        if refill:
            assert len(given) == 48
        else:
            assert sorted(given) == chosen
    assert next(steps, None) is None
    assert not kept[:, web().held_out].any()


@pytest.mark.parametrize("cutoff", [0.2, 0.95])
def test_with_refill_the_steps_do_not_depend_on_what_is_kept(tmp_path, cutoff):
    student = objective()
    recorder = Recorder(student)
    trained = run(tmp_path, replace(WHOLE, cutoff=cutoff), student=student).trained
    assert [len(step) for step in recorder.steps] == [16] * 3 * 3
    shares = [row["kept"] for row in trained.curves]
    assert (min(shares) == 1) == (cutoff == 0.2)


def test_refilled_images_are_given_equally_often(tmp_path):
    rows = torch.arange(7)
    generator = torch.Generator().manual_seed(0)
    batches = trainer._batches(rows, 5, SCHEDULE, generator)
    assert [len(batch) for batch in batches] == [16] * 5
    counts = torch.cat(batches).bincount()
    assert len(counts) == 7
    assert counts.max() - counts.min() <= 1


def test_without_selection_every_image_to_train_on_is_kept(tmp_path):
    student = objective()
    recorder = Recorder(student)
    trained = run(
        tmp_path, replace(WHOLE, selection=False), images=web(held_out=0), student=student
    ).trained
    assert trained.kept.all()
    assert {row["kept"] for row in trained.curves} == {1.0}
    assert recorder.passes == 1  # the images are judged once, at the end
    for epoch in range(3):
        given = recorder.steps[4 * epoch : 4 * epoch + 4]
        assert sorted(row for step in given for row in step) == list(range(IMAGES))


@pytest.mark.parametrize("selection", [True, False])
def test_labels_and_confidence_are_those_of_the_finished_student(tmp_path, selection):
    done = run(tmp_path, replace(SCHEDULE, selection=selection))
    with torch.no_grad():
        probability = done.objective.eval().predict(normalise(web().pixels, MEAN, STD)).softmax(1)
    confidence, labels = probability.max(dim=1)
    assert torch.equal(done.trained.labels, labels)
    torch.testing.assert_close(done.trained.confidence, confidence)


def test_agreement_is_measured_on_the_held_out_images(tmp_path):
    done = run(tmp_path)
    rows = web().held_out
    with torch.no_grad():
        student = done.objective.eval().predict(normalise(web().pixels[rows], MEAN, STD))
    agree = student.argmax(dim=1) == web().teacher_logits[rows].argmax(dim=1)
    assert done.trained.curves[-1]["agreement"] == round(float(agree.float().mean()), 4)


def test_no_image_selected_is_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"no image was selected in epoch 1: lower distill\.cutoff"):
        run(tmp_path, replace(SCHEDULE, cutoff=1e9))


def test_a_loss_that_is_not_finite_names_the_epoch(tmp_path):
    with pytest.raises(UserError, match=r"not finite in epoch \d.*lower distill\.lr"):
        run(tmp_path, replace(SCHEDULE, lr=1e30, schedule="step", selection=False))


def test_fewer_images_than_a_batch_are_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"56 images to train on are fewer than a batch of 57"):
        run(tmp_path, replace(SCHEDULE, batch_size=57))


@pytest.mark.parametrize("refill", [True, False])
def test_progress_ends_at_the_total_whatever_is_kept(tmp_path, refill):
    told: list[tuple[int, str]] = []
    run(
        tmp_path,
        replace(SCHEDULE, refill=refill, batch_size=4),
        advance=lambda n=1, note="": told.append((n, note)),
    )
    assert sum(n for n, _ in told) == 3 * (56 // 4)
    assert [note.split(",")[0] for _, note in told if note] == [f"epoch {e}" for e in (1, 2, 3)]


def test_the_curves_have_a_row_an_epoch_whose_loss_is_the_sum_of_its_terms(tmp_path):
    seen: list[int] = []
    curves = run(tmp_path, report=lambda rows: seen.append(len(rows))).trained.curves
    assert seen == [1, 2, 3]
    for epoch, row in enumerate(curves, start=1):
        assert row["epoch"] == epoch
        assert row["loss"] == pytest.approx(row["feature"] + row["contrast"], rel=1e-4)


@pytest.mark.parametrize("crop", ["pad", "resized", "none"])
def test_every_crop_trains(tmp_path, crop):
    curves = run(tmp_path, replace(SCHEDULE, crop=crop, epochs=1)).trained.curves
    assert math.isfinite(curves[0]["loss"])


def test_training_in_bfloat16_keeps_float32_weights_and_losses(tmp_path):
    done = run(tmp_path, precision=torch.bfloat16)
    assert {value.dtype for value in done.weights.values()} == {torch.float32, torch.int64}
    assert all(math.isfinite(row["loss"]) for row in done.trained.curves)
    assert done.trained.confidence.dtype == torch.float32


def test_without_mixing_there_is_no_contrast(tmp_path):
    student = objective(terms=replace(TERMS, mixing=False))
    curves = run(tmp_path, student=student).trained.curves
    assert "contrast" not in curves[0]
    assert curves[0]["loss"] == curves[0]["feature"]


PUBLISHED = replace(SCHEDULE, epochs=240, lr=0.05, schedule="step")


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
    rates = [learning_rate(step / 1000, SCHEDULE) for step in range(1001)]
    peak = rates.index(max(rates))
    assert peak == 200
    assert rates[0] == pytest.approx(0.04 * SCHEDULE.lr)
    assert rates[peak] == pytest.approx(SCHEDULE.lr)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    # no jump between rise and fall
    assert max(abs(a - b) for a, b in pairwise(rates)) < 0.01 * SCHEDULE.lr


def test_the_teachers_weight_is_the_published_one_at_240_epochs(published_alpha):
    found = [trainer._alpha(epoch, PUBLISHED) for epoch in range(1, 241)]
    assert found == pytest.approx(published_alpha, rel=1e-5, abs=1e-6)


def test_the_teachers_weight_is_stretched_to_other_lengths(published_alpha):
    schedule = replace(SCHEDULE, epochs=30)
    found = [trainer._alpha(epoch, schedule) for epoch in range(1, 31)]
    assert found == pytest.approx(published_alpha[::8], rel=1e-5, abs=1e-6)
    assert found[14] > 0 == found[15]


@pytest.mark.parametrize("epochs", [1, 2, 3, 600])
def test_an_untrained_student_never_selects_alone(epochs, published_alpha):
    assert trainer._alpha(1, replace(SCHEDULE, epochs=epochs)) == pytest.approx(published_alpha[0])
