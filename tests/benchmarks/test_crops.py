"""The benchmark of crops: every arm is valid, and a short run says what it measures."""

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import crops
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.params import Distill, Embed
from tests.distill.world import MEAN, SIDE, STD, teacher


def test_arms_are_valid_parameters():
    for views, changes in crops.ARMS.values():
        assert Embed(crops=views) and Distill(**changes)


def test_every_arm_is_run_on_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pixels, labels = original_images("train", 80, 48, 1)
    encoded = []
    for image in pixels:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        encoded.append({"bytes": out.getvalue(), "path": None})
    domain = ["photo", "sketch"] * 40
    table = pa.table({"image": encoded, "label": labels, "domain": domain})
    pq.write_table(table, tmp_path / "images.parquet")
    architecture = {"name": "resnet8", "num_classes": 10}
    names = [str(label) for label in range(10)]
    config = ModelConfig(architecture, names, MEAN, STD, SIDE, "a test")
    save_model(tmp_path / "teacher", teacher(), config)
    monkeypatch.setattr(crops, "BATCH", 16)
    data = ("--data", tmp_path / "images.parquet", "--teacher", tmp_path / "teacher")
    options = (*data, "--epochs", 1, "--seeds", 0, "--json", tmp_path / "found.json")
    monkeypatch.setattr(sys, "argv", ["crops", *map(str, options)])
    crops.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["kept"] for one in found["sure"]] == [2, 4]
    few, many = (one["crops"] for one in found["sure"])
    assert 0 < few <= 80 and few < many <= 240
    assert set(found["sure"][0]["by_domain"]) == {"photo", "sketch"}
    assert found["sure"][0]["crop_confidence"] > found["sure"][0]["whole_confidence"]
    assert {row["arm"] for row in found["runs"]} == set(crops.ARMS)
    (steps,), (held,) = ({row[key] for row in found["runs"]} for key in ("steps", "held_out"))
    assert steps == (80 - held) // 16 and 5 < held < 30
    assert "| whole images |" in capsys.readouterr().out
