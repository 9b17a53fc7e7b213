"""Prior weights of images: from embed's scores, to the loss, and no further."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from kd3_pipeline.distill.loader import Resident, Streamed
from kd3_pipeline.distill.objectives.objective import with_own_settings
from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.web import load_web_images
from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.registry import OBJECTIVES
from kd3_pipeline.store import read_table, write_table
from tests.distill.test_files import embedded
from tests.distill.world import (
    CPU,
    IMAGES,
    equal,
    objective,
    pixels,
    run,
    same,
    section,
    together,
    web,
)

FIFTH = section(held_out=0.2)
ALL = section(selection="none", crop="none", flip=False, epochs=2)
TEACHERS = [name for name in OBJECTIVES.entries if name != "official"]  # it has no prior weights


def scored(folder: Path, count: int = 50) -> Path:
    """What embed leaves with both scores: row r of n has off_topic r/n, each fifth is redundant."""
    images = read_table(embedded(folder, range(count)) / "images.parquet")
    scores = np.arange(count, dtype=np.float32) / count
    images = images.append_column("off_topic", pa.array(scores))
    images = images.append_column("redundant", pa.array(np.arange(count) % 5 == 0))
    write_table(folder / "images.parquet", images)
    return folder


def test_without_parameters_there_are_no_weights(tmp_path):
    found = load_web_images(scored(tmp_path), FIFTH, CPU)
    assert found.prior is None
    assert found.weights(torch.arange(3)) is None


def test_a_weight_is_one_less_the_score_and_on_average_one(tmp_path):
    found = load_web_images(scored(tmp_path), section(held_out=0.2, off_topic_weight=0.5), CPU)
    plain = 1 - 0.5 * torch.arange(50) / 50
    torch.testing.assert_close(found.prior, plain / plain[found.train].mean())
    rows = torch.tensor([7, 3])
    assert found.weights(rows).tolist() == found.prior[[7, 3]].tolist()
    assert len(found.train) + len(found.held_out) == 50


def test_redundant_images_are_not_trained_on_but_still_held_out(tmp_path):
    before = load_web_images(scored(tmp_path), FIFTH, CPU)
    found = load_web_images(tmp_path, section(held_out=0.2, skip_redundant=True), CPU)
    assert found.held_out.tolist() == before.held_out.tolist()
    assert found.train.tolist() == [row for row in before.train.tolist() if row % 5]
    assert found.prior.unique().tolist() == [0, 1]
    more = found.holding_out(0.4)
    assert not any(row % 5 == 0 for row in more.train.tolist())
    assert set(found.held_out.tolist()) < set(more.held_out.tolist())


@pytest.mark.parametrize(
    ("asked", "column", "parameter"),
    [
        ({"off_topic_weight": 0.1}, "off_topic", "embed.off_topic"),
        ({"skip_redundant": True}, "redundant", "embed.redundant"),
    ],
)
def test_a_score_that_embed_did_not_leave_names_its_parameter(tmp_path, asked, column, parameter):
    with pytest.raises(UserError, match=f"no column '{column}': set {parameter} and run"):
        load_web_images(embedded(tmp_path, range(9)), section(**asked), CPU)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("embed: {off_topic: false}\ndistill: {off_topic_weight: 0.5}", "needs embed.off_topic"),
        ("distill: {skip_redundant: true}", "needs embed.redundant above 0"),
    ],
)
def test_parameters_that_contradict_each_other_are_told_before(tmp_path, lines, said):
    (tmp_path / "params.yaml").write_text(lines)
    with pytest.raises(UserError, match=said):
        read_params(tmp_path / "params.yaml")


def test_the_published_method_has_no_prior_weights():
    fixed = with_own_settings(
        section(objective="official", off_topic_weight=1.0, skip_redundant=True)
    )
    assert (fixed.off_topic_weight, fixed.skip_redundant) == (0, False)


def test_equal_weights_give_the_same_student_as_none(tmp_path):
    alike = replace(web(), prior=torch.ones(IMAGES))
    plain = run(tmp_path / "plain")
    assert same(plain, run(tmp_path / "alike", images=alike))
    unlike = replace(web(), prior=torch.linspace(0.5, 1.5, IMAGES))
    assert not same(plain, run(tmp_path / "unlike", images=unlike))


@pytest.mark.parametrize("kind", [Resident, Streamed])
def test_an_image_of_weight_zero_changes_nothing(tmp_path, kind):
    """From columns of embed to the student: its pixels may be anything."""
    folder = scored(tmp_path / "embed", IMAGES)
    students = []
    for turn, noise in enumerate((0, 255)):
        shown = pixels().numpy().copy()
        shown[::5] = noise
        np.save(folder / "pixels.npy", shown)
        np.save(folder / "logits.npy", web().teacher_logits.numpy())
        images = load_web_images(
            folder, section(held_out=0.1, pixels=kind.kind, skip_redundant=True), CPU
        )
        images = replace(images, held_out=images.held_out[:0])
        students.append(run(tmp_path / str(turn), ALL, images=images))
    assert same(*students)


@pytest.mark.parametrize("name", TEACHERS)
def test_the_terms_that_follow_the_teacher_are_scaled_image_by_image(name):
    """In evaluation mode no image touches another one, so the terms are means over images."""
    of = section(objective=name, mixing=False, logit_weight=0.0 if name == "simkd" else 0.5)
    student = objective(of).eval()
    images = web().pixels
    shown = next(iter(images.batches([torch.arange(4)]))).permute(0, 3, 1, 2) / 128 - 1
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0])
    together_ = student(shown, weights=weights)
    alone = [student(shown[row : row + 1]) for row in range(4)]
    for term, value in together_.items():
        each = torch.stack([one[term] for one in alone])
        torch.testing.assert_close(value, (weights * each).mean(), rtol=1e-4, atol=1e-6)
    sum(together_.values()).backward()
    assert all(
        weight.grad is None or weight.grad.isfinite().all() for weight in student.parameters()
    )


def weighted(world: World, folder: Path) -> dict[str, torch.Tensor]:
    images = replace(web(), prior=torch.linspace(0.5, 1.5, IMAGES))
    return run(folder / str(world.rank), ALL, images=images, world=world).weights


@pytest.mark.slow
def test_several_processes_weigh_the_images_as_one_does(tmp_path):
    alone = weighted(World(), tmp_path / "alone")
    first, second = together(2, weighted, tmp_path / "both")
    assert equal(first, second)
    for name, value in alone.items():
        torch.testing.assert_close(value, first[name], rtol=1e-3, atol=1e-4)
