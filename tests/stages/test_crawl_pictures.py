"""`pipeline crawl` over pictures that later stages could not read, or would show otherwise."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from kd3_pipeline.images import decode
from kd3_pipeline.manifest import read_manifest
from kd3_pipeline.store import read_shard, shard_paths
from kd3_stages.cli import app
from tests.test_damage import encoded, overwritten, photograph


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        (folder / f"fine-{seed}.jpg").write_bytes(encoded(photograph(seed)))
    broken = overwritten(encoded(photograph(3)), bytes(512))
    (folder / "overwritten.jpg").write_bytes(broken)
    Image.new("RGB", (70_000, 20), "red").save(folder / "long.png")
    values = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(folder / "twelve-bits.png")
    Path("params.yaml").write_text("crawl: {engine: files, source: pictures}")
    return folder


def crawl(*changes: str) -> tuple[Result, dict[str, dict[str, object]]]:
    """What the command says, and the manifest's rows by the file's stem."""
    options = [word for change in changes for word in ("--set", f"crawl.{change}")]
    result = CliRunner().invoke(app, ["crawl", *options])
    assert result.exit_code == 0, result.output
    rows = read_manifest(Path("data/crawl/manifest.parquet")).to_pylist()
    return result, {Path(row["url"]).stem: row for row in rows}


def test_each_has_a_row_and_is_told_of(pictures):
    result, rows = crawl()
    outcomes = Counter(row["outcome"] for row in rows.values())
    assert outcomes == {"stored": 4, "damaged": 1, "too_many_pixels": 1}
    assert rows["long"]["detail"] == "70000 x 20: a side of more than 65,535 pixels"
    assert rows["overwritten"]["outcome"] == "damaged" and rows["overwritten"]["detail"]
    assert rows["twelve-bits"]["detail"] == "values of 12 bits in 16: brightened 16×"
    assert "note: 1 JPEGs are refused because data is missing or was overwritten" in result.stderr
    assert "note: 1 images of 16 bits use fewer, and are read as such" in result.stderr
    assert json.loads(Path("reports/crawl.json").read_text())["brightened"] == 1
    (shard,) = shard_paths(Path("data/crawl"))
    assert all(decode(image.data).width for image in read_shard(shard))


def test_damaged_pictures_may_be_kept(pictures):
    result, rows = crawl("damaged=keep")
    assert rows["overwritten"]["outcome"] == "stored"
    assert "overwritten" not in result.stderr
