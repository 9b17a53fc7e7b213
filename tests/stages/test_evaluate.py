"""`pipeline evaluate` alone, on networks, web images and test sets that are made here."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kd3_pipeline.console import Console
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.embeddings import write_images as write_embeddings
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.evaluate.corruptions import KINDS
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.metrics import Metrics, NetworkMetrics, StudentMetrics, read_metrics
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, load_model, save_model
from kd3_pipeline.params import Evaluate
from kd3_pipeline.pixelstore import encode_jpeg
from kd3_pipeline.store import write_json
from kd3_stages import paths
from kd3_stages.cli import app
from kd3_stages.steps.evaluate import run
from tests.one_thread import one_thread as one_thread

SIDE, WEB, HELD_OUT = 16, 160, 60
MEAN, STD = [0.5] * 3, [0.25] * 3
TEST = original_images("test", 40, SIDE)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_images(path: Path, pixels: np.ndarray, labels: np.ndarray, **more: Any) -> str:
    features = {"label": {"names": list(CLASS_NAMES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    rows = [{"bytes": png(one), "path": "x.png"} for one in pixels]
    table = pa.table({"image": rows, "label": labels, **more})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the stages before this one leave; the networks are not trained."""
    folder = tmp_path_factory.mktemp("prepared")
    networks = {}
    for seed, (who, name) in enumerate({"teacher": "resnet20", "student": "resnet8"}.items()):
        torch.manual_seed(seed)
        networks[who] = build(name, 10).eval()
        with torch.no_grad():
            networks[who].classifier.weight *= 20  # sure of something, though of nothing right
        architecture = {"name": name, "num_classes": 10}
        config = ModelConfig(architecture, list(CLASS_NAMES), MEAN, STD, SIDE, "made here")
        save_model(folder / "models" / who, networks[who], config)
    pixels = original_images("train", WEB, SIDE)[0]
    for name in ("embed", "distill", "dedup"):
        (folder / "data" / name).mkdir(parents=True)
    columns = {"row": range(WEB), "id": [f"{row:064x}" for row in range(WEB)]}
    write_embeddings(folder / "data/embed", columns | {"label": [0] * WEB}, CLASS_NAMES)
    np.save(folder / "data/embed/pixels.npy", pixels)
    logits = logits_of(networks["student"], pixels, MEAN, STD, 64, torch.device("cpu"))
    # a teacher whose classes are drawn from the student's softmax, so that a temperature exists
    noise = np.random.default_rng(0).gumbel(size=logits.shape).astype(np.float32)
    np.save(folder / "data/embed/logits.npy", logits + noise)
    held_out = np.arange(WEB) < HELD_OUT
    selection = {"held_out": held_out, "times_kept": np.where(held_out, 0, 1).astype(np.int32)}
    pq.write_table(pa.table(selection), folder / "data/distill/selection.parquet")
    write_images(folder / "test.parquet", *TEST)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that is the working directory."""
    copy = tmp_path / "project"
    shutil.copytree(prepared, copy)
    monkeypatch.chdir(copy)
    return copy


def measured(**changes: Any) -> dict[str, Any]:
    section = {"test_set": "test.parquet", "images": 0, "latency": False, "device": "cpu"}
    run(Evaluate(**(section | changes)), Console(quiet=True))
    return json.loads(paths.METRICS.read_text())


def larger(pixels: np.ndarray) -> np.ndarray:
    """The pixels with a border of other colours."""
    return np.pad(pixels, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=77)


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_stored_pixels_with_a_margin_are_judged_by_their_centres(folder: Path, store: str) -> None:
    expected = measured()
    pixels = larger(np.load("data/embed/pixels.npy"))
    web = np.array([0, WEB - 1])
    pixels[web, 3:-3, 3:-3] = TEST[0][:2]  # of the first, held out, nobody learns
    Path("data/embed/pixels.npy").unlink()
    if store == "raw":
        np.save("data/embed/pixels.npy", pixels)
    else:
        jpegs = [encode_jpeg(image, 100) for image in pixels]
        Path("data/embed/pixels.jpegs").write_bytes(b"".join(jpegs))
        np.save("data/embed/ends.npy", np.cumsum([len(one) for one in jpegs]))
    found = measured(allow_contaminated=True)
    assert (expected["contaminated"], found["contaminated"]) == (0, 1)
    fitted = (expected["student"]["temperature"], found["student"]["temperature"])
    assert fitted[0] == pytest.approx(fitted[1], rel=0.1) and fitted[0] != 1.0


def test_the_figures_that_runs_are_compared_by_are_few_and_begin_with_the_accuracy(
    folder: Path,
) -> None:
    verdicts = pa.table({"kept": [True] * WEB + [False] * 5})
    pq.write_table(verdicts, folder / "data/dedup/images.parquet")
    write_json(paths.summary("distill"), {"agreement": 0.875})
    metrics, found = measured(), json.loads(paths.FIGURES.read_text())
    assert next(iter(found)) == "accuracy" and len(found) <= 12
    assert found["accuracy"] == metrics["student"]["accuracy"]
    assert found["teacher_accuracy"] == metrics["teacher"]["accuracy"]
    assert found["calibration_error"] == metrics["student"]["ece_tempered"]
    images = {name: found[name] for name in ("crawled", "kept", "trained_on")}
    assert images == {"crawled": WEB + 5, "kept": WEB, "trained_on": WEB - HELD_OUT}
    assert found["held_out_agreement"] == 0.875
    assert found["warnings"] == len(metrics["warnings"])
    (folder / "data/dedup/images.parquet").unlink()
    paths.summary("distill").unlink()
    measured()
    now = json.loads(paths.FIGURES.read_text())
    lacking = ("crawled", "kept", "held_out_agreement")
    assert [name for name, value in now.items() if value is None] == sorted(
        lacking, key=list(found).index
    )


def test_the_metrics_have_what_their_readers_expect(folder: Path) -> None:
    found = measured(latency=True)
    assert list(found) == list(Metrics.model_fields)
    assert set(found["teacher"]) == set(NetworkMetrics.model_fields)
    assert set(found["student"]) == set(StudentMetrics.model_fields)
    assert read_metrics(paths.METRICS).model_dump(mode="json") == found
    assert [row["batch"] for row in found["student"]["latency_ms"]] == [1, 128]
    assert (found["test_images"], found["contaminated"], found["leaked"]) == (40, 0, None)
    assert sum(row["images"] for row in found["per_class"]) == 40
    assert len(found["calibration"]) == len(found["calibration_tempered"]) == 15
    assert (found["styles"], found["corruption_error"]) == ([], None)
    size = Path("models/student/model.safetensors").stat().st_size
    assert found["student"]["megabytes"] == pytest.approx(size / 1e6, abs=6e-4)
    assert found["teacher"]["architecture"] == "resnet20"
    assert "NaN" not in Path("reports/metrics.json").read_text()


def test_the_predictions_and_the_mistakes_add_up_to_the_accuracy(folder: Path) -> None:
    found = measured()
    with Path("reports/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for who in ("teacher", "student"):
        right = sum(row[who] == row["actual"] for row in rows)
        assert found[who]["accuracy"] == pytest.approx(right / 40, abs=6e-5)
    wrong = pq.read_table("data/evaluate/mistakes.parquet")
    assert len(wrong) == sum(row["student"] != row["actual"] for row in rows)
    sure = wrong["student_confidence"].to_pylist()
    assert sure == sorted(sure, reverse=True)
    assert Path("reports/corruptions.csv").read_text() == "corruption,severity,teacher,student\n"


def test_without_latency_two_runs_write_the_same_bytes(folder: Path) -> None:
    def outputs() -> dict[str, bytes]:
        measured()
        files = [*Path("reports").iterdir(), Path("data/evaluate/mistakes.parquet")]
        return {str(path): path.read_bytes() for path in files}

    assert outputs() == outputs()


def test_no_label_of_the_test_set_touches_the_temperature(folder: Path) -> None:
    pixels, labels = TEST
    shuffled = np.random.default_rng(0).permutation(labels)
    assert (shuffled != labels).any()
    write_images(Path("shuffled.parquet"), pixels, shuffled)
    first, second = measured(), measured(test_set="shuffled.parquet")
    assert first["student"]["temperature"] == second["student"]["temperature"]
    assert 0.3 < first["student"]["temperature"] < 3, "a bound would hide a difference"
    assert first["student"]["nll"] != second["student"]["nll"]


def test_the_temperature_comes_from_the_held_out_images(folder: Path) -> None:
    before = measured()["student"]["temperature"]
    logits = np.load("data/embed/logits.npy")
    np.save("data/embed/logits.npy", np.concatenate([logits[:HELD_OUT], -logits[HELD_OUT:]]))
    assert measured()["student"]["temperature"] == before
    np.save("data/embed/logits.npy", -logits)
    assert measured()["student"]["temperature"] != before


def test_too_few_held_out_images_leave_the_confidences_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = np.arange(WEB) < 49
    selection = pa.table({"held_out": few, "times_kept": np.ones(WEB, np.int32)})
    pq.write_table(selection, "data/distill/selection.parquet")
    run(Evaluate(test_set="test.parquet", latency=False, device="cpu"), Console())
    assert "49 web images are held out" in capsys.readouterr().err
    found = json.loads(Path("reports/metrics.json").read_text())
    assert found["student"]["temperature"] == 1.0
    assert found["calibration"] == found["calibration_tempered"]


def test_a_test_image_that_was_trained_on_ends_the_evaluation(folder: Path) -> None:
    pixels = np.load("data/embed/pixels.npy")
    pixels[HELD_OUT + 3], pixels[5] = TEST[0][7], TEST[0][8]  # the second one is held out
    np.save("data/embed/pixels.npy", pixels)
    with pytest.raises(ExternalError, match=r"1 of 40 images of test\.parquet .*numbers 7, from 0"):
        measured()
    assert [path.name for path in Path("reports").iterdir()] == ["contamination.html"]
    assert "test image 7" in Path("reports/contamination.html").read_text()
    assert measured(allow_contaminated=True)["contaminated"] == 1
    pixels[HELD_OUT + 3] = pixels[HELD_OUT + 4]
    np.save("data/embed/pixels.npy", pixels)
    assert measured()["contaminated"] == 0
    assert not Path("reports/contamination.html").exists()  # it was of an earlier run


def test_a_student_alone_is_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("data")
    run(Evaluate(test_set="test.parquet", latency=False, device="cpu"), Console())
    shown = capsys.readouterr()
    assert "is not there: test images were not looked for" in shown.err
    assert shown.out.startswith("evaluate: student ")
    found = json.loads(Path("reports/metrics.json").read_text())
    assert (found["contaminated"], found["leaked"]) == (None, None)
    assert found["student"]["temperature"] == 1.0


def test_leaks_that_dedup_dropped_are_counted(folder: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), "data/dedup/leaks.parquet")
    assert measured()["leaked"] == 3


def test_corruptions_fill_a_table_and_a_mean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(corruptions=True, images=6, batch_size=4)
    with Path("reports/corruptions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({(row["corruption"], row["severity"]) for row in rows}) == len(rows) == 75
    for who in ("teacher", "student"):
        error = 1 - np.mean([float(row[who]) for row in rows])
        assert found["corruption_error"][who] == pytest.approx(error, abs=6e-5)
    before = Path("reports/corruptions.csv").read_text().splitlines()
    monkeypatch.setattr("kd3_pipeline.evaluate.pair.KINDS", list(KINDS)[:3])
    measured(corruptions=True, images=6, batch_size=6)
    assert Path("reports/corruptions.csv").read_text().splitlines() == before[: 1 + 3 * 5]


def test_styles_are_measured_one_by_one(folder: Path) -> None:
    pixels, labels = TEST
    styles = ["plain"] * 25 + ["other"] * 15
    suite = write_images(Path("styles.parquet"), pixels, labels, domain=styles)
    found = measured(styles=suite)
    assert [(row["name"], row["images"]) for row in found["styles"]] == [
        ("other", 15),
        ("plain", 25),
    ]
    for who in ("teacher", "student"):
        right = sum(row["images"] * row[who] for row in found["styles"])
        assert right / 40 == pytest.approx(found[who]["accuracy"], abs=1e-3)


def test_files_of_another_run_are_told(folder: Path) -> None:
    pixels = np.load("data/embed/pixels.npy")
    np.save("data/embed/pixels.npy", pixels[:-1])
    with pytest.raises(UserError, match=r"pixels\.npy has 159 rows, .*images\.parquet 160"):
        measured()
    np.save("data/embed/pixels.npy", pixels[:, :8, :8])
    with pytest.raises(UserError, match="do not belong to one teacher and student"):
        measured()


def test_the_command_tells_a_contaminated_test_set_with_exit_code_3(folder: Path) -> None:
    Path("params.yaml").write_text("evaluate: {latency: false, device: cpu}\n")
    web = np.load("data/embed/pixels.npy")[-3:]
    write_images(Path("web.parquet"), web, np.arange(3))
    done = CliRunner().invoke(app, ["evaluate", "--test-set", "web.parquet"])
    assert done.exit_code == 3
    assert done.stderr.startswith("error: 3 of 3 images of web.parquet are among those that")
    assert "pictures in reports/contamination.html" in done.stderr
    assert Path("reports/contamination.html").is_file()
    assert "Traceback" not in done.stderr


# what the figures should not be read without


def always(who: str, label: int) -> None:
    """Makes a network answer one class, whatever it sees."""
    network, config = load_model(paths.TEACHER.parent / who, torch.device("cpu"))
    with torch.no_grad():
        network.classifier.bias[label] += 1e4
    save_model(paths.TEACHER.parent / who, network, config)


def test_a_teacher_at_chance_is_told_loudly_and_stays_in_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Evaluate(test_set="test.parquet", latency=False, device="cpu"), Console(quiet=True))
    (told,) = [line for line in read_metrics(paths.METRICS).warnings if "teacher is right" in line]
    assert "it is at chance as far as they tell" in told
    shown = capsys.readouterr().err
    assert "====" in shown and "warning: the teacher is right on" in shown


def test_a_student_of_one_class_is_told_and_its_agreement_beside_the_commonest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    always("student", 6)
    always("teacher", 6)
    run(Evaluate(test_set="test.parquet", latency=False, device="cpu"), Console())
    shown = capsys.readouterr()
    found = read_metrics(paths.METRICS)
    assert (found.agreement, found.teacher.commonest_share) == (1.0, 1.0)
    assert found.teacher.commonest_class == found.student.commonest_class == CLASS_NAMES[6]
    assert (
        f"agreement with the teacher 100.0%; always saying {CLASS_NAMES[6]}, its commonest answer,"
        " would be 100.0%" in shown.out
    )
    said = " ".join(shown.err.split())
    for who in ("teacher", "student"):
        assert f"warning: the {who} answers {CLASS_NAMES[6]} for 100.0% of the test images" in said


def test_the_metrics_say_how_each_network_is_fed_and_cut(folder: Path) -> None:
    measured()
    teacher = read_metrics(paths.METRICS).teacher
    assert (teacher.cut, teacher.input_size) == ("map", SIDE)
    assert (list(teacher.mean), list(teacher.std)) == (MEAN, STD)


# test sets as they come


def class_folders(root: Path, *names: str, images: int = 4) -> Path:
    """Folders of the first drawings, which need not show what they are called."""
    for at, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(images):
            (root / name / f"{index}.png").write_bytes(png(TEST[0][at * images + index]))
    return root


def test_a_part_of_the_classes_has_figures_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(Path("photos"), CLASS_NAMES[3], CLASS_NAMES[1], "background")
    (root / CLASS_NAMES[1] / "0.png").write_bytes(b"")
    section = Evaluate(test_set="photos", latency=False, device="cpu", images=0, broken=0.2)
    run(section, Console())
    shown = capsys.readouterr()
    found = read_metrics(paths.METRICS)
    assert (found.test_images, found.classes_measured) == (7, 2)
    assert found.left_out.model_dump() == {"broken": 1, "unlabelled": 0, "other_class": 4}
    assert [(row.name, row.images) for row in found.per_class] == [
        (CLASS_NAMES[1], 3),
        (CLASS_NAMES[3], 4),
    ]
    assert found.class_names == tuple(CLASS_NAMES)  # of which any may be the answer
    assert "on 7 images of photos (2 of the teacher's 10 classes)" in shown.out
    assert "photos has images of 2 of the teacher's 10 classes" in shown.err
    assert "4 images are of classes that the teacher does not know, and left out: background 4" in (
        shown.err
    )
    assert f"1 of 8 images cannot be read, and are left out: photos/{CLASS_NAMES[1]}/0.png" in (
        shown.err
    )


def test_an_image_that_was_trained_on_is_told_by_its_name(folder: Path) -> None:
    class_folders(Path("photos"), CLASS_NAMES[0])
    pixels = np.load("data/embed/pixels.npy")
    pixels[HELD_OUT + 3] = TEST[0][2]
    np.save("data/embed/pixels.npy", pixels)
    with pytest.raises(ExternalError, match=rf"numbers 2, from 0: {CLASS_NAMES[0]}/2\.png;"):
        measured(test_set="photos")


def test_columns_and_names_of_the_test_set_are_those_of_the_parameters(folder: Path) -> None:
    rows = [{"bytes": png(one), "path": None} for one in TEST[0]]
    table = pa.table({"shot": rows, "kind": TEST[1], "view": ["a", "b"] * 20})
    pq.write_table(table, "own.parquet")
    Path("names.json").write_text(json.dumps({str(k): n for k, n in enumerate(CLASS_NAMES)}))
    columns = {"image": "shot", "label": "kind", "style": "view"}
    of_own = {"test_set": "own.parquet", "styles": "own.parquet", "class_names": "names.json"}
    found = measured(columns=columns, **of_own)
    assert found["student"]["accuracy"] == measured()["student"]["accuracy"]
    assert [(row["name"], row["images"]) for row in found["styles"]] == [("a", 20), ("b", 20)]
    Path("names.json").write_text(json.dumps(list(reversed(CLASS_NAMES))))
    other = measured(columns=columns, **of_own)
    assert other["per_class"][0]["name"] == CLASS_NAMES[0]
    assert other["student"]["nll"] != found["student"]["nll"]
