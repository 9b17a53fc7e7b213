import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd3_pipeline.console import no_progress
from kd3_pipeline.distill.objectives.objective import fitting
from kd3_pipeline.distill.parallel import ALONE
from kd3_pipeline.distill.teacher_views import StoredViews, stored_views
from kd3_pipeline.distill.views import Views
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from tests.distill.world import MEAN, SIDE, STD, section, teacher, web

ROWS = torch.tensor([3, 40, 17])


def stored(folder: Path, asked: Network | None = None, **changes: Any) -> StoredViews | None:
    of = section(objective="kd", crop="resized", **changes)
    views = Views(of, MEAN, STD, SIDE)
    return stored_views(
        of, web(), asked or teacher(), views, torch.float32, folder, ALONE, no_progress
    )


def shown(views: StoredViews | None, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    assert views is not None
    return views.shown(ROWS, next(iter(web().pixels.batches([ROWS]))), epoch)


class Dying(torch.nn.Module):
    """A teacher whose process ends in the third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 3 * 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return teacher()(images)


def test_the_student_sees_exactly_what_the_teacher_was_asked(tmp_path: Path) -> None:
    views = stored(tmp_path, teacher_views=3)
    for epoch in (1, 2, 5):
        images, answers = shown(views, epoch)
        with torch.no_grad():
            assert torch.allclose(teacher()(images), answers, atol=1e-4)


def test_an_image_goes_through_all_of_its_views(tmp_path: Path) -> None:
    views = stored(tmp_path, teacher_views=3)
    seen = [shown(views, epoch)[1] for epoch in range(1, 7)]
    assert torch.equal(seen[0], seen[3]) and torch.equal(seen[2], seen[5])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_one_view_is_the_whole_image_and_nobody_is_asked(tmp_path: Path) -> None:
    images, answers = shown(stored(tmp_path, Dying(), teacher_views=1), 1)  # type: ignore[arg-type]
    views = Views(section(), MEAN, STD, SIDE)
    assert torch.equal(images, views.whole(next(iter(web().pixels.batches([ROWS])))))
    assert torch.equal(answers, web().teacher_logits[ROWS])
    assert not list(tmp_path.iterdir())


def test_without_views_the_teacher_is_asked_live(tmp_path: Path) -> None:
    assert stored(tmp_path, teacher_views=0) is None


def test_asking_goes_on_behind_the_last_whole_batch(tmp_path: Path) -> None:
    whole = shown(stored(tmp_path / "a", teacher_views=2), 1)[1]
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "b", Dying(), teacher_views=2)  # type: ignore[arg-type]
    (part,) = (tmp_path / "b").glob("*.part")
    assert 0 < part.stat().st_size < 64 * 2 * 10 * 4
    with part.open("ab") as file:
        file.write(b"torn")
    assert torch.equal(shown(stored(tmp_path / "b", teacher_views=2), 1)[1], whole)
    names = {path.name for path in tmp_path.glob("*/*.f32")}
    assert len(names) == 1
    one, other = (next((tmp_path / name).glob("*.f32")).read_bytes() for name in "ab")
    assert one == other


def test_an_answer_that_is_not_finite_names_the_image(tmp_path: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 10), torch.nan)

    with pytest.raises(UserError, match=f"{web().ids[0]} is not finite"):
        stored(tmp_path, Broken(), teacher_views=2)  # type: ignore[arg-type]


def test_what_is_stored_is_not_copied_with_an_objective(tmp_path: Path) -> None:
    views = stored(tmp_path, teacher_views=2)
    assert copy.deepcopy(views) is views
    assert isinstance(views._answers, np.memmap)  # type: ignore[union-attr]


@pytest.mark.parametrize("objective", ["kd3", "simkd", "official"])
def test_objectives_of_features_fall_back_to_kd_for_a_teacher_of_logits(objective: str) -> None:
    black = copy.copy(teacher())
    black.cut = "logits"
    found, told = fitting(Distill(objective=objective), black)  # type: ignore[arg-type]
    assert found.objective == "kd"
    assert told == f"kd, in place of {objective}: of the teacher only logits are seen"
    assert fitting(Distill(objective="dfnd"), black)[1] == ""
    kept, told = fitting(Distill(objective=objective), teacher())  # type: ignore[arg-type]
    assert (kept.objective, told) == (objective, "")


def test_features_are_not_stored() -> None:
    with pytest.raises(UserError, match=r"distill\.teacher_views: objective 'kd3'"):
        fitting(Distill(objective="kd3", teacher_views=4), teacher())


def test_two_at_a_time_do_not_write_the_answers(tmp_path: Path) -> None:
    class Asking(torch.nn.Module):
        """A teacher that meets another process at its work."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with pytest.raises(UserError, match="being written by another process"):
                stored(tmp_path, teacher_views=2)
            return teacher()(images)

    found = shown(stored(tmp_path, Asking(), teacher_views=2), 1)[1]  # type: ignore[arg-type]
    assert torch.equal(found, shown(stored(tmp_path / "alone", teacher_views=2), 1)[1])
