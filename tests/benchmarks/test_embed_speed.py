"""The benchmark of embedding: it runs, and its figures are those of what it says."""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from benchmarks import embed_speed
from kd3_pipeline.store import read_shard, shard_paths


def test_a_small_run_prints_tables_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embed_speed, "DRAWN", 8)
    # a process of its own would take longer than all else
    monkeypatch.setattr(embed_speed, "in_fresh_process", lambda work, *arguments: work(*arguments))
    options = "--architecture resnet8 --images 20 --batch 8 --repeat 1 --sizes 16,40 --workers 1"
    options += (
        f" --rows 600 --width 24 --kinds auto,ivf --device cpu --json {tmp_path / 'out.json'}"
    )
    monkeypatch.setattr("sys.argv", ["embed_speed", *options.split()])
    embed_speed.main()
    found = json.loads((tmp_path / "out.json").read_text())
    text = capsys.readouterr().out
    assert text.endswith(f"```json\n{(tmp_path / 'out.json').read_text()}```\n")
    speeds, ratios = found["images_per_s"], found["ratio"]
    for loop in ("bare loop", "tuned loop"):
        expected = speeds["embed, float32"][0] / speeds[f"{loop}, float32"][0]
        assert ratios[f"{loop}, float32"] == pytest.approx(expected)
        assert f"| {loop}, float32 | {expected:.2f} |" in text
    assert [run["images"] for run in found["growth"]] == [16, 40]
    assert all(run["peak_mb"] > 50 for run in found["growth"])
    assert [index["asked"] for index in found["index"]] == ["auto", "ivf"]
    assert "| auto | Flat | 1.0000 |" in text and "Growth exponent" in text


def test_the_exponent_is_that_of_a_power_law():
    growth = [{"images": n, "seconds": 3e-4 * n**1.2} for n in (100, 500, 10_000)]
    assert embed_speed.exponent(growth) == pytest.approx(1.2)
    assert embed_speed.exponent(growth[:1]) is None


def test_a_crawl_is_filled_from_given_images_again_and_again(tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.webp")
    data = (tmp_path / "red.webp").read_bytes()

    images = pa.array([{"bytes": data, "path": ""}, {"bytes": b"b", "path": ""}])
    pq.write_table(pa.table({"image": images}), tmp_path / "images.parquet")
    assert embed_speed.fill(tmp_path / "crawl", tmp_path, 5, 0) == tmp_path.name
    (path,) = shard_paths(tmp_path / "crawl")
    assert [one.data for one in read_shard(path)] == [data, b"b", data, b"b", data]


def test_features_are_like_pooled_ones_and_of_the_seed_alone():
    features = embed_speed.features_like(300, 48, 1)
    assert features.shape == (300, 48) and features.dtype == np.float16
    assert features.min() == 0 and 0.2 < (features == 0).mean() < 0.8
    assert np.array_equal(features, embed_speed.features_like(300, 48, 1))
    assert not np.array_equal(features, embed_speed.features_like(300, 48, 2))


def test_the_loop_passes_as_many_images_as_it_says(tmp_path):
    given = argparse.Namespace(images=20, batch=8, architecture="resnet8", seed=0, side=32)
    bench = embed_speed.Bench(given, Path(tmp_path), torch.device("cpu"))
    passed = []
    bench.network.features = lambda batch: passed.append(len(batch)) or torch.zeros(8, 64, 2, 2)
    assert (
        bench.loop(bench.network, [torch.zeros(8, 3, 32, 32)] * 2, "float32") == sum(passed) == 24
    )
