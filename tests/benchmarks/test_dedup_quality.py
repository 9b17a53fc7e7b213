"""The benchmark of dedup's quality: it runs in small, and its figures are those of what it says."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import dedup_quality
from benchmarks.dedup_edits import ALL, HELD_OUT, MORE
from benchmarks.dedup_kinds import HELD_OUT as HELD_OUT_KINDS
from benchmarks.dedup_kinds import KINDS, drawn
from benchmarks.dedup_stage import ImageDedup, Judged, dropped, flag_pairs
from benchmarks.pictures import edited, fingerprints_of
from tests.dedup.pictures import encoded, jpeg, scene


def cells(text, first):
    """Of the table row that begins so."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.fixture
def data(tmp_path):
    """Data sets of drawn scenes: two styles of three pictures, one of which is there twice."""
    for path in (dedup_quality.PACS, dedup_quality.TINY):
        (tmp_path / path).parent.mkdir()
    images = [{"bytes": jpeg(scene(index)), "path": ""} for index in (0, 1, 2, 3, 4)]
    images.append({"bytes": jpeg(scene(4), 60), "path": ""})
    styles = ["photo"] * 3 + ["sketch"] * 3
    pq.write_table(pa.table({"image": images, "domain": styles}), tmp_path / dedup_quality.PACS)
    pq.write_table(pa.table({"image": images[:2]}), tmp_path / dedup_quality.TINY)
    return tmp_path


def run(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["dedup_quality", *map(str, options)])
    dedup_quality.main()


def test_a_small_run_prints_three_tables_and_makes_sheets(data, monkeypatch, capsys):
    real = data / "real" / "squares"
    real.mkdir(parents=True)
    for name, index in (("a", 5), ("b", 5), ("c", 6)):
        (real / f"{name}.png").write_bytes(encoded(scene(index)))
    run(
        monkeypatch,
        *("--data", data, "--real", real.parent, "--each", 6, "--edited", 2),
        *("--kinds", "pens", "QR labels", "--edits", "JPEG q50", "half collage"),
        *("--sheets", data / "sheets", "--json", data / "out.json"),
    )
    text, found = capsys.readouterr().out, json.loads((data / "out.json").read_text())
    assert "imagededup is LEFT OUT" in text
    assert cells(text, "QR labels")[:3] == ["drawn, tuning", "6", "0"]
    assert cells(text, "squares")[1:3] == ["2", "0"]
    assert "squares: 1 with the pixels of another left out" in text
    assert cells(text, "JPEG q50") == ["tuning", "100.0", "100.0", "100.0", "100.0"]
    assert cells(text, "photo")[:4] == ["3", "0", "0", "0"]
    assert cells(text, "sketch")[:4] == ["3", "1", "0", "1"]
    assert cells(text, "PACS together")[:4] == ["6", "1", "0", "1"]
    (style,) = (row for row in found["styles"] if row["style"] == "sketch")
    assert style["reasons"] == {"near-duplicate": 1} and len(style["pairs"]) == 1
    with Image.open(data / "sheets/flagged.png") as flagged:
        assert np.asarray(flagged).std() > 20
    assert (data / "sheets/dropped.png").is_file()


def test_without_data_the_kinds_alone_are_measured(monkeypatch, capsys):
    run(monkeypatch, "--each", 3, "--kinds", "music scores")
    text = capsys.readouterr().out
    assert cells(text, "music scores")[1] == "3"
    assert "Edits and styles are LEFT OUT" in text


def test_what_is_dropped_is_told_with_its_reason_and_its_original():
    blank = encoded(Image.new("RGB", (60, 60), "white"))
    files = [jpeg(scene(0)), jpeg(scene(1)), jpeg(scene(0), 50), blank]
    judged = dropped(files)
    assert judged.dropped.tolist() == [False, False, True, True]
    assert judged.reasons == ["", "", "near-duplicate", "low-information"]
    assert judged.original.tolist() == [-1, -1, 0, -1]
    i, j, similarity = flag_pairs(fingerprints_of(files), files)
    assert (i.tolist(), j.tolist()) == ([0], [2]) and similarity[0] > 0.95


def test_counts_and_shares_are_of_the_pictures_dropped(monkeypatch, capsys):
    def half(files):
        gone = np.arange(len(files)) % 2 == 0
        return Judged(gone, ["low-information" if one else "" for one in gone], -np.ones(6, int))

    monkeypatch.setattr(dedup_quality, "dropped", half)
    run(monkeypatch, "--tables", "kinds", "--each", 6, "--kinds", "pens", "flags")
    text = capsys.readouterr().out
    assert cells(text, "pens") == ["drawn, tuning", "6", "3", "50.0", "3", "–", "–"]
    assert cells(text, "**all drawn, held out**") == ["", "6", "3", "50.0", "3", "–", "–"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_different_pictures_that_the_seed_decides(kind):
    files = drawn(kind, 12, 0)
    assert len({Image.open(io.BytesIO(file)).tobytes() for file in files}) == 12
    assert len({Image.open(io.BytesIO(file)).size for file in files}) == 1
    assert drawn(kind, 12, 0) == files != drawn(kind, 12, 1)


@pytest.mark.parametrize("edit", MORE)
@pytest.mark.parametrize("size", [(32, 32), (120, 90)])
def test_each_edit_changes_the_picture_and_the_seed_decides_how(edit, size):
    image = encoded(scene(3).resize(size))
    (copy,) = edited([image], ALL[edit], 0)
    assert edited([image], ALL[edit], 0) == [copy]
    changed = Image.open(io.BytesIO(copy)).resize(size)
    away = np.asarray(changed, float) - np.asarray(Image.open(io.BytesIO(image)), float)
    assert np.abs(away).mean() > 1


def test_halves_are_of_kinds_and_edits_that_there_are():
    assert KINDS.keys() > HELD_OUT_KINDS and 10 <= len(HELD_OUT_KINDS) < len(KINDS)
    assert MORE.keys() > HELD_OUT and len(ALL) >= 40


def test_a_kind_that_has_too_few_pictures_says_so(monkeypatch):
    monkeypatch.setitem(KINDS, "coins", lambda rng: (Image.new("RGB", (9, 9)), rng.integers(2)))
    with pytest.raises(ValueError, match="coins: only 2 of 3 different pictures"):
        drawn("coins", 3, 0)


def test_an_environment_without_imagededup_is_told(capfd):
    with (
        pytest.raises(SystemExit, match="is imagededup installed there"),
        ImageDedup(Path(sys.executable)) as theirs,
    ):
        theirs.judge([jpeg(scene(0))])
    assert "No module named 'imagededup'" in capfd.readouterr().err
