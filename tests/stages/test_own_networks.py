"""Networks of one's own through the stages, to files that run without their code."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.manifest import SCHEMA
from kd3_pipeline.models import own
from kd3_pipeline.store import StoredImage, write_shards, write_table
from kd3_stages.cli import app
from tests.models.own_networks import SHAPES, source
from tests.stages.test_framing import wide

SIDE, TESTED = 32, 30
PARAMS = """
teacher: {{source: file, path: teacher.pt, architecture: "{shape}.py:Net", trust: {trust},
  class_names: {classes}, input_size: 32, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}
embed: {{device: cpu, precision: float32}}
distill: {{student: "{student}", trust: {trust}, epochs: 1, batch_size: 16, lr: 0.02, held_out: 0.1,
  teacher_floor: 1, cutoff: 0.1, device: cpu, precision: float32}}
evaluate: {{test_set: tests, images: 0, latency: false, device: cpu}}
export: {{formats: [onnx, torch, safetensors]}}
"""
RUN = """
import sys, numpy as np, torch, onnxruntime
images = np.load("images.npy")
session = onnxruntime.InferenceSession(sys.argv[1])
given = session.get_inputs()[0]
print(given.shape, given.type)
np.save("onnx.npy", session.run(None, {given.name: images})[0])
np.save("torch.npy", torch.export.load(sys.argv[2]).module()(torch.from_numpy(images)).numpy())
"""


def command(*words: str, code: int = 0) -> str:
    own._allowed.clear()
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Crawled and tested pictures."""
    drawn = original_images("train", TESTED + 60, 32, 3)[0]
    for number, pixels in enumerate(drawn[:TESTED]):
        place = tmp_path / "tests" / CLASS_NAMES[number % len(CLASS_NAMES)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    images = [
        StoredImage(f"{at:02x}" * 32, wide(pixels[None]), 0, 32, 32, "PNG")
        for at, pixels in enumerate(drawn[TESTED:])
    ]
    write_shards(tmp_path / "data/crawl", images, CLASS_NAMES)
    verdicts = {
        "id": [image.id for image in images],
        "shard": pa.array([0] * len(images), pa.int32()),
        "row": pa.array(range(len(images)), pa.int32()),
        "label": pa.array([0] * len(images), pa.int64()),
        "kept": [True] * len(images),
        "reason": [""] * len(images),
    }
    write_table(tmp_path / "data/dedup/images.parquet", pa.table(verdicts))
    about = {"label": 0, "class": CLASS_NAMES[0], "outcome": "stored"}
    known = [about | {"id": image.id, "url": f"https://e.org/{image.id}"} for image in images]
    manifest = pa.Table.from_pylist(known, schema=SCHEMA)
    write_table(tmp_path / "data/crawl/manifest.parquet", manifest)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_teacher(shape: str, student: str = "resnet8", trust: str = "true") -> None:
    """A teacher's code, its weights as its author saved them, and parameters for both."""
    Path(f"{shape}.py").write_text(source(shape), "utf-8")
    scope: dict = {"__name__": "user"}
    exec(source(shape), scope)
    torch.manual_seed(0)
    network = scope["Net"](num_classes=10)
    torch.save(network.state_dict(), "teacher.pt")
    classes = json.dumps(list(CLASS_NAMES))
    values = {"shape": shape, "student": student, "trust": trust, "classes": classes}
    Path("params.yaml").write_text(PARAMS.format(**values), "utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_teacher_and_a_student_of_ones_own_go_through_all_stages(project, shape):
    with_teacher(shape, student=f"{shape}.py:Net")
    for stage in ("teacher", "embed", "distill", "evaluate", "export"):
        command(stage, "--quiet")
    told = json.loads(Path("models/teacher/config.json").read_text("utf-8"))["architecture"]
    assert told["name"] == f"{shape}.py:Net" and told["input_size"] == SIDE
    files = {path.suffix: path for path in Path("models/export").rglob("*") if path.is_file()}
    picture = str(next(Path("tests").glob("*/*.png")))
    assert command("predict", picture)  # as params.yaml consents to the student's code
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace(": true", ": false"))
    assert "--trust" in command("predict", picture, code=2)
    Path(f"{shape}.py").unlink()
    draw = np.random.default_rng(0)
    np.save("images.npy", draw.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8))
    words = [sys.executable, "-I", "-c", RUN, str(files[".onnx"]), str(files[".pt2"])]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logits = np.load("onnx.npy")
    assert logits.shape == (3, 10) and np.ptp(logits) > 0
    np.testing.assert_allclose(np.load("torch.npy"), logits, rtol=1e-3, atol=1e-4)


def test_code_that_is_not_trusted_is_not_run(project):
    with_teacher("backbone", trust="false")
    Path("backbone.py").write_text("raise SystemExit(77)", "utf-8")
    assert "teacher.trust" in command("teacher", code=2)


def test_every_command_that_asks_a_teacher_of_ones_own_takes_the_consent(project):
    with_teacher("backbone")
    for stage in ("teacher", "embed"):
        command(stage, "--quiet")
    picture = str(next(Path("tests").glob("*/*.png")))
    assert "predicted" in command("neighbours", picture, "--json")
    params = Path("params.yaml").read_text("utf-8")
    Path("params.yaml").write_text(params.replace("trust: true", "trust: false"), "utf-8")
    Path("backbone.py").write_text("raise SystemExit(77)", "utf-8")
    for words in (["neighbours", picture], ["embed"], ["distill"], ["evaluate"], ["tune"]):
        assert "set teacher.trust" in command(*words, code=2)


def test_code_that_changed_since_the_teacher_was_made_is_refused(project):
    with_teacher("backbone")
    command("teacher", "--quiet")
    with Path("backbone.py").open("a") as file:
        file.write("# changed\n")
    assert "backbone.py is not the code that the network was made with" in command("embed", code=2)


def test_dvc_is_told_of_the_files_of_code(project):
    with_teacher("backbone", student="nets/small.py:Net")
    Path("nets").mkdir()
    Path("nets/small.py").write_text("from widths import WIDTH\n" + source("mlp"), "utf-8")
    Path("nets/widths.py").write_text("WIDTH = 4\n", "utf-8")
    from kd3_pipeline.paramfile import read_params
    from kd3_stages.steps.inputs import outside_paths

    found = outside_paths(read_params(Path("params.yaml")))
    assert "backbone.py" in found["teacher"].values()
    assert set(found["distill"].values()) == {"nets/small.py", "nets/widths.py"}


def test_a_network_of_a_hub_function_is_its_own(project):
    with_teacher("backbone")
    Path("hub").mkdir()
    text = source("backbone")
    text += "\ndef small(pretrained=False):\n    torch.manual_seed(0)\n    return Net(10)\n"
    Path("hub/hubconf.py").write_text("dependencies = ['torch']\n" + text, "utf-8")
    Path("params.yaml").write_text(
        Path("params.yaml")
        .read_text("utf-8")
        .replace(
            'source: file, path: teacher.pt, architecture: "backbone.py:Net"',
            "source: torch.hub, repository: hub, weights: small, architecture: resnet8",
        ),
        "utf-8",
    )
    told = command("teacher")
    assert "the network is the function's own" in told
    command("embed", "--quiet")
    about = json.loads(Path("models/teacher/config.json").read_text("utf-8"))["architecture"]
    assert about["name"] == "torch.hub:hub:small"
