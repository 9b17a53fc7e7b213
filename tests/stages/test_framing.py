"""Wide pictures of an odd size: every stage makes the same square of them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.frames import Frame
from kd3_pipeline.images import decode
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.distilled import load_student
from kd3_pipeline.store import StoredImage, write_shards, write_table
from kd3_stages.cli import app

SIDE, STORED, WIDE = 32, 40, 60
PARAMS = """
teacher: {{input_size: {side}}}
embed: {{fit: squash, size: {stored}, store: {store}, device: cpu, precision: float32}}
distill: {{student: resnet8, epochs: 1, batch_size: 16, lr: 0.02, held_out: 0.1, teacher_floor: 1,
  cutoff: 0.1, device: cpu, precision: float32}}
evaluate: {{test_set: tests, images: 0, latency: false, device: cpu}}
export: {{formats: [onnx]}}
"""


def wide(pixels: np.ndarray) -> bytes:
    """Three pictures beside each other."""
    out = io.BytesIO()
    Image.fromarray(np.concatenate(list(pixels), axis=1)).save(out, "PNG")
    return out.getvalue()


def command(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crawled and tested pictures that are three times as wide as they are high; a teacher."""
    folder = tmp_path_factory.mktemp("wide")
    drawn = original_images("train", 3 * (WIDE + 100), 24, 3)[0].reshape(-1, 3, 24, 24, 3)
    tests = folder / "tests"
    for number, pixels in enumerate(drawn[:WIDE]):
        place = tests / CLASS_NAMES[number % len(CLASS_NAMES)]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02}.png").write_bytes(wide(pixels))
    images = [
        StoredImage(f"{at:02x}" * 32, wide(pixels), 0, 72, 24, "PNG")
        for at, pixels in enumerate(drawn[WIDE:])
    ]
    write_shards(folder / "data/crawl", images, CLASS_NAMES)
    verdicts = {
        "id": [image.id for image in images],
        "shard": pa.array([0] * len(images), pa.int32()),
        "row": pa.array(range(len(images)), pa.int32()),
        "label": pa.array([0] * len(images), pa.int64()),
        "kept": [True] * len(images),
    }
    write_table(folder / "data/dedup/images.parquet", pa.table(verdicts))
    manifest = {"label": [0], "class": [CLASS_NAMES[0]], "id": [images[0].id]}
    write_table(folder / "data/crawl/manifest.parquet", pa.table(manifest))
    torch.manual_seed(0)
    network = build("resnet8", 10).eval()
    with torch.no_grad():
        network.classifier.weight *= 20
    about = {"name": "resnet8", "num_classes": 10}
    config = ModelConfig(about, list(CLASS_NAMES), [0.5] * 3, [0.25] * 3, SIDE, "a test")
    save_model(folder / "models/teacher", network, config)
    return folder


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_no_wide_picture_changes_its_class_between_stages(project, store, monkeypatch):
    monkeypatch.chdir(project)
    Path("params.yaml").write_text(PARAMS.format(side=SIDE, stored=STORED, store=store))
    for stage in ("embed", "distill", "evaluate"):
        command(stage, "--quiet")
    network, config = load_student(Path("models/student"), torch.device("cpu"))
    assert (config.fit, config.resize, config.input_size) == ("squash", STORED, SIDE)
    assert Embeddings.open(Path("data/embed")).pixels.shape[1:] == (STORED, STORED, 3)

    with Path("reports/predictions.csv").open() as file:
        evaluated = [row["student"] for row in csv.DictReader(file)]
    assert len(evaluated) == WIDE and len(set(evaluated)) > 1
    files = sorted(map(str, Path("tests").glob("*/*")))
    model = "models/student/model.safetensors"
    told = json.loads(command("predict", *files, "--model", model, "--json"))
    predicted = [image["classes"][0]["name"] for image in told["images"]]
    assert sum(a != b for a, b in zip(predicted, evaluated, strict=True)) == 0

    # or the test could not fail: another frame changes the class of some
    others = []
    for frame in (Frame(SIDE, "crop", STORED), Frame(SIDE, "squash")):
        pixels = np.stack([frame.of(decode(Path(path).read_bytes())) for path in files])
        images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        with torch.no_grad():
            seen = network(images).argmax(dim=1).tolist()
        others.append(
            sum(CLASS_NAMES[one] != name for one, name in zip(seen, evaluated, strict=True))
        )
    assert min(others) > 0
