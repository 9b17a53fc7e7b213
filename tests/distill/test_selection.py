from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd3_pipeline.distill.loader import Resident
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.selection import Selector
from kd3_pipeline.distill.views import Views, draws
from kd3_pipeline.distill.web import WebImages, Yardstick, usual_share
from kd3_pipeline.errors import TrainingError
from kd3_pipeline.kd3 import select
from tests.distill.world import CPU, section

COUNT, CLASSES, SIDE, BATCH = 23, 4, 8, 5
TRAIN = torch.tensor([0, 1, 2, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19, 20, 22])
HELD_OUT = torch.tensor([3, 6, 10, 14, 18, 21])
VIEWS = Views(
    section(crop="pad", flip=True), [0.0] * 3, [1 / 255] * 3
)  # crops with the values of the pixels


class Table(nn.Module):
    """A network that knows an image by its red, and looks where its green is in the centre.

    It keeps what it was shown: batches of crops.
    """

    def __init__(self, logits: Tensor, slope: float = 0.0) -> None:
        super().__init__()
        self.logits = logits
        self.slope = slope
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(images)
        moved = self.slope * images[:, 1, SIDE // 2, SIDE // 2, None] * torch.arange(CLASSES)
        return self.logits[images[:, 0].mean(dim=(1, 2)).round().long()] + moved


def logits(seed: int, count: int = COUNT) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, CLASSES, generator=generator)


def pixels() -> Tensor:
    """Red says which image it is, green the column, blue the row."""
    images = torch.zeros(COUNT, SIDE, SIDE, 3, dtype=torch.uint8)
    images[..., 0] = torch.arange(COUNT)[:, None, None]
    images[..., 1], images[..., 2] = torch.arange(SIDE), torch.arange(SIDE)[:, None]
    return images


def web(known: Tensor | None = None) -> WebImages:
    ids = [f"{row:064x}" for row in range(COUNT)]
    known = logits(1) if known is None else known
    return WebImages(ids, Resident(pixels(), CPU), known, TRAIN, HELD_OUT)


def made(
    images: WebImages | None = None,
    student: Tensor | None = None,
    *,
    slope: float = 0.0,
    epochs: int = 240,
    seed: int = 0,
    precision: torch.dtype = torch.float32,
    **changes: Any,
) -> Selector:
    """A selector between tables: a teacher that says of crops what it does not say of the whole.

    Its α is the published one, unless `teacher_floor` says otherwise.
    """
    tables = Table(logits(2) if student is None else student, slope), Table(logits(3), slope)
    between = Objective(*tables, torch.zeros(0), section())
    between.teacher.eval()
    of = section(epochs=epochs, seed=seed, batch_size=BATCH, **changes)
    return Selector(images or web(), between, VIEWS, of, precision)


def seen(network: nn.Module) -> Tensor:
    """All that it was shown since this was last asked."""
    found = torch.cat(network.seen)
    network.seen.clear()
    return found


def same(found: Any, expected: Any) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


# which view is judged


def test_whole_images_are_judged_by_the_teachers_stored_logits():
    selector = made(judge="whole")
    found = selector.judge(60)
    student, teacher = selector.objective.student, selector.objective.teacher
    assert not teacher.seen
    assert {len(batch) for batch in student.seen} == {BATCH, COUNT % BATCH}
    assert torch.equal(seen(student), VIEWS.whole(pixels()))
    assert same(found, select(logits(1), logits(2), selector.alpha(60), 0.95))
    assert 0 < found.mask.sum() < COUNT


def test_one_random_crop_is_shown_to_both_networks_and_changes_with_the_epoch():
    selector = made(judge="random")
    student, teacher = selector.objective.student, selector.objective.teacher
    assert not teacher.seen
    crops = []
    for epoch in (60, 61, 60):
        found = selector.judge(epoch)
        assert same(found, select(logits(3), logits(2), selector.alpha(epoch), 0.95))
        crops.append(seen(student))
        assert torch.equal(crops[-1], seen(teacher))
        assert crops[-1][:, 0, 0, 0].tolist() == list(range(COUNT))
    assert torch.equal(crops[0], crops[2])
    assert not torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], VIEWS.whole(pixels()))
    # and not with the place in the batch alone
    moved = crops[0][:, 1:] - crops[0][:, 1:].amin(dim=(2, 3), keepdim=True)
    batches = moved[:20].view(4, BATCH, *moved.shape[1:])
    assert not any(torch.equal(batches[0], batch) for batch in batches[1:])


def test_the_crop_that_is_judged_is_not_the_one_that_is_trained_on():
    selector = made(judge="random")
    selector.judge(60)
    judged = seen(selector.objective.student)[:BATCH]
    for step in range(5):
        assert not torch.equal(judged, VIEWS.cropped(pixels()[:BATCH], draws(0, 60, step)))


def test_the_crop_that_is_judged_follows_the_seed():
    crops = []
    for seed in (0, 1):
        selector = made(judge="random", seed=seed)
        selector.judge(60)
        crops.append(seen(selector.objective.student))
    assert not torch.equal(*crops)


def test_judging_leaves_training_mode_and_leaves_no_gradient():
    selector = made()
    selector.objective.train()
    assert not selector.judge(60).confidence.requires_grad  # the table refuses training mode


def test_in_bfloat16_the_networks_run_under_autocast_and_judgement_is_float32(monkeypatch):
    selector = made(precision=torch.bfloat16)
    used = []
    known = selector.objective.student.logits

    def predict(images: Tensor) -> Tensor:
        used.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return known[images[:, 0, 0, 0].long()].bfloat16()

    monkeypatch.setattr(selector.objective, "predict", predict)
    found = selector.judge(60)
    assert set(used) == {torch.bfloat16}
    assert found.confidence.dtype == torch.float32
    assert same(found, select(logits(1), known.bfloat16().float(), selector.alpha(60), 0.95))


def test_of_some_images_no_others_are_judged_or_kept():
    rows = torch.arange(0, COUNT, 3)
    train = TRAIN[torch.isin(TRAIN, rows)]
    selector = made(judge="whole")
    selector = Selector(
        replace(selector.web, among=rows, train=train),
        selector.objective,
        selector.views,
        selector.section,
        selector.precision,
    )
    found = selector.judge(60)
    assert torch.equal(seen(selector.objective.student), VIEWS.whole(pixels())[rows])
    assert same(found, select(logits(1)[rows], logits(2)[rows], selector.alpha(60), 0.95))
    kept, _ = selector.select(60)
    assert kept.tolist() == sorted(set(rows[found.mask].tolist()) & set(train.tolist()))
    assert len(selector.seen(60)[0]) == COUNT  # what the student says is recorded of all


# by which rule


@pytest.mark.parametrize(
    "changes",
    [
        {"cutoff": 0.6},
        {"teacher_floor": 0.7},
        {"cutoff": 0.7, "teacher_floor": 0.4},
    ],
)
def test_the_settings_of_the_selection_reach_it(changes):
    known = torch.cat([logits(1)[:12] / 3, logits(1)[12:] * 2])
    known[:, 0] += 2  # one class is frequent
    selector, plain = made(web(known), **changes), made(web(known))
    found, published = selector.judge(150), plain.judge(150)
    expected = select(
        known,
        logits(2),
        changes.get("teacher_floor", 0.0),
        changes.get("cutoff", 0.95),
    )
    assert same(found, expected)
    assert same(published, select(known, logits(2), 0.0, 0.95))
    assert not torch.equal(found.thresholds, published.thresholds)


def test_the_floor_is_the_least_weight_of_the_teacher(published_alpha):
    floored = [made(teacher_floor=0.3).alpha(epoch) for epoch in range(1, 241)]
    expected = [max(alpha, 0.3) for alpha in published_alpha]
    assert floored == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert floored[118] == pytest.approx(0.3)
    assert made(teacher_floor=1.0).alpha(1) == 1


def test_the_teachers_weight_is_the_published_one_at_240_epochs(published_alpha):
    selector = made()
    found = [selector.alpha(epoch) for epoch in range(1, 241)]
    assert found == pytest.approx(published_alpha, rel=1e-5, abs=1e-6)
    assert found[118] > 0.2
    assert found[119:] == [0.0] * 121


@pytest.mark.parametrize("epochs", [8, 30, 60, 120])
def test_the_teachers_weight_is_stretched_to_other_lengths(epochs, published_alpha):
    selector = made(epochs=epochs)
    found = [selector.alpha(epoch) for epoch in range(1, epochs + 1)]
    assert found == pytest.approx(published_alpha[:: 240 // epochs], rel=1e-5, abs=1e-6)
    assert found[epochs // 2 - 1] > 0 == found[epochs // 2]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 240, 600, 10**6])
def test_an_untrained_student_never_selects_alone(epochs, published_alpha):
    assert made(epochs=epochs).alpha(1) == pytest.approx(published_alpha[0])


# which images an epoch has


def test_dynamic_selection_keeps_the_selected_images_that_are_not_held_out():
    selector = made()
    rows, thresholds = selector.select(60)
    wanted = select(logits(1), logits(2), selector.alpha(60), 0.95)
    mask = wanted.mask
    assert rows.tolist() == [row for row in TRAIN.tolist() if mask[row]]
    assert torch.equal(thresholds, wanted.thresholds)
    assert 2 < len(rows) < len(TRAIN)
    assert mask[HELD_OUT].any()


def test_a_class_that_no_image_is_predicted_as_does_no_harm():
    known = logits(1).index_fill(1, torch.tensor([2]), -50.0)
    student = logits(2).index_fill(1, torch.tensor([2]), -50.0)
    selector = made(web(known), student)
    found = selector.judge(60)
    assert found.counts[2] == 0
    assert found.thresholds[2] == 0
    rows, thresholds = selector.select(60)
    assert rows.tolist() == [row for row in TRAIN.tolist() if found.mask[row]]
    assert torch.equal(thresholds, found.thresholds)
    assert len(rows) > 2


def test_without_selection_all_images_to_train_on_are_given_and_none_is_judged():
    selector = made(selection="none")
    rows, thresholds = selector.select(1)
    assert torch.equal(rows, TRAIN)
    assert thresholds is None
    assert not selector.objective.student.seen


@pytest.mark.parametrize(("share", "count"), [(0.5, 8), (0.3, 5), (1.0, 17), (0.01, 2)])
def test_the_confident_images_are_those_of_which_the_teacher_is_most_sure(share, count):
    selector = made(selection="confident", confident_share=share)
    rows, thresholds = selector.select(1)
    assert len(rows) == count
    assert thresholds is None
    assert rows.tolist() == sorted(set(rows.tolist()))
    sure = logits(1).softmax(dim=1).amax(dim=1)
    left = [row for row in TRAIN.tolist() if row not in set(rows.tolist())]
    assert set(rows.tolist()) <= set(TRAIN.tolist())
    assert not left or sure[rows].min() >= sure[left].max()
    assert torch.equal(rows, selector.select(200)[0])
    assert not selector.objective.student.seen


@pytest.mark.parametrize(("kept", "words"), [(0, "no images"), (1, "1 image")])
def test_fewer_than_two_images_are_an_error_of_these_parameters(kept, words):
    known = torch.zeros(COUNT, CLASSES)
    known[:, 0] = 2.0  # all one class, whose threshold is the cutoff, and of a confidence below
    known[TRAIN[:kept], 0] = 20.0
    known[HELD_OUT, 0] = 20.0  # which do not help
    selector = made(web(known), known)
    with pytest.raises(TrainingError, match=rf"^distill: {words} selected in epoch 7: ") as error:
        selector.select(7)
    assert "raise distill.teacher_floor" in error.value.hint
    assert "lower distill.cutoff" in error.value.hint


def test_two_images_are_enough():
    known = torch.zeros(COUNT, CLASSES)
    known[:, 0] = 2.0
    known[TRAIN[[3, 8]], 0] = 20.0
    assert made(web(known), known).select(7)[0].tolist() == TRAIN[[3, 8]].tolist()


# agreement


@pytest.mark.parametrize("judge", ["whole", "random"])
def test_agreement_is_the_share_of_held_out_images_of_equal_class(judge):
    student = logits(1)
    other = torch.cat([TRAIN, HELD_OUT[:2]])
    student[other] = -student[other]
    selector = made(student=student, judge=judge)
    assert selector.agreement() == 0.6667  # of six images four
    assert torch.equal(seen(selector.objective.student), VIEWS.whole(pixels()[HELD_OUT]))


def test_without_held_out_images_there_is_no_agreement():
    none = replace(web(), held_out=torch.arange(0))
    selector = made(none)
    assert selector.agreement() is None
    assert not selector.objective.student.seen


def test_a_student_that_is_the_teacher_agrees():
    assert made(student=logits(1)).agreement() == 1.0


def test_agreement_is_measured_on_the_images_and_by_the_weights_of_the_yardstick():
    student = logits(2)
    shown = pixels().flip(0)  # image r is another one than that which is trained on
    answers = student.flip(0).argmax(dim=1)
    answers[HELD_OUT[:2]] = (answers[HELD_OUT[:2]] + 1) % CLASSES  # two of six are no hits
    known = nn.functional.one_hot(answers, CLASSES).float()
    weights = torch.ones(COUNT)
    weights[HELD_OUT[0]] = 5
    measure = Yardstick(Resident(shown, CPU), known)
    assert made(replace(web(), measure=measure), student).agreement() == 0.6667
    weighed = replace(web(), measure=replace(measure, weights=weights))
    assert made(weighed, student).agreement() == 0.4
    usual = answers[HELD_OUT].bincount(weights[HELD_OUT]).max() / 10
    assert usual_share(weighed) == pytest.approx(float(usual), abs=1e-4)
