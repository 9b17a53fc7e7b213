import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kd3_pipeline.console import no_progress
from kd3_pipeline.distill import teacher_views as module
from kd3_pipeline.distill.objectives.objective import Objective, fitting, with_own_settings
from kd3_pipeline.distill.parallel import ALONE
from kd3_pipeline.distill.teacher_views import StoredViews, stored_views
from kd3_pipeline.distill.views import Views
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from tests.distill.world import (
    IMAGES,
    MEAN,
    SIDE,
    STD,
    Run,
    objective,
    run,
    same,
    section,
    teacher,
    web,
)

ROWS = torch.tensor([3, 40, 17])
LOGITS = {"objective": "kd", "crop": "resized"}
MAPS = {"objective": "kd3", "crop": "resized"}


def stored(folder: Path, asked: Network | None = None, **changes: Any) -> StoredViews | None:
    of = with_own_settings(section(**LOGITS | changes))
    views = Views(of, MEAN, STD, SIDE)
    return stored_views(
        of, web(), asked or teacher(), views, torch.float32, folder, ALONE, no_progress
    )


def shown(views: StoredViews | None, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    assert views is not None
    pixels = next(iter(web().pixels.batches([ROWS])))
    return views.shown(ROWS, pixels, next(iter(views.records([ROWS], epoch))), epoch)


class Asked(nn.Module):
    """The teacher, as something of which `features` and a call can be watched."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.meet(images)
        return teacher()(images)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.meet(images)
        return teacher().features(images)

    def meet(self, images: torch.Tensor) -> None:
        """Whatever the test wants to happen."""


class Dying(Asked):
    """A teacher whose process ends in the third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 3 * 2

    def meet(self, images: torch.Tensor) -> None:
        self.left -= len(images) > 1  # one image alone is asked about for the shape
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASKED", 16)


@pytest.mark.parametrize("kind", [LOGITS, MAPS, MAPS | {"views_bits": 8}], ids=str)
def test_the_student_sees_exactly_what_the_teacher_was_asked(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    views = stored(tmp_path, teacher_views=3, **kind)
    for epoch in (1, 2, 5):
        images, answers = shown(views, epoch)
        with torch.no_grad():
            exact = teacher()(images) if kind is LOGITS else teacher().features(images)
        near = {"atol": 1e-4} if kind is LOGITS else {"rtol": 1e-3, "atol": 1e-4}
        if kind.get("views_bits") == 8:  # half a step of 255
            near = {"rtol": 0, "atol": 0.501 * float(exact.max() - exact.min()) / 255}
        assert answers.dtype == torch.float32
        torch.testing.assert_close(answers, exact, **{"rtol": 0, **near})


@pytest.mark.parametrize("kind", [LOGITS, MAPS], ids=["logits", "maps"])
def test_an_image_goes_through_all_of_its_views(tmp_path: Path, kind: dict[str, Any]) -> None:
    views = stored(tmp_path, teacher_views=3, **kind)
    seen = [shown(views, epoch)[1] for epoch in range(1, 7)]
    assert torch.equal(seen[0], seen[3]) and torch.equal(seen[2], seen[5])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_one_view_is_the_whole_image_and_nobody_is_asked_for_logits(tmp_path: Path) -> None:
    class Silent(Asked):
        def meet(self, images: torch.Tensor) -> None:
            raise AssertionError("asked")

    images, answers = shown(stored(tmp_path, Silent(), teacher_views=1), 1)  # type: ignore[arg-type]
    views = Views(section(), MEAN, STD, SIDE)
    assert torch.equal(images, views.whole(next(iter(web().pixels.batches([ROWS])))))
    assert torch.equal(answers, web().teacher_logits[ROWS])
    assert not list(tmp_path.iterdir())


def test_one_view_of_features_is_that_of_the_whole_image(tmp_path: Path) -> None:
    images, answers = shown(stored(tmp_path, teacher_views=1, **MAPS), 4)
    views = Views(section(), MEAN, STD, SIDE)
    assert torch.equal(images, views.whole(next(iter(web().pixels.batches([ROWS])))))
    with torch.no_grad():
        torch.testing.assert_close(answers, teacher().features(images), rtol=1e-3, atol=1e-4)


def test_without_views_the_teacher_is_asked_live(tmp_path: Path) -> None:
    assert stored(tmp_path, teacher_views=0) is None


@pytest.mark.parametrize("kind", [LOGITS, MAPS], ids=["logits", "maps"])
def test_asking_goes_on_behind_the_last_whole_batch(
    tmp_path: Path, kind: dict[str, Any], small_batches: None
) -> None:
    whole = shown(stored(tmp_path / "a", teacher_views=2, **kind), 1)[1]
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "b", Dying(), teacher_views=2, **kind)  # type: ignore[arg-type]
    (part,) = (tmp_path / "b").glob("*.part")
    complete = next((tmp_path / "a").iterdir())
    assert 0 < part.stat().st_size < complete.stat().st_size
    with part.open("ab") as file:
        file.write(b"torn")
    assert torch.equal(shown(stored(tmp_path / "b", teacher_views=2, **kind), 1)[1], whole)
    assert [path.name for path in (tmp_path / "b").iterdir()] == [complete.name]
    assert (tmp_path / "b" / complete.name).read_bytes() == complete.read_bytes()


def test_what_was_asked_serves_other_seeds_rates_and_batches(tmp_path: Path) -> None:
    class Once(Asked):
        asked = 0

        def meet(self, images: torch.Tensor) -> None:
            self.asked += len(images) > 1

    once = Once()
    first = shown(stored(tmp_path, once, teacher_views=2, **MAPS), 1)  # type: ignore[arg-type]
    asked = once.asked
    assert asked
    for changes in ({"seed": 1}, {"lr": 0.3}, {"batch_size": 8}, {"objective": "simkd"}):
        views = stored(tmp_path, once, teacher_views=2, **MAPS | changes)  # type: ignore[arg-type]
        assert once.asked == asked
        assert shown(views, 1)[0].shape == first[0].shape
    for changes in ({"crop_scale": 0.5}, {"views_bits": 8}, {"flip": False}, {"refined": False}):
        before = once.asked
        stored(tmp_path, once, teacher_views=2, **MAPS | changes)  # type: ignore[arg-type]
        assert once.asked > before


@pytest.mark.parametrize("kind", [LOGITS, MAPS], ids=["logits", "maps"])
def test_an_answer_that_is_not_finite_names_the_image(tmp_path: Path, kind: dict[str, Any]) -> None:
    class Broken(Asked):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 10), torch.nan)

        def features(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 4, 2, 2), torch.inf)

    with pytest.raises(UserError, match=f"{web().ids[0]} is not finite"):
        stored(tmp_path, Broken(), teacher_views=2, **kind)  # type: ignore[arg-type]


def test_what_16_bits_do_not_hold_is_told_and_8_bits_hold_it(tmp_path: Path) -> None:
    class Large(Asked):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            return 1e5 * teacher().features(images)

    with pytest.raises(UserError, match=r"beyond 16 bits \(65,504\)") as error:
        stored(tmp_path, Large(), teacher_views=2, **MAPS)  # type: ignore[arg-type]
    assert error.value.hint == "set distill.views_bits to 8"
    changes = MAPS | {"views_bits": 8}
    assert shown(stored(tmp_path, Large(), teacher_views=2, **changes), 1)[1].max() > 65504  # type: ignore[arg-type]


def test_a_disk_without_room_is_told_before_the_teacher_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ExternalError, match=r"0\.0 GB are free") as error:
        stored(tmp_path, Dying(), teacher_views=64, **MAPS)  # type: ignore[arg-type]
    assert error.value.hint is not None and "distill.views_bits" in error.value.hint


def test_what_is_stored_is_not_copied_with_an_objective(tmp_path: Path) -> None:
    views = stored(tmp_path, teacher_views=2)
    assert views is not None and copy.deepcopy(views) is views
    assert isinstance(views._records._pixels, np.memmap)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["kd3", "simkd", "official"])
def test_objectives_of_features_fall_back_to_kd_for_a_teacher_of_logits(name: str) -> None:
    black = copy.copy(teacher())
    black.cut = "logits"
    found, told = fitting(Distill(objective=name), black)  # type: ignore[arg-type]
    assert found.objective == "kd"
    assert told == f"kd, in place of {name}: of the teacher only logits are seen"
    assert fitting(Distill(objective="dfnd"), black)[1] == ""
    kept, told = fitting(Distill(objective=name), teacher())  # type: ignore[arg-type]
    assert (kept.objective, told) == (name, "")


def test_images_that_are_mixed_in_training_have_no_stored_answers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mixed in training"):
        stored(tmp_path, teacher_views=2, mix="mixup", **MAPS)


def test_two_at_a_time_do_not_write_the_answers(tmp_path: Path) -> None:
    class Asking(Asked):
        """A teacher that meets another process at its work."""

        def meet(self, images: torch.Tensor) -> None:
            with pytest.raises(UserError, match="being written by another process"):
                stored(tmp_path, teacher_views=2)

    found = shown(stored(tmp_path, Asking(), teacher_views=2), 1)[1]  # type: ignore[arg-type]
    assert torch.equal(found, shown(stored(tmp_path / "alone", teacher_views=2), 1)[1])


# training on them


def with_views(folder: Path, **changes: Any) -> Objective:
    """A student whose teacher has been asked, and is not there any more."""
    found = objective(section(**changes))
    found.stored = stored(folder, **changes)
    gone = copy.copy(teacher())
    gone.__dict__["features"] = None  # a call of it fails
    found._teacher = [gone]
    return found


@pytest.mark.parametrize("changes", [{}, {"mixing": False}, {"accumulate": 2}], ids=str)
def test_a_step_asks_no_teacher_and_learns_what_it_would_have_said(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {"objective": "kd3", "crop": "none", "flip": False, "selection": "none"} | changes
    live = run(tmp_path / "live", section(**of))
    of["teacher_views"] = 1
    student = with_views(tmp_path / "views", **of)
    monkeypatch.setattr(
        "kd3_pipeline.distill.trainer.Meter", lambda *about: _Free()
    )  # its own count asks the teacher for an example
    found = run(tmp_path / "stored", section(**of), student=student)
    pairs = zip(losses(live), losses(found), strict=True)
    assert all(one == pytest.approx(other, rel=5e-3) for one, other in pairs)


class _Free:
    def start(self) -> None:
        """No time is measured."""

    def stop(self, images: int, processes: int) -> dict[str, Any]:
        return {"images_per_s": 0, "tflops": 0, "utilisation": None}


def losses(done: Run) -> list[float]:
    return [row["loss"] for row in done.trained.curves]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_run_on_stored_views_goes_on_to_the_bit(tmp_path: Path, bits: int) -> None:
    class Stopped(Exception):
        pass

    def stop(curves: list[dict[str, Any]]) -> None:
        if len(curves) == 1:
            raise Stopped

    of = {"objective": "kd3", "teacher_views": 2, "views_bits": bits, "seed": 5}
    of["feature_loss"] = "standardised"

    def student() -> Objective:
        found = objective(section(**of))
        found.stored = stored(tmp_path / "views", **of)
        return found

    whole = run(tmp_path / "whole", section(**of), student=student())
    with pytest.raises(Stopped):
        run(tmp_path / "part", section(**of), student=student(), report=stop)
    assert same(run(tmp_path / "part", section(**of), student=student()), whole)
    assert len(list((tmp_path / "views").iterdir())) == 1
    assert len(web().ids) == IMAGES


def test_of_some_images_the_views_of_these_alone_are_asked_for(tmp_path):
    of = with_own_settings(section(**MAPS | {"teacher_views": 3}))
    among = replace(web(), among=torch.tensor([3, 5, 17, 40]))
    views, asked = Views(of, MEAN, STD, SIDE), []
    about = (of, among, teacher(), views, torch.float32, tmp_path, ALONE)
    some = stored_views(*about, lambda n=1, note="": asked.append(n))
    every = stored(tmp_path / "every", **MAPS | {"teacher_views": 3})
    assert some is not None and every is not None
    assert sum(asked) == 4 * 3
    for epoch in range(4):
        records = next(iter(some.records([ROWS], epoch)))
        assert torch.equal(records, next(iter(every.records([ROWS], epoch))))
