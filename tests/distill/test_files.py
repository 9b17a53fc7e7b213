import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.allocated import allocated
from kd3_pipeline.distill import outputs
from kd3_pipeline.distill.outputs import (
    save_student,
    selection_table,
    threshold_table,
    write_curves,
)
from kd3_pipeline.distill.run import distill
from kd3_pipeline.distill.trainer import Trained
from kd3_pipeline.distill.web import load_web_images
from kd3_pipeline.embeddings import write_images
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import WEIGHTS, ModelConfig
from kd3_pipeline.models.distilled import load_student
from kd3_pipeline.models.network import parameter_count
from kd3_pipeline.pixels import normalise
from kd3_pipeline.pixelstore import encode_jpeg
from kd3_pipeline.runkey import run_key, sources_of
from kd3_pipeline.selections import SCHEMA
from kd3_pipeline.store import read_table, write_table
from tests.distill.world import (
    CPU,
    MEAN,
    SIDE,
    STD,
    equal,
    pixels,
    run,
    section,
    teacher,
    web,
)

TEACHER = ModelConfig(
    {"name": "resnet8", "num_classes": 10}, list("abcdefghij"), MEAN, STD, SIDE, "a test"
)


def ids(names) -> list[str]:
    return [hashlib.sha256(str(name).encode()).hexdigest() for name in names]


def embedded(folder, names):
    """What the stage embed leaves, for images of these names."""
    folder.mkdir(exist_ok=True)
    count = len(names)
    columns = {"row": pa.array(range(count)), "id": pa.array(ids(names))}
    write_images(folder, columns | {"label": pa.array([-1] * count, pa.int64())}, ["a", "b"])
    values = np.arange(count) % 256
    np.save(
        folder / "pixels.npy",
        values.astype(np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8),
    )
    np.save(folder / "logits.npy", np.arange(2 * count, dtype=np.float32).reshape(count, 2))
    return folder


@pytest.mark.parametrize("where", ["resident", "streamed"])
def test_web_images_come_with_their_logits(tmp_path, where):
    found = load_web_images(embedded(tmp_path, range(50)), section(held_out=0.2, pixels=where), CPU)
    assert found.ids == ids(range(50))
    (all_pixels,) = found.pixels.batches([torch.arange(50)])
    assert all_pixels[:, 0, 0, 0].tolist() == list(range(50))
    assert found.pixels.kind == where
    assert found.teacher_logits[:, 0].tolist() == list(range(0, 100, 2))
    assert all_pixels.dtype == torch.uint8
    assert found.teacher_logits.dtype == torch.float32
    assert sorted(found.train.tolist() + found.held_out.tolist()) == list(range(50))


@pytest.mark.parametrize("where", ["resident", "streamed"])
def test_web_images_may_be_jpegs(tmp_path, where):
    folder = embedded(tmp_path, range(50))
    raw = np.load(folder / "pixels.npy")
    jpegs = [encode_jpeg(image, 100) for image in raw]
    (folder / "pixels.npy").unlink()
    (folder / "pixels.jpegs").write_bytes(b"".join(jpegs))
    np.save(folder / "ends.npy", np.cumsum([len(one) for one in jpegs]))
    found = load_web_images(folder, section(pixels=where), CPU).pixels
    (some,) = found.batches([torch.tensor([40, 3, 40])])
    assert (found.kind, found.side, len(found)) == (where, 4, 50)
    assert np.abs(some.numpy().astype(int) - raw[[40, 3, 40]]).max() <= 1


def test_an_image_is_held_out_by_its_id_alone(tmp_path):
    def held(folder, names):
        web_images = load_web_images(embedded(folder, names), section(held_out=0.2), CPU)
        return {web_images.ids[row] for row in web_images.held_out.tolist()}

    few, many = held(tmp_path / "few", range(100)), held(tmp_path / "many", range(399, -1, -1))
    assert few == many & set(ids(range(100)))
    assert 55 < len(many) < 105


def test_holding_out_more_keeps_those_held_out_before(tmp_path):
    few = load_web_images(embedded(tmp_path, range(200)), section(held_out=0.1), CPU)
    more = few.holding_out(0.3)
    assert set(few.held_out.tolist()) < set(more.held_out.tolist())
    assert sorted(more.train.tolist() + more.held_out.tolist()) == list(range(200))
    assert (
        more.held_out.tolist()
        == load_web_images(tmp_path, section(held_out=0.3), CPU).held_out.tolist()
    )
    with pytest.raises(ValueError, match="fewer"):
        more.holding_out(0.1)


def test_no_share_holds_out_nothing(tmp_path):
    assert (
        len(load_web_images(embedded(tmp_path, range(50)), section(held_out=0.0), CPU).held_out)
        == 0
    )


@pytest.mark.parametrize("name", ["images.parquet", "pixels.npy", "logits.npy"])
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_missing_or_broken_file_is_named(tmp_path, name, damage):
    path = embedded(tmp_path, range(5)) / name
    path.unlink()
    if damage == "garbage":
        path.write_bytes(b"garbage")
    with pytest.raises(UserError, match=name):
        load_web_images(tmp_path, section(held_out=0.2), CPU)


@pytest.mark.parametrize("name", ["logits.npy", "pixels.npy"])
def test_files_of_different_lengths_do_not_belong_together(tmp_path, name):
    path = embedded(tmp_path, range(5)) / name
    np.save(path, np.load(path)[:4])
    with pytest.raises(UserError, match=rf"{name} has 4 rows, .*images\.parquet 5: run"):
        load_web_images(tmp_path, section(held_out=0.2), CPU)


def test_the_selection_comes_back_from_its_file(tmp_path):
    kept = torch.tensor([[True, False, True], [True, False, False]])
    seen, sure = torch.tensor([4, 0, 2]), torch.tensor([0.5, 0.25, 1.0])
    trained = Trained([], kept, torch.full((2, 5), torch.nan), seen, sure, 2)
    write_table(tmp_path / "selection.parquet", selection_table(["a", "b", "c"], [1], trained))
    assert read_table(tmp_path / "selection.parquet").to_pydict() == {
        "row": [0, 1, 2],
        "id": ["a", "b", "c"],
        "predicted": [4, 0, 2],
        "confidence": [0.5, 0.25, 1.0],
        "held_out": [False, True, False],
        "times_kept": [2, 0, 1],
        "kept": [[True, True], [False, False], [True, False]],
    }


@pytest.mark.parametrize("epochs", [0, 1, 11])
@pytest.mark.parametrize("images", [0, 1, 9])
def test_the_selection_is_that_of_lists_however_it_is_made(epochs, images, monkeypatch):
    monkeypatch.setattr(outputs, "BLOCK", 4)
    kept = torch.rand(epochs, images, generator=torch.Generator().manual_seed(1)) < 0.5
    seen, sure = torch.arange(images), torch.rand(images)
    ids, limits = [f"{row:064x}" for row in range(images)], torch.full((epochs, 2), torch.nan)
    trained = Trained([], kept, limits, seen, sure, epochs)
    found = selection_table(ids, list(range(0, images, 2)), trained)
    found.validate(full=True)
    rows = [
        {
            "row": row,
            "id": ids[row],
            "predicted": int(seen[row]),
            "confidence": float(sure[row]),
            "held_out": row % 2 == 0,
            "times_kept": int(kept[:, row].sum()),
            "kept": kept[:, row].tolist(),
        }
        for row in range(images)
    ]
    assert found == pa.Table.from_pylist(rows, schema=SCHEMA)


def test_selections_too_long_for_one_array_are_in_several():
    kept = torch.rand(3, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    found = outputs._by_image(kept, elements=8)
    assert [len(chunk) for chunk in found.chunks] == [2, 2, 2, 1]
    assert found.to_pylist() == kept.T.tolist()


def test_an_image_of_a_selection_takes_less_than_half_a_kilobyte():
    epochs, images = 240, 20_000
    kept = torch.rand(epochs, images, generator=torch.Generator().manual_seed(1)) < 0.5
    ids = [f"{row:064x}" for row in range(images)]
    trained = Trained([], kept, torch.zeros(epochs, 2), torch.zeros(images), torch.zeros(images), 1)
    _, peak = allocated(lambda: selection_table(ids, range(0, images, 33), trained))
    assert peak / images < 500  # 2.7 KB as lists


def test_the_thresholds_come_back_from_their_file(tmp_path):
    limits = torch.tensor([[0.95, 0.5], [torch.nan, torch.nan], [0.0, 0.25]])
    trained = Trained([], torch.ones(3, 1), limits, torch.tensor([0]), torch.tensor([1.0]), 3)
    write_table(tmp_path / "thresholds.parquet", threshold_table(["a", "b"], trained))
    found = read_table(tmp_path / "thresholds.parquet").to_pydict()
    assert found["epoch"] == [1, 1, 3, 3]
    assert found["label"] == [0, 1, 0, 1]
    assert found["class"] == ["a", "b", "a", "b"]
    assert found["threshold"] == pytest.approx([0.95, 0.5, 0.0, 0.25])


def test_without_thresholds_their_file_has_no_rows(tmp_path):
    trained = run(tmp_path, section(selection="none")).trained
    assert trained.thresholds.isnan().all()
    assert threshold_table(["a", "b", "c", "d", "e"], trained).num_rows == 0
    assert {row["threshold_low"] for row in trained.curves} == {None}


def test_the_curves_come_back_from_their_file(tmp_path):
    curves = run(tmp_path / "run").trained.curves
    write_curves(tmp_path / "curves.csv", curves)
    with (tmp_path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [{k: float(v) if v else None for k, v in row.items()} for row in rows]
    assert found == curves


def test_the_selection_of_a_run_fits_its_images(tmp_path):
    trained = run(tmp_path).trained
    table = selection_table(web().ids, web().held_out.tolist(), trained)
    assert sum(table["held_out"].to_pylist()) == len(web().held_out)
    assert table["id"].to_pylist() == web().ids
    assert table["times_kept"].to_pylist() == trained.kept.sum(dim=0).tolist()


@pytest.mark.parametrize(
    "changes",
    [{}, {"alignment": False, "logit_weight": 1.0}, {"objective": "kd"}, {"objective": "dfnd"}],
    ids=["kd3", "kd3 without alignment", "kd", "dfnd"],
)
def test_the_saved_student_is_fused_and_says_what_the_trained_one_says(tmp_path, changes):
    done = run(tmp_path / "run", section(**changes))
    saved = save_student(tmp_path / "student", done.objective, "resnet8", TEACHER, "a test")
    loaded, config = load_student(tmp_path / "student", CPU)
    images = normalise(pixels(), MEAN, STD)
    with torch.no_grad():
        expected, found = done.objective.eval().predict(images), loaded(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in loaded.modules())
    assert equal(saved.state_dict(), loaded.state_dict())
    assert parameter_count(saved) == parameter_count(loaded)
    assert config.architecture["fused"]
    assert (config.class_names, config.input_size) == (TEACHER.class_names, SIDE)
    assert (config.mean, config.std) == (MEAN, STD)
    # the objective is as it was, so that it can be looked at further
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in done.objective.modules())
    before = (tmp_path / "student" / WEIGHTS).read_bytes()
    save_student(tmp_path / "student", done.objective, "resnet8", TEACHER, "a test")
    assert (tmp_path / "student" / WEIGHTS).read_bytes() == before
    assert json.loads((tmp_path / "student/config.json").read_text())["source"] == "a test"


@pytest.mark.parametrize("objective", ["kd3", "kd"])
def test_a_teacher_may_see_the_centre_of_larger_images(tmp_path, objective):
    small = replace(TEACHER, input_size=SIDE - 4)
    of = section(objective=objective, compile="never", epochs=1, teacher_floor=0.5, crop="pad")
    no_news = lambda n=1, note="": None  # noqa: E731
    done, _ = distill(of, web(), teacher(), small, torch.float32, tmp_path / "run", no_news)
    save_student(tmp_path / "student", done, "resnet8", small, "a test", "squash", SIDE)
    loaded, config = load_student(tmp_path / "student", CPU)
    assert (config.input_size, config.fit, config.resize) == (SIDE - 4, "squash", SIDE)
    with torch.no_grad():
        centre = normalise(pixels()[:, 2:-2, 2:-2], MEAN, STD)
        expected = done.eval().predict(centre)
        torch.testing.assert_close(loaded(centre), expected, rtol=1e-4, atol=1e-4)
    large = replace(TEACHER, input_size=SIDE + 1)
    with pytest.raises(UserError, match=f"have {SIDE} pixels a side, the teacher takes {SIDE + 1}"):
        distill(of, web(), teacher(), large, torch.float32, tmp_path / "large", no_news)


def test_one_distillation_from_its_parameters_is_that_of_its_parts(tmp_path):
    of = section(ema=0.3, compile="never", epochs=2, teacher_floor=0.5)
    distilled, trained = distill(
        of,
        web(),
        teacher(),
        TEACHER,
        torch.float32,
        tmp_path / "whole",
        lambda n=1, note="": None,
    )
    parts = run(tmp_path / "parts", of)
    assert torch.equal(trained.kept, parts.trained.kept)
    for name, value in parts.weights.items():  # the teacher's batch norms are folded here
        torch.testing.assert_close(distilled.state_dict()[name], value, rtol=1e-3, atol=1e-3)


def test_a_run_key_changes_with_parameters_inputs_and_code(tmp_path):
    data, code = tmp_path / "data", tmp_path / "code.py"
    data.mkdir()
    (data / "a.npy").write_bytes(b"1")
    code.write_text("x = 1")
    key = run_key({"lr": 0.1}, [data], [code])
    assert run_key({"lr": 0.1}, [data], [code]) == key
    assert len(key) == 16
    keys = {key, run_key({"lr": 0.2}, [data], [code])}
    (data / "a.npy").write_bytes(b"2")
    keys.add(run_key({"lr": 0.1}, [data], [code]))
    (data / "b.npy").write_bytes(b"")
    keys.add(run_key({"lr": 0.1}, [data], [code]))
    code.write_text("x = 2")
    keys.add(run_key({"lr": 0.1}, [data], [code]))
    assert len(keys) == 5


def test_a_run_key_does_not_depend_on_the_order_of_the_parameters(tmp_path):
    assert run_key({"a": 1, "b": 2}, [], []) == run_key({"b": 2, "a": 1}, [], [])


def test_the_code_of_a_run_is_what_is_loaded_and_the_stage(tmp_path):
    names = [path.name for path in sources_of(str(tmp_path / "stage.py"))]
    assert names[-1] == "stage.py"
    # so that a state of another layout is never met: the run begins anew and says so
    assert {"trainer.py", "kd3.py", "selection.py", "checkpoint.py", "progress.py"} <= set(names)
