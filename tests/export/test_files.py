"""Shipped files: each is the student, to the byte the same in every run, and needs nothing else."""

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.export.checks import Pixels, agreement, choose_pixels
from kd3_pipeline.export.files import check_files, write_files
from kd3_pipeline.export.model import open_model
from kd3_pipeline.export.program import about, export_program, write_torch
from kd3_pipeline.export.quantised import write_int8
from kd3_pipeline.pixels import normalise
from tests.export.world import CONFIG, MEAN, NAMES, SIDE, STD, pixels, student, write_pixels

LONE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy, onnxruntime
try:
    import torch
except ImportError:
    pass
else:
    raise SystemExit("torch is here")
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
(logits,) = session.run(None, {"images": numpy.load(sys.argv[3])})
numpy.save(sys.argv[4], logits)
"""
WITH_TORCH = """
import sys
import numpy, torch
network = torch.export.load(sys.argv[1]).module()
logits = network(torch.from_numpy(numpy.load(sys.argv[2])))
assert not [name for name in sys.modules if name.startswith(("kd3_pipeline", "kd3_stages"))]
numpy.save(sys.argv[3], logits.numpy())
"""
ONNX_NEEDS = ("onnxruntime", "numpy", "numpy.libs", "flatbuffers", "google", "packaging")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    folder = tmp_path_factory.mktemp("embed")
    write_pixels(folder)
    return choose_pixels(Embeddings.open(folder), 256, SIDE, calibrate=True)


@pytest.fixture(scope="module")
def expected(chosen: Pixels) -> np.ndarray:
    with torch.no_grad():
        return student()(normalise(torch.from_numpy(chosen.compare), MEAN, STD)).numpy()


def write(folder: Path, pixels: Pixels, **changes: Any) -> Path:
    """Writes all files, from bytes."""
    usual = {"formats": ["onnx", "torch"], "kind": "uint8", "int8": "static"}
    write_files(folder, student(), CONFIG, pixels=pixels, **(usual | changes))
    return folder


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, chosen: Pixels) -> Path:
    return write(tmp_path_factory.mktemp("shipped"), chosen)


def test_every_file_is_the_student(shipped: Path, chosen: Pixels, expected: np.ndarray) -> None:
    assert len(np.unique(expected.argmax(axis=1))) == len(NAMES)  # or the test could not fail
    names = ["model.safetensors", "model.onnx", "model.pt2", "model-int8.onnx"]
    rows = check_files(shipped, names, expected, chosen)
    assert [row["file"] for row in rows] == names
    assert all(row["max_difference"] < 1e-3 and row["same_class"] == 1 for row in rows[:3])
    assert rows[3]["max_difference"] > 0 and rows[3]["same_class"] > 0.9
    assert rows[3]["bytes"] < 0.6 * rows[1]["bytes"]


@pytest.mark.parametrize(
    "changes",
    [{"formats": ["torch"], "int8": None}, pytest.param({}, marks=pytest.mark.slow)],
    ids=["torch alone", "all"],
)
def test_two_runs_write_the_same_bytes(
    shipped: Path, chosen: Pixels, tmp_path: Path, changes: dict[str, Any]
) -> None:
    again = sorted(write(tmp_path, chosen, **changes).iterdir())
    assert len(again) == (3 if changes else len(list(shipped.iterdir())))
    for path in again:
        assert path.read_bytes() == (shipped / path.name).read_bytes(), path.name


def test_no_file_tells_where_it_was_made(shipped: Path) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for path in shipped.iterdir():
        content = path.read_bytes()
        assert here not in content and b"site-packages" not in content


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "model-int8.onnx"])
@pytest.mark.parametrize("count", [1, 65])
def test_any_number_of_images_passes(shipped: Path, name: str, count: int) -> None:
    model = open_model(shipped / name)
    assert model.logits(pixels()[:count]).shape == (count, len(NAMES))
    assert model.class_names == NAMES and model.input_size == SIDE


def test_onnx_needs_no_torch(shipped: Path, tmp_path: Path, expected: np.ndarray, chosen) -> None:
    packages = Path(importlib.util.find_spec("onnxruntime").origin).parents[1]
    lone = tmp_path / "packages"
    lone.mkdir()
    for name in ONNX_NEEDS:
        if (packages / name).exists():
            (lone / name).symlink_to(packages / name)
    np.save(tmp_path / "in.npy", chosen.compare)
    places = [lone, shipped / "model.onnx", tmp_path / "in.npy", tmp_path / "out.npy"]
    subprocess.run([sys.executable, "-I", "-S", "-c", LONE, *map(str, places)], check=True)
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() < 1e-3


@pytest.mark.slow
def test_pt2_needs_torch_alone(shipped: Path, tmp_path: Path, expected: np.ndarray, chosen) -> None:
    np.save(tmp_path / "in.npy", chosen.compare)
    places = [shipped / "model.pt2", tmp_path / "in.npy", tmp_path / "out.npy"]
    subprocess.run([sys.executable, "-I", "-c", WITH_TORCH, *map(str, places)], check=True)
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() < 1e-3


def test_floats_from_0_to_1_are_an_input_as_well(tmp_path: Path, expected, chosen) -> None:
    program = export_program(student(), CONFIG, "float")
    write_torch(tmp_path / "model.pt2", program, about(CONFIG, "float"))
    floats = torch.from_numpy(chosen.compare).permute(0, 3, 1, 2) / 255
    assert np.abs(program.module()(floats).numpy() - expected).max() < 1e-3
    assert np.abs(open_model(tmp_path / "model.pt2").logits(chosen.compare) - expected).max() < 1e-3


def test_dynamic_ranges_need_no_images(shipped: Path, tmp_path: Path, expected, chosen) -> None:
    path = tmp_path / "model.onnx"
    write_int8(path, shipped / "model.onnx", "dynamic", chosen.calibrate[:0])
    assert agreement(open_model(path).logits(chosen.compare), expected) > 0.9
    assert path.stat().st_size < 0.6 * (shipped / "model.onnx").stat().st_size


def test_a_student_that_cannot_be_recorded_is_named() -> None:
    class Moody(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3)) if images.sum() > 0 else images.sum(dim=(2, 3))

    with pytest.raises(UserError, match=r"cannot hold this student.*out of export\.formats"):
        export_program(Moody(), CONFIG, "uint8")


def test_web_images_are_compared_on_and_others_calibrate(tmp_path: Path) -> None:
    write_pixels(tmp_path)
    web = Embeddings.open(tmp_path)
    few = choose_pixels(web, 256, SIDE, calibrate=True)
    assert (few.web, len(few.compare), len(few.calibrate)) == (150, 256, 150)
    many = choose_pixels(web, 100, SIDE, calibrate=True)
    assert choose_pixels(web, 256, SIDE).web == 256
    assert (many.web, len(many.compare), len(many.calibrate)) == (100, 100, 100)
    seen = {image.tobytes() for image in many.compare}
    assert len(seen) == 100 and not seen & {image.tobytes() for image in many.calibrate}
    with pytest.raises(UserError, match="16 pixels, the network takes 32"):
        choose_pixels(web, 256, 32)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "model.safetensors"])
def test_a_damaged_file_is_named(shipped: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(shipped / "config.json", tmp_path)
    (tmp_path / name).write_bytes((shipped / name).read_bytes()[:5000])
    with pytest.raises(UserError, match=r"holds no model"):
        open_model(tmp_path / name)


def test_a_file_of_other_origin_is_refused(tmp_path: Path) -> None:
    write_torch(tmp_path / "model.pt2", export_program(student(), CONFIG, "uint8"), {"a": 1})
    with pytest.raises(UserError, match="does not say how to use it"):
        open_model(tmp_path / "model.pt2")
    with pytest.raises(UserError, match="no model ends so"):
        open_model(tmp_path / "model.pkl")


def test_confidences_are_tempered(shipped: Path, tmp_path: Path, expected, chosen) -> None:
    config = replace(CONFIG, temperature=2.0)
    write_files(tmp_path, student(), config, formats=[], kind="uint8", int8=None, pixels=chosen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    tempered = open_model(tmp_path / "model.safetensors").confidences(chosen.compare)
    assert tempered == pytest.approx(torch.tensor(expected / 2).softmax(1).numpy(), abs=1e-5)
    assert agreement(tempered, expected) == 1
