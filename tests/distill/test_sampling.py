"""Sampling: how an epoch draws its images, from the weights of `embed` to the batches."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from kd3_pipeline.distill.batches import drawn, shuffled_batches
from kd3_pipeline.distill.parallel import ALONE
from kd3_pipeline.distill.views import draws
from kd3_pipeline.distill.web import load_web_images
from kd3_pipeline.errors import UserError
from kd3_pipeline.store import read_table, write_table
from tests.distill.test_files import embedded
from tests.distill.test_resume import interrupt_at
from tests.distill.world import CPU, IMAGES, run, same, section, timeless, web

WEIGHTS = torch.linspace(0.1, 1.9, IMAGES, dtype=torch.float64)
WEIGHED = replace(web(), sampling="moments", moment_weights=WEIGHTS)


def counts(places: torch.Tensor, among: int) -> list[int]:
    return places.bincount(minlength=among).tolist()


def test_an_image_is_drawn_as_often_as_its_weight_says_but_for_rounding():
    chances = torch.tensor([0.0, 1.0, 2.5, 0.25, 6.25], dtype=torch.float64)
    for seed in range(20):
        found = counts(drawn(chances, 100, draws(seed)), 5)
        assert sum(found) == 100 and found[0] == 0
        for count, share in zip(found, (10 * chances).tolist(), strict=True):
            assert abs(count - share) < 1
    often = torch.stack(
        [drawn(chances, 7, draws(seed)).bincount(minlength=5) for seed in range(400)]
    )
    torch.testing.assert_close(often.double().mean(0), 0.7 * chances, atol=0.1, rtol=0)


def test_equal_chances_draw_every_image_once_and_in_another_order_each_epoch():
    first, second = (drawn(torch.ones(50).double(), 50, draws(0, epoch)) for epoch in (1, 2))
    assert counts(first, 50) == counts(second, 50) == [1] * 50
    assert first.tolist() != second.tolist()
    assert first.tolist() == drawn(torch.ones(50).double(), 50, draws(0, 1)).tolist()


@pytest.mark.parametrize("refill", [True, False])
def test_an_epoch_has_as_many_steps_however_it_draws(refill):
    rows, of = torch.arange(10, 43), section(batch_size=8, refill=refill)
    about = (rows, 6, of, 1, ALONE)
    plain, weighed = (shuffled_batches(images, *about) for images in (web(), WEIGHED))
    assert list(map(len, plain)) == list(map(len, weighed))
    assert set(torch.cat(weighed).tolist()) <= set(rows.tolist())


def test_balanced_draws_the_classes_of_the_teachers_answers_alike():
    images = replace(web(), sampling="balanced")
    answers = images.teacher_logits.argmax(1)
    rows = images.train[:40]
    found = drawn(images.chances(rows), 400, draws(0))
    seen = answers[rows[found]].bincount(minlength=10)
    there = answers[rows].bincount(minlength=10)
    share = 400 / int((there > 0).sum())
    # each image's count is rounded, so a class's by no more than its images
    assert all(abs(int(n) - share) <= m for n, m in zip(seen, there, strict=True) if m)
    assert (seen[there == 0] == 0).all()


def test_weights_of_embed_are_the_chances_of_the_rows(tmp_path):
    folder = embedded(tmp_path, range(50))
    weights = np.linspace(0, 2, 50, dtype=np.float32)
    images = read_table(folder / "images.parquet").append_column("moment_weight", pa.array(weights))
    write_table(folder / "images.parquet", images)
    found = load_web_images(folder, section(sampling="moments"), CPU)
    assert found.chances(torch.tensor([7, 3])).tolist() == weights[[7, 3]].tolist()
    assert found.holding_out(0.3).chances(torch.tensor([7])).tolist() == [weights[7]]
    assert load_web_images(folder, section(), CPU).chances(torch.arange(3)) is None


def test_agreement_counts_held_out_images_by_the_weights_of_embed(tmp_path):
    folder = embedded(tmp_path, range(50))
    weights = np.ones(50, np.float32)
    weights[7] = 5
    images = read_table(folder / "images.parquet").append_column("moment_weight", pa.array(weights))
    write_table(folder / "images.parquet", images)
    for sampling in ("uniform", "moments"):
        measure = load_web_images(folder, section(sampling=sampling), CPU).yardstick
        assert measure.share(torch.tensor([6, 7, 8]), torch.tensor([0, 1, 1]).bool()) == 0.8571
    measure = load_web_images(embedded(tmp_path / "other", range(50)), section(), CPU).yardstick
    assert measure.share(torch.tensor([6, 7, 8]), torch.tensor([0, 1, 1]).bool()) == 0.6667


def test_weights_that_embed_did_not_leave_name_their_parameter(tmp_path):
    with pytest.raises(UserError, match=r"no column 'moment_weight': set embed.moments and run"):
        load_web_images(embedded(tmp_path, range(9)), section(sampling="moments"), CPU)


def test_even_weights_draw_each_image_once_and_others_give_another_student(tmp_path):
    plain = run(tmp_path / "plain", section(epochs=1))
    weighed = run(tmp_path / "weighed", section(epochs=1, sampling="moments"), images=WEIGHED)
    assert not same(plain, weighed)
    assert weighed.trained.curves[0]["kept"] == plain.trained.curves[0]["kept"]


def test_a_weight_of_zero_is_never_trained_on(tmp_path):
    """Its pixels may be anything."""
    of = section(epochs=2, sampling="moments", selection="none")
    weights = WEIGHTS.clone()
    weights[::4] = 0
    students = []
    for turn, noise in enumerate((0, 255)):
        images = replace(WEIGHED, moment_weights=weights, held_out=web().held_out[:0])
        shown = next(iter(images.pixels.batches([torch.arange(IMAGES)]))).clone()
        shown[::4] = noise
        images = replace(images, pixels=type(images.pixels)(shown, CPU))
        students.append(run(tmp_path / str(turn), of, images=images))
    assert same(*students)


def test_interrupted_within_an_epoch_it_goes_on_to_the_same_student(tmp_path):
    of = section(sampling="moments")
    whole = run(tmp_path / "whole", of, images=WEIGHED)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", of, images=WEIGHED, advance=interrupt_at(5))
    again = run(tmp_path / "cut", of, images=WEIGHED)
    assert same(whole, again) and timeless(whole) == timeless(again)
