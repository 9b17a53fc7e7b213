"""Pixels of another side than the teacher's, and as JPEG: what is stored and what is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kd3_pipeline.embed import features as module
from kd3_pipeline.embed.arrays import ArrayWriter
from kd3_pipeline.embed.features import embed, kept_images
from kd3_pipeline.embed.storeloss import looked_at
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.images import decode
from kd3_pipeline.models.checkpoint import save_model
from kd3_pipeline.models.network import pool
from kd3_pipeline.params import Embed
from kd3_pipeline.pixels import normalise
from kd3_pipeline.store import write_table
from kd3_stages.cli import app

from .conftest import SIDE, Crawled, contents

LARGE = SIDE + 5


def embedded(crawled: Crawled, folder: Path, advance=lambda n=1, note="": None, **changes):
    section = Embed(**{"batch_size": 5} | changes)
    about = (kept_images(crawled.verdicts()), crawled.folder, crawled.network, crawled.config)
    with Engine(2) as engine:
        embed(*about, folder, section, torch.device("cpu"), torch.float32, engine, advance)
    return Embeddings.open(folder)


def answers(crawled: Crawled, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        images = normalise(torch.from_numpy(pixels), crawled.config.mean, crawled.config.std)
        return crawled.network.classify(pool(crawled.network.features(images))).numpy()


@pytest.mark.parametrize("store", ["raw", "jpeg"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_the_teacher_is_shown_the_centre_of_what_is_stored(crawled, tmp_path, store, fit):
    found = embedded(crawled, tmp_path / "embed", size=LARGE, store=store, fit=fit)
    assert found.pixels.shape == (16, LARGE, LARGE, 3)
    shown = np.array(found.centre(SIDE)[:])
    np.testing.assert_allclose(found.logits, answers(crawled, shown), rtol=1e-4, atol=1e-5)
    frame = Frame(SIDE, fit, LARGE)
    framed = np.stack([frame.of(decode(crawled.images[row].data)) for row in crawled.kept])
    off = np.abs(shown.astype(int) - framed).mean()
    assert off == 0 if store == "raw" else 0 < off < 4


@pytest.mark.parametrize("device", [False, True], ids=["threads", "processes"])
def test_jpegs_are_those_of_the_whole_images_in_order(crawled, tmp_path, monkeypatch, device):
    if device:
        monkeypatch.setattr(module, "passed_by_threads", module.passed_by_device)
    found = embedded(crawled, tmp_path / "embed", store="jpeg", jpeg_quality=95)
    assert not (tmp_path / "embed/pixels.npy").exists()
    size = (tmp_path / "embed/pixels.jpegs").stat().st_size
    assert size == np.load(tmp_path / "embed/ends.npy")[-1]
    off = np.abs(found.pixels[:].astype(int) - crawled.pixels[crawled.kept])
    assert 0 < off.mean() < 3 and off.mean(axis=(1, 2, 3)).max() < 5
    shown = found.pixels[:]
    np.testing.assert_allclose(found.logits, answers(crawled, shown), rtol=1e-4, atol=1e-5)


def test_quality_decides_the_bytes(crawled, tmp_path):
    sizes = []
    for quality in (60, 95):
        embedded(crawled, tmp_path / str(quality), store="jpeg", jpeg_quality=quality)
        sizes.append((tmp_path / str(quality) / "pixels.jpegs").stat().st_size)
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize("size", [SIDE - 1, 1])
def test_pixels_smaller_than_the_teachers_are_refused(crawled, tmp_path, size):
    with pytest.raises(UserError) as caught:
        embedded(crawled, tmp_path / "embed", size=size)
    assert f"embed.size is {size}, and the teacher takes {SIDE} pixels" in str(caught.value)
    assert f"set embed.size to {SIDE} or more" in str(caught.value)
    assert not (tmp_path / "embed").exists()


def test_of_large_pixels_a_batch_holds_few(crawled, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HELD", 3 * LARGE**2 * 2)
    steps: list[int] = []
    few = embedded(crawled, tmp_path / "few", advance=steps.append, size=LARGE)
    assert max(steps) == 2
    monkeypatch.undo()
    more = embedded(crawled, tmp_path / "more", size=LARGE)
    assert np.array_equal(few.pixels, more.pixels)
    np.testing.assert_allclose(few.logits, more.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stop", [2, 4, 6])  # within the first, second and third shard
def test_interrupted_jpegs_go_on_and_are_the_same_to_the_byte(crawled, tmp_path, stop):
    calls: list[int] = []

    def interrupted(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if len(calls) == stop:
            raise KeyboardInterrupt

    changes = {"batch_size": 3, "store": "jpeg", "size": LARGE}
    with pytest.raises(KeyboardInterrupt):
        embedded(crawled, tmp_path / "embed", advance=interrupted, **changes)
    embedded(crawled, tmp_path / "embed", **changes)
    embedded(crawled, tmp_path / "other", **changes)
    assert contents(tmp_path / "embed") == contents(tmp_path / "other")


ROWS = [b"a", b"bcd", b"", b"efghi"]
LAYOUT = {"a.npy": (np.uint8, ())}


def filled(folder: Path, rows: range, saved: int) -> None:
    """Writes `rows`, of which the first `saved` are saved."""
    with ArrayWriter(folder, len(ROWS), LAYOUT, {"all.bytes": "ends.npy"}) as arrays:
        for row in rows:
            arrays.append({"a.npy": np.full(1, row), "all.bytes": [ROWS[row]]})
            if row + 1 == saved:
                arrays.save()


@pytest.mark.parametrize("saved", [1, 2, 3])
def test_bytes_that_are_not_saved_are_written_again(tmp_path, saved):
    filled(tmp_path, range(4), saved)
    with ArrayWriter(tmp_path, 4, LAYOUT, {"all.bytes": "ends.npy"}) as arrays:
        assert arrays.saved == saved
    filled(tmp_path, range(saved, 4), 4)
    assert (tmp_path / "all.bytes").read_bytes() == b"abcdefghi"
    assert np.load(tmp_path / "ends.npy").tolist() == [1, 4, 4, 9]
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("lost", ["all.bytes", "ends.npy", "short"])
def test_bytes_that_are_not_all_there_are_written_anew(tmp_path, lost):
    filled(tmp_path, range(3), 3)
    if lost == "short":
        (tmp_path / "all.bytes").write_bytes(b"abc")
    else:
        (tmp_path / lost).unlink()
    with ArrayWriter(tmp_path, 4, LAYOUT, {"all.bytes": "ends.npy"}) as arrays:
        assert arrays.saved == 0
    filled(tmp_path, range(4), 4)
    assert (tmp_path / "all.bytes").read_bytes() == b"abcdefghi"


@pytest.fixture
def workspace(crawled: Crawled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crawled:
    monkeypatch.chdir(tmp_path)
    save_model(Path("models/teacher"), crawled.network, crawled.config)
    write_table(Path("data/dedup/images.parquet"), crawled.verdicts())
    Path("params.yaml").write_text(
        f"teacher: {{input_size: {SIDE}}}\n"
        "embed: {device: cpu, precision: float32, store: jpeg, jpeg_quality: 50}"
    )
    return crawled


def test_the_stage_says_what_its_jpegs_cost_and_lose(workspace):
    done = CliRunner().invoke(app, ["embed"])
    assert done.exit_code == 0, done.output
    files = {path.name for path in Path("data/embed").iterdir()}
    assert {"pixels.jpegs", "ends.npy"} < files and "pixels.npy" not in files
    told = json.loads(Path("reports/embed.json").read_text())["store"]
    size = sum(Path("data/embed", name).stat().st_size for name in ("pixels.jpegs", "ends.npy"))
    assert told["bytes_an_image"] == round(size / 16)
    before, after = (
        answers(workspace, workspace.pixels[workspace.kept]),
        np.load("data/embed/logits.npy"),
    )
    same = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
    assert told["images"] == 16 and told["same_class"] == round(same, 4)
    change = np.abs(before - after).mean() / before.std()
    assert 0 < told["logit_change"] == pytest.approx(change, abs=2e-4)
    assert f"{told['bytes_an_image']:,} bytes an image" in " ".join(done.stderr.split())


def test_raw_pixels_lose_nothing_and_say_nothing(workspace):
    assert CliRunner().invoke(app, ["embed", "--set", "embed.store=raw"]).exit_code == 0
    assert "store" not in json.loads(Path("reports/embed.json").read_text())


def test_a_twentieth_is_looked_at_again():
    assert [len(looked_at(total)) for total in (1, 64, 1280, 4000, 10**6)] == [1, 64, 64, 200, 512]
    assert looked_at(10**6)[[0, -1]].tolist() == [0, 10**6 - 1]


def test_params_that_store_less_than_the_teacher_takes_are_refused_before_any_work(workspace):
    done = CliRunner().invoke(app, ["embed", "--set", f"embed.size={SIDE - 2}"])
    assert done.exit_code == 2
    told = " ".join(done.output.split())
    assert f"embed.size: less than teacher.input_size ({SIDE})" in told


def test_two_at_a_time_do_not_write_one_folder(tmp_path):
    blobs = {"all.bytes": "ends.npy"}
    with ArrayWriter(tmp_path, 4, LAYOUT, blobs) as arrays:
        with pytest.raises(UserError, match="being written by another process"):
            ArrayWriter(tmp_path, 4, LAYOUT, blobs)
        arrays.append({"a.npy": np.arange(4), "all.bytes": ROWS})
        arrays.save()
    with ArrayWriter(tmp_path, 4, LAYOUT, blobs) as arrays:
        assert arrays.saved == 4
