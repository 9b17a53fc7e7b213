"""The objective `official` against the published loop, rebuilt in `benchmarks.published`."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import published
from benchmarks.published import Losses, Modules, published_step
from kd3_pipeline.distill.learning_rate import learning_rate
from kd3_pipeline.distill.objectives.objective import Objective, with_own_settings
from kd3_pipeline.distill.selection import JUDGED
from kd3_pipeline.distill.views import Views, draws
from kd3_pipeline.models import build
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import normalise
from kd3_pipeline.registry import OBJECTIVES
from tests.crops import resized_crop
from tests.distill import world
from tests.distill.world import MEAN, STD, objective, pixels, section, teacher, web

OFFICIAL = section(objective="official")


def batch(dtype: torch.dtype) -> Tensor:
    return normalise(pixels(slice(12)), MEAN, STD).to(dtype)


def official(name: str, dtype: torch.dtype) -> Objective:
    """Between a new student and a teacher called `name`, whose statistics are no initial ones."""
    torch.manual_seed(0)
    of_teacher = build(name, 10).to(dtype)
    with torch.no_grad():
        for _ in range(5):
            of_teacher(batch(dtype))
    of_teacher.eval().requires_grad_(False)
    student = build("resnet8", 10).to(dtype)
    of = with_own_settings(OFFICIAL)
    return OBJECTIVES.load("official")(student, of_teacher, batch(dtype), of).to(dtype)


def modules(of: Objective) -> Modules:
    """A copy of its modules for the naive loop."""
    return copy.deepcopy(
        Modules(of.student, of.teacher, of.transfer, of.projection, of.teacher_projection)
    )


def gradients(of: Modules) -> dict[str, Tensor]:
    return {
        f"{field}.{name}": parameter.grad
        for field in Modules._fields
        for name, parameter in getattr(of, field).named_parameters()
        if parameter.grad is not None
    }


def mixed_views(of: Objective) -> tuple[Tensor, ...]:
    shown = batch(of.projection.linear.weight.dtype)
    return of.views(shown, torch.Generator().manual_seed(3))


def both_steps(of: Objective, shown: tuple[Tensor, ...]) -> tuple[Modules, Losses, Modules, Losses]:
    """One step by each: modules with their gradients, and terms before they are weighted."""
    naive = modules(of)
    for module in (of, *naive.trained()):
        module.train()
    theirs = published_step(naive, *shown)
    terms = of(*shown)
    assert set(terms) == {"feature", "contrast", "teacher_contrast"}
    total = sum(terms.values())
    total.backward()
    parts = terms["feature"], terms["contrast"] / 0.001, terms["teacher_contrast"] / 0.001
    ours = Losses(*(term.item() for term in (total, *parts)))
    held = Modules(of.student, of.teacher, of.transfer, of.projection, of.teacher_projection)
    return held, ours, naive, theirs


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "vgg8"])
def test_in_float64_terms_gradients_and_statistics_are_the_published_ones(name, monkeypatch):
    of = official(name, torch.float64)
    shown = mixed_views(of)
    # the objective widens what comes out of autocast; here that is from float64 to itself
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    ours, our_terms, naive, terms = both_steps(of, shown)
    assert our_terms == pytest.approx(terms, rel=1e-9)
    assert min(terms) > 0
    found, expected = gradients(ours), gradients(naive)
    assert found.keys() == expected.keys()
    assert {key.split(".")[0] for key in found} == set(Modules._fields) - {"teacher"}
    for key, gradient in expected.items():
        assert gradient.any(), key
        torch.testing.assert_close(found[key], gradient, rtol=1e-7, atol=1e-12, msg=key)
    for module, other in zip(ours, naive, strict=True):
        for buffer, expected_buffer in zip(module.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(buffer, expected_buffer, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4"])
def test_in_float32_terms_and_gradients_are_the_published_ones_to_1e_5(name):
    of = official(name, torch.float32)
    ours, our_terms, naive, terms = both_steps(of, mixed_views(of))
    assert our_terms == pytest.approx(terms, rel=1e-5)
    found, expected = gradients(ours), gradients(naive)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, key


def test_the_teachers_contrast_changes_no_gradient_of_the_student():
    """So `kd3` leaves it out. The same weights without it, and all its other settings."""
    with_term = objective(OFFICIAL).train()
    settings = OBJECTIVES.load("official").settings
    without = objective(section(**settings)).train()
    for of in (with_term, without):
        shown = of.views(batch(torch.float32), torch.Generator().manual_seed(3))
        sum(of(*shown).values()).backward()
    named = dict(without.named_parameters())
    for name, parameter in with_term.named_parameters():
        if name.startswith("teacher_projection"):
            assert parameter.grad.any()
            assert name not in named
        else:
            assert torch.equal(parameter.grad, named.pop(name).grad), name
    assert not named


# its settings, applied as the stage does

FREE = {
    "objective",
    "student",
    "student_options",
    "trust",
    "epochs",
    "budget",
    "batch_size",
    "lr",
    "keep",
    "held_out",
    "seed",
    "confident_share",  # of a selection that it has not
    "kd_temperature",  # of a term of weight 0
    "views_bits",  # of views that it has not
    # where and how fast
    "pixels",
    "compile",
    "device",
    "tensorboard",
}


def contrary() -> Distill:
    """Every parameter that `official` fixes is set to something else."""
    other: dict[str, Any] = {
        "student_weights": "default",
        "schedule": "onecycle",
        "optimizer": "adamw",
        "momentum": 0.5,
        "weight_decay": 0.0,
        "clip": 1.0,
        "accumulate": 4,
        "teacher_views": 2,
        "mix": "mixup",
        "ema": 0.9,
        "disagreement": 2.0,
        "selection": "none",
        "cutoff": 0.5,
        "teacher_floor": 0.4,
        "judge": "whole",
        "sampling": "balanced",
        "refill": True,
        "alignment": False,
        "weighting": False,
        "feature_loss": "relative",
        "feature_weight": 3.0,
        "logit_weight": 1.0,
        "mixing": False,
        "mixing_alpha": 1.0,
        "contrast_weight": 1.0,
        "contrast_temperature": 1.0,
        "crop": "none",
        "crop_scale": 0.9,
        "flip": False,
        "off_topic_weight": 0.5,
        "skip_redundant": True,
        "refined": True,
        "precision": "bfloat16",
    }
    assert other.keys() == OBJECTIVES.load("official").settings.keys()
    return Distill(objective="official", epochs=240, lr=0.05, batch_size=1024, **other)


def test_no_parameter_of_the_section_can_change_what_is_published():
    assert with_own_settings(contrary()) == Distill(
        objective="official",
        epochs=240,
        batch_size=1024,
        lr=0.05,
        student_weights="",
        schedule="step",
        optimizer="sgd",
        momentum=0.9,
        weight_decay=5e-4,
        clip=0.0,
        accumulate=1,
        teacher_views=0,
        mix="none",
        ema=0.0,
        disagreement=0.0,
        selection="dynamic",
        judge="random",
        cutoff=0.95,
        teacher_floor=0.0,
        sampling="uniform",
        refill=False,
        alignment=True,
        weighting=True,
        feature_loss="mean",
        feature_weight=1.0,
        logit_weight=0.0,
        mixing=True,
        mixing_alpha=0.1,
        contrast_weight=0.001,
        contrast_temperature=0.3,
        crop="resized",
        crop_scale=0.08,
        flip=True,
        off_topic_weight=0.0,
        skip_redundant=False,
        refined=False,
        precision="float32",
    )


def test_a_new_parameter_of_training_is_either_fixed_by_it_or_free_on_purpose():
    assert set(Distill.model_fields) - set(OBJECTIVES.load("official").settings) == FREE


def test_its_crops_are_torchvisions_with_the_published_scale():
    views = Views(with_own_settings(contrary()), MEAN, STD)
    found = views.cropped(pixels(), torch.Generator().manual_seed(2))
    cut = resized_crop(pixels(), torch.Generator().manual_seed(2), True, (0.08, 1.0))
    assert torch.equal(found, normalise(cut, MEAN, STD))


# its training

EPOCHS = 8  # so the published milestones and the switch fall between its epochs


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[world.Run, Modules, list[list[int]]]:
    """`official` in eight epochs, and the naive loop on the crops that it drew."""
    of = OFFICIAL.model_copy(update={"epochs": EPOCHS, "lr": 0.02, "seed": 5})
    ours = objective(of)
    naive = modules(ours)
    steps: list[tuple[Tensor, ...]] = []

    def recorded(module: Objective, shown: tuple[Tensor, ...]) -> None:
        if module is ours:  # not the copy whose operations are counted
            steps.append(shown)

    ours.register_forward_pre_hook(recorded)
    run = world.run(tmp_path_factory.mktemp("official"), of, student=ours)

    waiting, kept = iter(steps), []
    sgd = published.optimizer(naive, 0.02)
    shown = Views(with_own_settings(of), MEAN, STD)
    for epoch in range(1, EPOCHS + 1):
        for module in (*naive.trained(), naive.teacher):
            module.eval()
        stretched = 1 + (epoch - 1) * 240 / EPOCHS
        with_teacher = 1 - math.exp(-5 * ((stretched + 1) / 160 - 1) ** 2)
        alpha = with_teacher if stretched < 120 else 0.0
        crops = [
            shown.cropped(batch, draws(5, epoch, JUDGED + number))
            for number, batch in enumerate(pixels().split(of.batch_size))
        ]
        judged = published.judge(naive, torch.cat(crops), alpha)
        chosen = set(published.threshold(*judged, 10, 0.95))
        kept.append([row for row in web().train.tolist() if row in chosen])
        for module in naive.trained():
            module.train()
        for group in sgd.param_groups:
            group["lr"] = 0.02 * 0.1 ** sum(epoch > after for after in (5, 6, 7))
        given = 0
        while given < len(kept[-1]) - 1:  # one image left over makes no batch
            images, mixed = next(waiting)
            sgd.zero_grad()
            published_step(naive, images, mixed)
            sgd.step()
            given += len(images)
        assert given in (len(kept[-1]), len(kept[-1]) - 1)
    assert next(waiting, None) is None
    return run, naive, kept


@pytest.mark.slow
def test_a_whole_run_keeps_the_images_that_the_published_loop_keeps(runs):
    run, _, kept = runs
    assert [mask.nonzero().flatten().tolist() for mask in run.trained.kept] == kept
    assert len({len(rows) for rows in kept}) > 1
    assert max(map(len, kept)) < len(web().train)


def test_a_whole_run_ends_at_the_weights_of_the_published_loop(runs):
    run, naive, _ = runs
    found = run.objective
    held = Modules(
        found.student, teacher(), found.transfer, found.projection, found.teacher_projection
    )
    torch.manual_seed(5)
    first = build("resnet8", 10).state_dict()
    for key, value in naive.student.state_dict().items():
        if value.is_floating_point():
            assert not torch.equal(value, first[key]), key
    for module, other in zip(held, naive, strict=True):
        expected = other.state_dict()
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)


def test_the_teacher_leaves_where_epoch_120_of_240_is(runs):
    alphas = [row["alpha"] for row in runs[0].trained.curves]
    assert min(alphas[:4]) > 0.2
    assert alphas[4:] == [0.0] * 4


def test_the_learning_rate_drops_after_the_published_shares_of_the_epochs(runs):
    rates = [row["lr"] for row in runs[0].trained.curves]
    assert rates == pytest.approx([0.02] * 5 + [0.002, 0.0002, 0.00002])
    of = with_own_settings(contrary())
    drops = [epoch for epoch in range(1, 241) if learning_rate((epoch - 1) / 240, of) < 0.05]
    assert drops[0] == 151
