"""Several crops of an image: which of them a step shows, and what else goes on by image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.distill.loader import Resident, Streamed
from kd3_pipeline.distill.parallel import ALONE
from kd3_pipeline.distill.state import State
from kd3_pipeline.distill.teacher_views import StoredViews, stored_views
from kd3_pipeline.distill.views import Views, draws
from kd3_pipeline.distill.web import WebImages, load_web_images
from kd3_pipeline.embeddings import write_images
from kd3_pipeline.errors import UserError
from kd3_pipeline.pixels import normalise
from kd3_pipeline.pixelstore import WithCrops
from tests.distill.world import (
    CPU,
    IMAGES,
    MEAN,
    SIDE,
    STD,
    objective,
    pixels,
    run,
    same,
    section,
    teacher,
    web,
)

CROPS = 3
ROWS = torch.tensor([3, 40, 17, 3])


def several(streamed: bool = False) -> WebImages:
    """The small web, with two more views of each image, which are other pictures."""
    others, _ = original_images("train", (CROPS - 1) * IMAGES, SIDE, 7)
    every = WithCrops(pixels().numpy(), others)
    shown = torch.from_numpy(every[:])
    with torch.no_grad():
        logits = teacher()(normalise(shown, MEAN, STD))
    found = Streamed(every, CPU) if streamed else Resident(every, CPU)
    return replace(web(), pixels=found, place_logits=logits, teacher_logits=logits[:IMAGES])


def at(images: WebImages, places: torch.Tensor) -> torch.Tensor:
    return next(iter(images.pixels.batches([places])))


def batches(images: WebImages, waiting: list[torch.Tensor], step: int = 0) -> list[Any]:
    of = section()
    state = State(images, objective(of), Views(of, MEAN, STD), of, torch.float32)
    state.progress.step = step
    return list(state.batches(waiting, 2))


def test_each_crop_of_a_row_is_drawn_alike_often() -> None:
    rows = torch.arange(IMAGES).repeat(100)
    drawn = several().drawn(rows, draws(1))
    assert torch.equal(drawn % IMAGES, rows)
    shares = torch.bincount(drawn // IMAGES, minlength=CROPS) / len(rows)
    assert (shares - 1 / CROPS).abs().max() < 0.02


def test_without_crops_a_row_is_its_place() -> None:
    assert web().crops == 1 and web().drawn(ROWS, draws(1)) is ROWS


@pytest.mark.parametrize("streamed", [False, True])
def test_a_step_shows_one_crop_of_each_row(streamed: bool) -> None:
    images = several(streamed)
    waiting = list(torch.arange(IMAGES).split(16))
    seen = []
    for rows, shown, _ in batches(images, waiting):
        every = torch.stack([at(images, rows + crop * IMAGES) for crop in range(CROPS)])
        which = (every == shown).flatten(2).all(dim=2)
        assert which.any(dim=0).all()
        seen.append(which.int().argmax(dim=0))
    assert set(torch.cat(seen).tolist()) == {0, 1, 2}


def test_what_a_step_shows_depends_on_its_number_alone() -> None:
    images, waiting = several(), list(torch.arange(IMAGES).split(16))
    whole = batches(images, waiting)
    for (rows, shown, _), (other, again, _) in zip(
        whole[2:], batches(images, waiting[2:], step=2), strict=True
    ):
        assert torch.equal(rows, other) and torch.equal(shown, again)


def test_a_training_on_crops_differs_and_goes_on_to_the_same_bit(tmp_path: Path) -> None:
    images = several()
    whole = run(tmp_path / "whole", images=images)
    calls: list[int] = []

    def interrupted(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if sum(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", images=images, advance=interrupted)
    assert same(run(tmp_path / "parts", images=several(streamed=True)), whole)
    assert not same(run(tmp_path / "plain"), whole)


def test_selection_and_agreement_go_by_the_whole_images(tmp_path: Path) -> None:
    of = section(epochs=1)
    student = objective(of)
    found = run(tmp_path / "a", of, images=several(), student=student).trained
    assert found.kept.shape == (1, IMAGES) and found.labels.shape == (IMAGES,)
    (row,) = found.curves
    held = web().held_out
    student.eval()
    with torch.no_grad():
        says = student.predict(normalise(at(several(), held), MEAN, STD)).argmax(dim=1)
    agreed = (says == several().teacher_logits[held].argmax(dim=1)).float().mean()
    assert row["agreement"] == pytest.approx(float(agreed), abs=1e-4)


def stored(folder: Path, images: WebImages, count: int, objective: Any = "kd") -> StoredViews:
    of = section(objective=objective, crop="resized", teacher_views=count)
    views = Views(of, MEAN, STD, SIDE)
    about = (of, images, teacher(), views, torch.float32, folder, ALONE, no_progress)
    found = stored_views(*about)
    assert found is not None
    return found


@pytest.mark.parametrize("objective", ["kd", "kd3"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_stored_views_are_of_crops_in_turn_with_the_answers_to_them(
    tmp_path: Path, count: int, objective: str
) -> None:
    images = several()
    views = stored(tmp_path, images, count, objective)
    asked = teacher() if objective == "kd" else teacher().features
    crops = set()
    for epoch in range(1, 7):
        places = views.places(ROWS, epoch)
        assert torch.equal(places % IMAGES, ROWS)
        crops |= set((places // IMAGES).tolist())
        records = next(iter(views.records([ROWS], epoch)))
        shown, answers = views.shown(ROWS, at(images, places), records, epoch)
        with torch.no_grad():
            assert torch.allclose(asked(shown), answers, rtol=1e-3, atol=1e-4)
    assert crops == set(range(min(count, CROPS) if count > 1 else CROPS))
    assert bool(list(tmp_path.iterdir())) == (count > 1 or objective == "kd3")


def test_a_step_on_stored_views_gets_the_answers_to_the_crops_that_it_shows(
    tmp_path: Path,
) -> None:
    images = several()
    of = section(objective="kd", crop="resized", teacher_views=2)
    student = objective(of)
    student.stored = stored(tmp_path, images, 2)
    state = State(images, student, Views(of, MEAN, STD, SIDE), of, torch.float32)
    for rows, seen, records in state.batches(list(torch.arange(IMAGES).split(16)), 3):
        shown, answers = student.stored.shown(rows, seen, records, 3)
        with torch.no_grad():
            assert torch.allclose(teacher()(shown), answers, atol=1e-4)


def test_asking_about_crops_goes_on_behind_the_last_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kd3_pipeline.distill.teacher_views.ASKED", 16)
    stored(tmp_path / "a", several(), 5)
    (whole,) = (tmp_path / "a").iterdir()
    part = tmp_path / "b" / f"{whole.name}.part"
    part.parent.mkdir()
    part.write_bytes(whole.read_bytes()[: 2 * whole.stat().st_size // 3])
    stored(tmp_path / "b", several(streamed=True), 5)
    assert (tmp_path / "b" / whole.name).read_bytes() == whole.read_bytes()


def five(folder: Path) -> None:
    """Five images, the first of colour 0, and two crops of each, the first of colour 10."""
    names = [f"{row:064x}" for row in range(5)]
    columns = {"row": pa.array(range(5)), "id": pa.array(names)}
    write_images(folder, columns | {"label": pa.array([-1] * 5, pa.int64())}, ["a", "b"])
    flat = np.ones((4, 4, 3), np.uint8)
    np.save(folder / "pixels.npy", np.arange(5, dtype=np.uint8)[:, None, None, None] * flat)
    crops = np.arange(10, 20, dtype=np.uint8).reshape(5, 2)[:, :, None, None, None] * flat
    np.save(folder / "crops.npy", crops)
    np.save(folder / "logits.npy", np.zeros((5, 2), np.float32))
    np.save(folder / "crop_logits.npy", np.arange(20, dtype=np.float32).reshape(5, 2, 2))


def test_crops_are_read_with_their_logits(tmp_path: Path) -> None:
    five(tmp_path)
    found = load_web_images(tmp_path, section(held_out=0.0), CPU)
    assert found.crops == 3 and len(found.ids) == 5 and len(found.train) == 5
    seen = at(found, torch.arange(15))[:, 0, 0, 0].tolist()
    assert seen == [0, 1, 2, 3, 4, 10, 12, 14, 16, 18, 11, 13, 15, 17, 19]
    assert found.teacher_logits.shape == (5, 2)
    assert found.answers(torch.tensor([5 + 1, 10 + 4])).tolist() == [[4, 5], [18, 19]]


def test_of_refined_crops_the_refined_pixels_and_logits_are_read(tmp_path: Path) -> None:
    five(tmp_path)
    flat = np.ones((4, 4, 3), np.uint8)
    np.save(tmp_path / "refined.npy", np.arange(50, 65, dtype=np.uint8)[:, None, None, None] * flat)
    np.save(tmp_path / "refined_logits.npy", np.arange(30, dtype=np.float32).reshape(15, 2))
    found = load_web_images(tmp_path, section(held_out=0.0), CPU)
    assert at(found, torch.arange(15))[:, 0, 0, 0].tolist() == list(range(50, 65))
    assert found.answers(torch.tensor([4, 10 + 4])).tolist() == [[8, 9], [28, 29]]
    assert found.teacher_logits.tolist() == found.answers(torch.arange(5)).tolist()
    untouched = load_web_images(tmp_path, section(held_out=0.0, refined=False), CPU)
    assert at(untouched, torch.tensor([5]))[0, 0, 0].tolist() == [10, 10, 10]


def test_refined_images_of_fewer_crops_are_an_error_that_names_them(tmp_path: Path) -> None:
    five(tmp_path)
    np.save(tmp_path / "refined.npy", np.zeros((10, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"refined\.npy has 10 rows, .* 5 with 3 views each"):
        load_web_images(tmp_path, section(held_out=0.0), CPU)
