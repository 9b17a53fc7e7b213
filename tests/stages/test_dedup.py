"""`pipeline dedup` beside the verdicts: what it explains, tries and refuses."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.images import decode, to_square
from pipeline.store import read_shard
from stages.cli import app
from stages.steps import dedup as deduplication
from tests.stages.workspace import run

PLANTED = 12  # of the crawled images, as 32-pixel test images


@pytest.fixture(scope="module")
def crawled(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's crawl, and a test set of which some were crawled."""
    folder = tmp_path_factory.mktemp("crawled")
    for name in ("data/crawl", "data/dedup"):
        shutil.copytree(project / name, folder / name)
    stored = [
        image for path in sorted(folder.glob("data/crawl/*-0*")) for image in read_shard(path)
    ]
    pictures = [to_square(decode(image.data), 32, "crop") for image in stored[::10][:PLANTED]]
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    rows = []
    for pixels in [*pictures, *noise]:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        rows.append({"bytes": data.getvalue(), "path": None})
    table = pa.table({"image": rows, "label": [0] * len(rows)})
    pq.write_table(table, folder / "test.parquet")
    (folder / "params.yaml").write_text("evaluate: {test_set: test.parquet}\ndedup: {leaks: true}")
    return folder


@pytest.fixture
def folder(crawled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(crawled, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def dedup(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        app(["dedup", "--quiet", *arguments], prog_name="pipeline")
    return done.value.code or 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_crawled_test_images_are_dropped_and_listed_with_their_pictures(folder, capsys):
    assert dedup("--json") == 0
    summary = json.loads(capsys.readouterr().out)
    rows = pq.read_table(folder / "data/dedup/images.parquet").to_pylist()
    leaked = {row["id"]: row["test_image"] for row in rows if row["reason"] == "leaked"}
    planted = [row["id"] for row in rows[::10][:PLANTED]]
    flat = {row["id"] for row in rows if row["reason"] == "low-information"}
    found = [id for id in planted if id in leaked]
    assert len(found) >= PLANTED - len(flat.intersection(planted)) - 1
    assert all(leaked[id] < PLANTED for id in found)  # none is taken for noise
    assert summary["leaked"] == len(leaked)
    listed = pq.read_table(folder / "data/dedup/leaks.parquet").to_pylist()
    assert {row["id"] for row in listed} >= set(found)
    shown = Image.open(io.BytesIO(listed[0]["picture"]))
    assert shown.size == (deduplication.TEST_SIDE,) * 2


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_test_set_that_cannot_be_read_costs_nothing(folder, capsys, content):
    path = folder / "test.parquet"
    path.write_bytes(content) if content else path.unlink()
    before = contents(folder / "data/dedup")
    assert dedup() == 3
    error = capsys.readouterr().err
    assert "test.parquet" in error and "dedup.leaks" in error
    assert contents(folder / "data/dedup") == before


def test_a_dry_run_shows_every_radius_and_writes_nothing(folder, capsys):
    before = contents(folder / "data/dedup")
    assert dedup("--dry-run", "--json") == 0
    radii = json.loads(capsys.readouterr().out)["radii"]
    assert [row["radius"] for row in radii] == list(range(17))
    assert radii[0]["kept"] > radii[12]["kept"]
    assert contents(folder / "data/dedup") == before
    assert not (folder / "data/dedup/leaks.parquet").exists()
    assert dedup("--dry-run") == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 18 and sum(line.startswith("*") for line in shown) == 1


def test_every_verdict_is_explained(folder, capsys):
    rows = pq.read_table(folder / "data/dedup/images.parquet").to_pylist()
    copy = next(row for row in rows if row["reason"] == "near-duplicate")
    assert dedup("--explain", copy["id"][:12]) == 0
    text = capsys.readouterr().out
    assert f"{copy['id']}: dropped as near-duplicate" in text
    assert f"looks like {copy['duplicate_of']}: {copy['distance']} of 64 bits apart" in text
    assert "from http" in text
    assert dedup("--explain", copy["duplicate_of"], "--json") == 0
    best = json.loads(capsys.readouterr().out)
    assert best["kept"] and best["members"] >= 2


@pytest.mark.parametrize(("image", "what"), [("zz", "no such image"), ("", "")])
def test_an_unknown_image_is_an_error_that_says_where_ids_are(folder, capsys, image, what):
    if not image:
        image, what = "0", "images have ids that begin so"
    assert dedup("--explain", image) == 2
    error = capsys.readouterr().err
    assert what in error and "data/dedup/images.parquet" in error


def test_it_runs_as_a_command(project):
    found = run(project, "pipeline", "dedup", "--dry-run", "--quiet")
    assert "radius" in found.stdout
