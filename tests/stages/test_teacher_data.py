"""`pipeline teacher` on labelled images as people have them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_pipeline.params import Embed, Teacher
from kd3_stages.steps.teacher import run
from tests.one_thread import one_thread as one_thread

NAMES = ("ant", "bee")
TINY: dict[str, Any] = {
    "data": "set",
    "images": 0,
    "architecture": "resnet8",
    "input_size": 16,
    "epochs": 1,
    "batch_size": 8,
    "device": "cpu",
    "precision": "float32",
}


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of wide pictures in the working directory, of which one file is broken."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(12):
            out = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 32, 3), np.uint8)).save(out, "PNG")
            (tmp_path / "set" / name / f"{index}.png").write_bytes(out.getvalue())
    (tmp_path / "set/ant/x.jpg").write_bytes(b"")
    return tmp_path / "set"


def trained(embed: Embed | None = None, **changes: Any) -> tuple[list[str], np.ndarray]:
    """The names of the teacher's classes, and its first weights."""
    run(Teacher(**(TINY | changes)), Console(quiet=True), embed or Embed())
    config = json.loads(Path("models/teacher/config.json").read_text())
    state = load_file("models/teacher/model.safetensors")
    return config["class_names"], state[min(state)]


def test_a_teacher_that_is_trained_here_has_its_mean_and_std_for_certain() -> None:
    trained()
    assert json.loads(Path("models/teacher/config.json").read_text())["known_input"] is True


def test_broken_images_are_left_out_up_to_a_share() -> None:
    assert trained(broken=0.05)[0] == list(NAMES)
    with pytest.raises(UserError, match=r"set/ant/x\.jpg.*set teacher\.broken higher"):
        trained(broken=0.01)


def test_the_classes_are_in_the_order_of_a_file_of_names() -> None:
    Path("names.txt").write_text("bee\nant\n")
    assert trained(class_names="names.txt")[0] == ["bee", "ant"]
    assert trained(class_names=["bee"], batch_size=4)[0] == ["bee"]
    with pytest.raises(UserError, match=r"teacher\.class_names: none\.txt not found"):
        trained(class_names="none.txt")


def test_two_spellings_of_a_class_are_no_two_classes(photos: Path) -> None:
    (photos / "Bee").mkdir()
    (photos / "Bee/0.png").write_bytes((photos / "bee/0.png").read_bytes())
    with pytest.raises(UserError, match="'Bee' and 'bee' are two spellings"):
        trained()
    assert trained(class_names=["ant", "Bee", "bee"])[0] == ["ant", "Bee", "bee"]


def test_a_teacher_is_trained_on_images_as_embed_frames_them() -> None:
    cropped, again, squashed, inside = (
        trained(embed)[1]
        for embed in (Embed(), Embed(fit="crop"), Embed(fit="squash"), Embed(size=20))
    )
    assert np.array_equal(cropped, again)
    assert not np.array_equal(cropped, squashed)
    assert not np.array_equal(cropped, inside)
