"""`pipeline export`, `predict` and `trace` as a user meets them."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from kd3_pipeline.extras import ONNX, install
from kd3_pipeline.models.distilled import load_student
from kd3_pipeline.store import write_json
from kd3_stages.cli import app
from tests.export.world import (
    DROPPED,
    EPOCHS,
    HELD_OUT,
    LEAKED,
    METRICS,
    NAMES,
    NEVER,
    SIDE,
    TITLE,
    TWICE,
    USED,
    pixels,
    student,
    write_world,
)
from tests.one_thread import one_thread as one_thread
from tests.pages import blocks

TEST_SET = "labelled"
PARAMS = f"""
embed: {{fit: squash}}
evaluate: {{test_set: {TEST_SET}, images: 0}}
export: {{int8: static, int8_agreement: 0.9, licence: mit}}
"""


def pipeline(folder: Path, *args: str) -> Result:
    """Runs a command in `folder`."""
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        return CliRunner().invoke(app, args)


def done(folder: Path, *args: str) -> dict:
    """The JSON object of a command that succeeds."""
    result = pipeline(folder, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project before `export`, with 40 labelled images that the student is right on or not."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    (folder / "params.yaml").write_text(PARAMS)
    names = ["circle", "hostile", "lines", "star"]  # of folders; labels are theirs in this order
    for number, image in enumerate(pixels(40)):
        place = folder / TEST_SET / names[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


def name_as_folders(folder: Path) -> None:
    """Gives the student names as folders can have, so that the test set is of its classes."""
    config = folder / "models/student/config.json"
    values = json.loads(config.read_text())
    values["class_names"] = ["circle", "hostile", "lines", "star"]
    config.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def exported(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `export` of every format."""
    folder = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(world, folder)
    name_as_folders(folder)
    result = pipeline(folder, "export")
    assert result.exit_code == 0, result.output
    assert re.search(r"model-int8\.onnx 0\.\d\d MB .* right; student", result.stdout)
    return folder


@pytest.fixture
def fresh(world: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(world, folder)
    return folder


def picture(path: Path, number: int = 0) -> str:
    Image.fromarray(pixels()[number]).resize((40, 24)).save(path)
    return str(path)


def test_everything_to_ship_is_written_and_checked(exported: Path) -> None:
    folder = exported / "models/export"
    checks = json.loads((folder / "checks.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "checks.json",
        "config.json",
        "model-int8.onnx",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "sources.parquet",
    ]
    assert checks["images"] == {"web": 150, "noise": 106}
    assert [one["file"] for one in checks["files"]] == [
        "model.safetensors",
        "model.onnx",
        "model.pt2",
        "model-int8.onnx",
    ]
    assert all(one["max_difference"] < 1e-3 for one in checks["files"][:3])
    assert pq.read_table(folder / "sources.parquet")["id"].to_pylist() == [USED, TWICE]
    assert "license: mit" in (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config["fit"] == "squash" and config["temperature"] == 1.0


@pytest.mark.parametrize("library", ["onnxruntime", "torch"])
def test_code_of_the_page_opens_the_files(
    library: str, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [
        block
        for block in blocks("python")
        if block.page.name == "export.md" and re.search(rf"import .*\b{library}\b", block.text)
    ]
    monkeypatch.chdir(exported)
    names: dict[str, Any] = {}
    exec(compile(block.text.replace("32, 32", f"{SIDE}, {SIDE}"), block.place, "exec"), names)
    assert tuple(names["logits"].shape) == (1, len(NAMES))


def test_quantisation_is_measured_on_the_test_set(exported: Path) -> None:
    int8 = json.loads((exported / "models/export/checks.json").read_text())["int8"]
    import torch

    from kd3_pipeline.frames import Frame
    from kd3_pipeline.labelled import load_labelled
    from kd3_pipeline.pixels import normalise

    data = load_labelled(str(exported / TEST_SET), "test", Frame(SIDE), 0, 0)
    _, config = load_student(exported / "models/student", torch.device("cpu"))
    seen = student()(normalise(torch.from_numpy(data.pixels[:]), config.mean, config.std)).argmax(1)
    right = float((seen.numpy() == data.labels).mean())
    assert int8["student_accuracy"] == pytest.approx(right, abs=1e-4)
    assert 0 < right < 1 and abs(int8["accuracy"] - right) <= 0.1


def test_the_cards_own_lines_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported / "models/export")
    blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        here: dict = {}
        exec(block, here)
        assert tuple(here["logits"].shape) == (1, len(NAMES))


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.pt2"])
def test_predict_says_the_same_from_every_file(exported: Path, tmp_path: Path, name: str) -> None:
    image = picture(tmp_path / "a.png")
    (row,) = done(exported, "predict", image, "--model", f"models/export/{name}", "--k", "3")[
        "images"
    ]
    (other,) = done(exported, "predict", image, "--k", "3")["images"]
    assert [one["name"] for one in row["classes"]] == [one["name"] for one in other["classes"]]
    shares = [one["confidence"] for one in row["classes"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 3
    assert shares == pytest.approx([one["confidence"] for one in other["classes"]], abs=2e-4)


def test_predict_sees_the_pixels_that_embed_made(exported: Path, tmp_path: Path) -> None:
    import torch

    from kd3_pipeline.frames import to_square
    from kd3_pipeline.images import decode
    from kd3_pipeline.pixels import normalise
    from tests.export.world import MEAN, STD

    image = picture(tmp_path / "wide.png", 3)
    (row,) = done(exported, "predict", image, "--k", "4")["images"]
    seen = to_square(decode(Path(image).read_bytes()), SIDE, "squash")
    logits = student()(normalise(torch.from_numpy(seen.copy())[None], MEAN, STD))[0]
    expected = dict(zip(["circle", "hostile", "lines", "star"], logits.softmax(0), strict=True))
    for one in row["classes"]:
        assert one["confidence"] == pytest.approx(float(expected[one["name"]]), abs=1e-3)


def test_predict_names_broken_images_and_goes_on(exported: Path, tmp_path: Path) -> None:
    whole, cut, none = picture(tmp_path / "a.png"), tmp_path / "b\x1b[2J.png", tmp_path / "c.png"
    cut.write_bytes(Path(whole).read_bytes()[:200])
    result = pipeline(exported, "predict", str(cut), whole, str(none))
    assert result.exit_code == 2
    assert result.stdout.startswith(f"{whole}  ") and len(result.stdout.splitlines()) == 1
    errors = result.stderr.splitlines()
    assert [line.split(":")[0] for line in errors] == ["error"] * 2
    assert "b[2J.png: not a whole image" in errors[0] and "c.png: No such file" in errors[1]
    listed = json.loads(pipeline(exported, "predict", str(cut), whole, "--json").stdout)["images"]
    assert ["error" in row for row in listed] == [True, False]


def test_predict_takes_a_folder_of_images_and_counts_them(exported: Path, tmp_path: Path) -> None:
    inside = tmp_path / "photos"
    (inside / "more" / ".ipynb_checkpoints").mkdir(parents=True)
    names = ("a.tiff", "b.avif", "more/c.JFIF", "more/d")
    for name, kind in zip(names, ("TIFF", "AVIF", "JPEG", "PNG"), strict=True):
        Image.open(picture(tmp_path / "whole.png")).save(inside / name, kind)
    (inside / "more" / "._c.JFIF").write_bytes(b"x")
    (inside / "notes.txt").write_text("no picture")
    result = pipeline(exported, "predict", str(inside), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [row["file"] for row in found["images"]] == [str(inside / name) for name in names]
    assert sum(found["counts"].values()) == 4
    assert "left out, hidden or the system's: ._c.JFIF 1, .ipynb_checkpoints 1" in result.stderr
    assert "4 of 4 images are read: " in result.stderr
    one = done(exported, "predict", str(inside / "a.tiff"))["images"]
    assert one == found["images"][:1]

    (inside / "broken.png").write_bytes(b"")
    result = pipeline(exported, "predict", str(inside))
    assert result.exit_code == 2 and len(result.stdout.splitlines()) == 4
    assert "4 of 5 images are read" in result.stderr
    assert f"error: {inside}/broken.png: not a whole image: it has no bytes" in result.stderr


def test_predict_writes_csv_and_takes_names_from_a_file(exported: Path, tmp_path: Path) -> None:
    image, names = picture(tmp_path / "a,b.png"), tmp_path / "names.txt"
    names.write_text("w\nx\ny\nz\n")
    options = ["--class-names", str(names), "--csv", "--k", "2"]
    rows = list(csv.DictReader(pipeline(exported, "predict", image, *options).stdout.splitlines()))
    assert list(rows[0]) == ["file", "class_1", "confidence_1", "class_2", "confidence_2"]
    assert rows[0]["file"] == image and {rows[0]["class_1"], rows[0]["class_2"]} <= set("wxyz")
    assert float(rows[0]["confidence_1"]) >= float(rows[0]["confidence_2"])
    names.write_text("w\nx\n")
    result = pipeline(exported, "predict", image, "--class-names", str(names))
    assert result.exit_code == 2 and "has 2 names, and the model 4 classes" in result.stderr


def test_a_pt2_file_of_others_is_not_opened(exported: Path, tmp_path: Path) -> None:
    image, other = picture(tmp_path / "a.png"), tmp_path / "model.pt2"
    shutil.copy(exported / "models/export/model.pt2", other)
    assert pipeline(exported, "predict", image, "--model", str(other)).exit_code == 0
    with other.open("ab") as file:
        file.write(b"\0")
    result = pipeline(exported, "predict", image, "--model", str(other))
    assert result.exit_code == 2 and "can run code" in result.stderr


def test_predict_before_export_says_what_to_do(fresh: Path, tmp_path: Path) -> None:
    result = pipeline(fresh, "predict", picture(tmp_path / "a.png"))
    assert result.exit_code == 2
    assert "models/export/model.safetensors not found: run `pipeline export`" in result.stderr


def test_safetensors_alone_need_no_onnx(fresh: Path) -> None:
    args = ["export", "--set", "export.formats=[]", "--set", "export.int8=none"]
    checks = done(fresh, *args)
    assert [one["file"] for one in checks["files"]] == ["model.safetensors"]
    first = (fresh / "models/export/model.safetensors").read_bytes()
    card = (fresh / "models/export/README.md").read_text()
    assert "onnx" not in card and "<script>" not in card
    yaml.safe_load(card.split("---\n")[1])
    done(fresh, *args)
    assert (fresh / "models/export/model.safetensors").read_bytes() == first


def test_a_missing_package_is_named_with_the_parameter(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kd3_stages.export.find_spec", lambda name: None if name == "onnxscript" else 1
    )
    result = pipeline(fresh, "export")
    assert result.exit_code == 2
    assert "export.formats needs onnxscript" in result.stderr
    assert install(*ONNX) in result.stderr


def test_int8_without_onnx_is_a_conflict(fresh: Path) -> None:
    result = pipeline(fresh, "export", "--set", "export.formats=[torch]")
    assert result.exit_code == 2 and "export.int8" in result.stderr


def test_files_that_are_not_the_student_are_not_kept(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fresh / "models/export").mkdir()
    (fresh / "models/export/old").write_text("kept")
    from kd3_pipeline.export.program import Shipped

    right = Shipped.forward
    monkeypatch.setattr(Shipped, "forward", lambda self, images: 2 * right(self, images))
    args = ["--set", "export.formats=[torch]", "--set", "export.int8=none"]
    result = pipeline(fresh, "export", *args)
    assert result.exit_code == 3
    assert "model.pt2 is not the student: logits differ by up to" in result.stderr
    assert [path.name for path in (fresh / "models").glob("export*/*")] == ["old"]
    assert not list((fresh / "models").glob(".export*"))


@pytest.mark.parametrize("far", ["int8", "fp16"])
def test_a_file_too_far_from_the_student_is_left_out_or_refused(
    far: str, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_as_folders(fresh)
    if far == "int8":
        given, name = {"int8_agreement": 1}, "model-int8.onnx"
    else:
        given, name = {"int8": "none", "formats": "[onnx, onnx-fp16]"}, "model-fp16.onnx"
        monkeypatch.setattr("kd3_pipeline.export.files.HALF", 1e-4)
    args = [
        part
        for key, value in {"formats": "[onnx]", **given}.items()
        for part in ("--set", f"export.{key}={value}")
    ]
    refused = pipeline(fresh, "export", *args, "--set", "export.disagreeing=refuse")
    assert refused.exit_code == 3
    assert f"{name} is too far from the student: the same class on" in refused.stderr
    assert not (fresh / "models/export").exists()

    result = pipeline(fresh, "export", *args, "--quiet")
    assert result.exit_code == 0 and "left out of models/export" in result.stderr
    assert name not in result.stdout
    checks = json.loads((fresh / "models/export/checks.json").read_text())
    (row,) = checks["left_out"]
    assert row["file"] == name and not row["agrees"]
    assert name not in {one["file"] for one in checks["files"]}
    assert not (fresh / "models/export" / name).exists()
    card = (fresh / "models/export/README.md").read_text()
    assert f"`{name}` was made and is not here" in card


def test_other_runtimes_are_tried_and_told(fresh: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("cv2")
    args = ["--set", "export.runtimes=[openvino, opencv]", "--set", "export.int8=none"]
    args += ["--set", "export.input=float"]
    checks = done(fresh, "export", *args, "--set", "export.formats=[onnx]")
    assert checks["input"] == "float"
    assert [one["runtime"].split()[0] for one in checks["tried"]] == [
        "openvino",
        "opencv-python-headless",
    ]
    for one in checks["tried"]:
        assert one["agrees"] and one["same_class"] == 1 and 0 < one["of_spread"] < 1e-3
    assert "openvino" in (fresh / "models/export/README.md").read_text()


def test_a_runtime_that_answers_otherwise_is_told_and_the_file_stays(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kd3_pipeline.export import runtimes

    def half_as_much(path: Path, kind: str, side: int) -> Any:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})[0] / 2

    def none(path: Path, kind: str, side: int) -> Any:
        raise ValueError("first\nlayer \x1b[2J is not known")

    for name, load in (("openvino", half_as_much), ("opencv", none)):
        monkeypatch.setitem(runtimes.RUNTIMES, name, runtimes.Runtime(("onnxruntime",), load))
    args = ["--set", "export.runtimes=[openvino, opencv]", "--set", "export.int8=none"]
    result = pipeline(fresh, "export", *args, "--set", "export.formats=[onnx]")
    assert result.exit_code == 0
    assert "is not the student: the same class on 100.0% of" in " ".join(result.stderr.split())
    assert "layer [2J is not known" in " ".join(result.stderr.split())
    card = (fresh / "models/export/README.md").read_text()
    assert "**not the student**" in card and "does not run in onnxruntime" in card


def test_a_runtime_that_is_not_installed_is_named(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kd3_pipeline.export import runtimes

    absent = runtimes.Runtime(("no-such-runtime",), lambda path, kind, side: None)
    monkeypatch.setitem(runtimes.RUNTIMES, "mnn", absent)
    result = pipeline(fresh, "export", "--set", "export.runtimes=[mnn]")
    assert result.exit_code == 2 and install("no-such-runtime") in result.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"licence": "Apache 2.0"}, "did you mean apache-2.0?"),
        ({"licence": "gpl3"}, "gpl-3.0"),
        ({"licence": "proprietary"}, "as mit, apache-2.0 or cc-by-4.0"),
        ({"licence": "other"}, "export.licence_name: licence 'other' needs its name"),
        ({"licence": "mit", "licence_link": "LICENSE"}, "only licence 'other' has it, not 'mit'"),
    ],
)
def test_a_licence_that_the_hub_does_not_know_is_refused_before_anything_is_done(
    given: dict[str, str], said: str, fresh: Path
) -> None:
    shutil.rmtree(fresh / "models")  # that they are gone would be said if it went further
    args = [part for key, text in given.items() for part in ("--set", f"export.{key}={text}")]
    result = pipeline(fresh, "export", *args)
    assert result.exit_code == 2 and said in result.stderr
    assert "models" not in result.stderr


def test_the_temperature_of_evaluate_goes_along(fresh: Path, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    args = ["--set", "export.formats=[]", "--set", "export.int8=none"]
    done(fresh, "export", *args)
    (cold,) = done(fresh, "predict", image)["images"]
    write_json(
        fresh / "reports/metrics.json",
        METRICS | {"student": METRICS["student"] | {"temperature": 4.0}},
    )
    done(fresh, "export", *args)
    (warm,) = done(fresh, "predict", image)["images"]
    assert warm["classes"][0]["name"] == cold["classes"][0]["name"]
    assert warm["classes"][0]["confidence"] < cold["classes"][0]["confidence"]


def test_trace_follows_an_image_from_search_to_training(world: Path) -> None:
    found = done(world, "trace", TWICE)
    assert [row["outcome"] for row in found["candidates"]] == ["stored", "duplicate"]
    assert found["stored"] and found["dedup"]["kept"]
    assert found["distill"] == {"epochs": EPOCHS, "selected": 1, "held_out": False}
    first = found["candidates"][0]
    assert (first["engine"], first["rank"]) == ("bing", 1)
    assert first["query"] == f"{NAMES[1]} photo"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (USED[:6], "selected in 3 of 4 epochs"),
        (USED[:9].upper(), "selected in 3 of 4 epochs"),
        ("https://b.example/2.jpg", "selected in 1 of 4 epochs"),
        (NEVER, "selected in 0 of 4 epochs"),
        (HELD_OUT, "held out: never trained on"),
        (DROPPED, f"dropped, near-duplicate of {USED}, 3 bits apart"),
        (LEAKED, "dropped, leaked"),
        ("https://c.example/gone.jpg", "http_error (HTTP 404)"),
    ],
)
def test_trace_says_what_became_of_it(world: Path, image: str, said: str) -> None:
    result = pipeline(world, "trace", image)
    assert result.exit_code == 0, result.output
    assert said in result.stdout


def test_trace_prints_nothing_that_a_terminal_obeys(world: Path) -> None:
    shown = pipeline(world, "trace", USED).stdout
    assert "\x1b" in TITLE and "look[2J <b>here</b>" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("0" * 8, "no id in the crawl begins with 00000000"),
        (USED[:5], "no candidate of the crawl has the address"),
        ("https://nowhere.example/", "no candidate of the crawl has the address"),
    ],
)
def test_trace_of_what_is_not_known(world: Path, image: str, said: str) -> None:
    result = pipeline(world, "trace", image)
    assert result.exit_code == 2 and said in result.stderr


def test_trace_works_after_the_crawl_alone(fresh: Path) -> None:
    shutil.rmtree(fresh / "data/dedup")
    shutil.rmtree(fresh / "data/distill")
    found = done(fresh, "trace", USED)
    assert found["stored"] and found["dedup"] is None and found["distill"] is None
    assert "distill: has not seen it" in pipeline(fresh, "trace", USED).stdout
