"""Crops of large images: where they lie, which are kept, and what is stored of them."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d
from typer.testing import CliRunner

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.embed import features as module
from kd3_pipeline.embed.batches import Reading, batches, locate
from kd3_pipeline.embed.cropfigures import least_side
from kd3_pipeline.embed.crops import (
    SCALES,
    VIEWS,
    Crop,
    crop_boxes,
    crops_of,
    log_odds,
    surest,
    views_of,
)
from kd3_pipeline.embed.features import embed, kept_images
from kd3_pipeline.embed.finite import FITS, LOGITS_WRONG, TOO_WIDE
from kd3_pipeline.embed.passing import _kept
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import UserError
from kd3_pipeline.images import decode
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import save_model
from kd3_pipeline.models.network import pool
from kd3_pipeline.params import Embed
from kd3_pipeline.pixels import normalise
from kd3_pipeline.store import write_shards, write_table
from kd3_stages.cli import app

from .conftest import SIDE, Crawled, contents, stored

SIZES = ((16, 16), (24, 30), (40, 33), (64, 50))  # without crops, with 1, 2 and 3 scales


@pytest.fixture
def large(crawled: Crawled) -> Crawled:
    """The crawl with images of `SIZES`, in turn."""
    pixels, labels = original_images("train", 24, 64, 5)
    images = []
    for at, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        out = io.BytesIO()
        Image.fromarray(image).resize(SIZES[at % 4]).save(out, "PNG")
        one = stored(out.getvalue(), label)
        images.append(replace(one, width=SIZES[at % 4][0], height=SIZES[at % 4][1]))
    write_shards(crawled.folder, images, crawled.config.class_names)
    return replace(crawled, images=images)


def embedded(crawled: Crawled, folder: Path, advance: Any = no_progress, **changes: Any):
    engine = Engine(changes.pop("workers", 2))
    section = Embed(**{"batch_size": 3 * VIEWS, "crops": 3} | changes)
    about = (kept_images(crawled.verdicts()), crawled.folder, crawled.network, crawled.config)
    with engine:
        embed(*about, folder, section, torch.device("cpu"), torch.float32, engine, advance)
    return Embeddings.open(folder)


def answers(crawled: Crawled, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        images = normalise(torch.from_numpy(pixels), crawled.config.mean, crawled.config.std)
        return crawled.network.classify(pool(crawled.network.features(images))).numpy()


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(64, 64), (227, 131), (100, 321), (46, 46), (45, 200)])
def test_crops_cover_the_picture_and_none_is_enlarged(size, fit):
    boxes = crop_boxes(size, SIDE, fit)
    frame = size if fit == "squash" else (min(size), min(size))
    for scale, (left, top, right, bottom) in boxes:
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        assert right - left == pytest.approx(scale * frame[0])
        assert bottom - top == pytest.approx(scale * frame[1])
        assert min(right - left, bottom - top) >= SIDE - 1e-6
    fits = [scale for scale in SCALES if scale * min(size) >= SIDE]
    assert len(boxes) == 9 * len(fits) and {scale for scale, _ in boxes} == set(fits)
    if boxes:  # up to all four sides
        parts = np.array([box for _, box in boxes])
        assert parts[:, :2].min() == 0
        assert parts[:, 2:].max(axis=0).tolist() == pytest.approx(list(size))


def test_a_picture_as_small_as_the_input_has_no_crops():
    for side in (SIDE, least_side(SIDE) - 1):
        assert crops_of(Image.new("RGB", (side, side)), SIDE, "crop") == []
    assert len(crops_of(Image.new("RGB", (least_side(SIDE),) * 2), SIDE, "crop")) == 9
    assert least_side(7) == 10  # 0.7 of it, though not in binary


def test_a_crop_shows_what_lies_in_its_box():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[32:, 32:] = (0, 255, 0)
    crops = crops_of(Image.fromarray(picture), SIDE, "crop")
    (corner,) = [crop for crop in crops if crop.box == (32, 32, 64, 64)]
    assert corner.scale == 0.5 and (corner.pixels[1:, 1:] == (0, 255, 0)).all()
    (other,) = [crop for crop in crops if crop.box == (0, 0, 32, 32)]
    assert (other.pixels[:-1, :-1] == 0).all()


def test_of_crops_of_the_wholes_class_the_surest_place_of_each_scale_is_kept():
    blank, box = np.zeros((1, 1, 3), np.uint8), (0.0, 0.0, 1.0, 1.0)
    # four crops of image 0 and another class in a fifth, one of image 2
    scales = (0.7, 0.7, 0.5, 0.35, 0.35, 0.7)
    crops = [(0 if at < 5 else 2, Crop(scale, box, blank)) for at, scale in enumerate(scales)]
    tops = np.array([9.0, 9.0, 9.0, 1.0, 3.0, 2.0, 5.0, 9.0, 0.5])  # of three wholes, then these
    logits = np.stack([tops, np.zeros(9), np.zeros(9)], axis=1).astype(np.float32)
    logits[7] = (0, 9, 0)
    views = views_of(3, crops)
    assert surest(logits, views, 1).tolist() == [[6], [1], [8]]
    assert surest(logits, views, 2).tolist() == [[6, 4], [1, 1], [8, 2]]
    assert surest(logits, views, 3).tolist() == [[6, 4, 5], [1, 1, 1], [8, 2, 2]]


def test_log_odds_still_differ_where_probabilities_are_one():
    logits = np.array([[40, 0, 0], [60, 0, 0], [0.0, 0, 0]], np.float32)
    odds = log_odds(logits)
    assert odds[1] > odds[0] > 30
    assert odds[2] == pytest.approx(np.log((1 / 3) / (2 / 3)))


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_whole_images_are_as_without_crops_and_beside_them_the_surest_crops(large, tmp_path, fit):
    plain = embedded(large, tmp_path / "plain", crops=1, fit=fit)
    found = embedded(large, tmp_path / "crops", fit=fit)
    assert np.array_equal(found.pixels, plain.pixels) and found.ids == plain.ids
    np.testing.assert_allclose(found.logits, plain.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.features, plain.features, rtol=2e-3, atol=1e-3)
    crops = np.load(tmp_path / "crops" / "crops.npy")
    assert crops.shape == (16, 2, SIDE, SIDE, 3)
    for row, at in enumerate(large.kept):
        picture = decode(large.images[at].data)
        every = crops_of(picture, SIDE, fit)
        seen = found.logits[row].argmax()
        mine = answers(large, np.stack([found.pixels[row], *(one.pixels for one in every)]))[1:]
        fits = [at for at, logits in enumerate(mine) if logits.argmax() == seen]
        there = int((~np.isnan(found.crop_boxes[row, :, 0])).sum())
        assert there == min(2, len({every[at].scale for at in fits}))
        for number in range(2):
            shown, logits = crops[row, number], found.crop_logits[row, number]
            if number >= there:
                assert np.array_equal(shown, found.pixels[row])
                assert np.array_equal(logits, found.logits[row])
                continue
            box = found.crop_boxes[row, number].tolist()
            (which,) = [at for at in fits if every[at].box == pytest.approx(box, abs=1e-4)]
            assert np.array_equal(every[which].pixels, shown)
            alike = [at for at in fits if every[at].scale == every[which].scale]
            best = log_odds(mine[alike]).max()
            np.testing.assert_allclose(log_odds(logits[None]), best, rtol=1e-3, atol=1e-4)
        sure = log_odds(found.crop_logits[row, :there])
        assert (np.diff(sure) <= 0).all()


def test_without_crops_nothing_of_them_is_written(large, tmp_path):
    found = embedded(large, tmp_path / "embed", crops=1)
    assert found.crops == 1 and not list((tmp_path / "embed").glob("crop*"))
    assert found.place_pixels is found.pixels and found.place_logits is found.logits


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_a_place_is_a_crop_of_a_row(large, tmp_path, store):
    found = embedded(large, tmp_path / "embed", store=store, size=SIDE + 2, crops=4)
    assert found.crops == 4 and found.place_pixels.shape == (64, SIDE + 2, SIDE + 2, 3)
    places, whole = found.place_pixels[np.arange(64)], found.pixels[:]
    assert np.array_equal(places[:16], whole)
    shown = np.ascontiguousarray(places[:, 1:-1, 1:-1])
    np.testing.assert_allclose(found.place_logits, answers(large, shown), rtol=1e-4, atol=1e-5)
    assert np.array_equal(found.place_logits[2 * 16 + 5], found.crop_logits[5, 1])
    if store == "raw":
        assert np.array_equal(places[16 * 2 + 5], np.load(tmp_path / "embed/crops.npy")[5, 1])


def test_processes_that_decode_for_a_device_bring_the_same_crops(large, tmp_path, monkeypatch):
    one = embedded(large, tmp_path / "threads")
    monkeypatch.setattr(module, "passed_by_threads", module.passed_by_device)
    other = embedded(large, tmp_path / "processes")
    assert np.array_equal(one.place_pixels[:], other.place_pixels[:])
    np.testing.assert_allclose(one.place_logits, other.place_logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("store", ["raw", "jpeg"])
@pytest.mark.parametrize("stop", [2, 4, 6])  # within the first, second and third shard
def test_interrupted_crops_go_on_and_are_the_same_to_the_byte(large, tmp_path, store, stop):
    calls: list[int] = []

    def interrupted(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if len(calls) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded(large, tmp_path / "embed", interrupted, store=store)
    embedded(large, tmp_path / "embed", store=store)
    embedded(large, tmp_path / "other", store=store, workers=1)
    assert contents(tmp_path / "embed") == contents(tmp_path / "other")


def test_a_pass_holds_as_many_views_as_without_crops(large, tmp_path):
    steps: list[int] = []
    embedded(large, tmp_path / "embed", steps.append, batch_size=2 * VIEWS + 1)
    assert max(steps) == 2


@pytest.mark.parametrize(("verdict", "of_image"), [(LOGITS_WRONG, LOGITS_WRONG), (TOO_WIDE, FITS)])
def test_an_answer_to_a_crop_that_is_not_finite_is_its_images(large, verdict, of_image):
    (batch,) = batches(locate(kept_images(large.verdicts()), large.folder)[0][:4], large.folder, 4)
    decoded = Reading(SIDE, SIDE, "crop", crops=3)(batch)
    count = len(decoded.shown)
    verdicts = np.full(count, FITS, np.uint8)
    verdicts[-1] = verdict  # float16 does not hold its features, which are not stored
    passed = _kept(decoded, 3, np.ones((count, 2)), np.ones((count, 2)), verdicts)
    assert passed.verdicts.tolist() == [
        of_image if image == decoded.views.image[-1] else FITS for image in range(4)
    ]
    assert ("crops.npy" in passed.arrays) == (of_image == FITS)


@pytest.fixture
def workspace(large: Crawled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crawled:
    monkeypatch.chdir(tmp_path)
    save_model(Path("models/teacher"), large.network, large.config)
    write_table(Path("data/dedup/images.parquet"), large.verdicts())
    Path("params.yaml").write_text(
        f"teacher: {{input_size: {SIDE}}}\nembed: {{device: cpu, precision: float32, crops: 3}}"
    )
    return large


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_the_stage_tells_what_crops_cost_and_bring(workspace, store):
    done = CliRunner().invoke(app, ["embed", "--set", f"embed.store={store}"])
    assert done.exit_code == 0, done.output
    told = " ".join(done.stderr.split())
    large = sum(min(SIZES[at % 4]) >= least_side(SIDE) for at in workspace.kept)
    assert f"crops: {large} of 16 images have a shorter side of 23 pixels or more" in told
    assert f"up to {VIEWS} views of each, and 3 of every image are kept" in told
    found = Embeddings.open(Path("data/embed"))
    there = ~np.isnan(found.crop_boxes[:, :, 0])
    figures = json.loads(Path("reports/embed.json").read_text())["crops"]
    assert figures["kept"] == 3 and 0 < figures["images"] == there.any(axis=1).sum() <= large
    assert figures["crops"] == there.sum()
    sure = 1 / (1 + np.exp(-log_odds(found.crop_logits[there])))
    assert figures["crop_confidence"] == pytest.approx(sure.mean(), abs=1e-4)
    whole = 1 / (1 + np.exp(-log_odds(found.logits[there.any(axis=1)])))
    assert figures["whole_confidence"] == pytest.approx(whole.mean(), abs=1e-4)
    sizes = [path.stat().st_size for path in Path("data/embed").glob("crop*")]
    assert figures["bytes"] == sum(sizes) and len(sizes) == (3 if store == "raw" else 4)
    sure, whole = sure.mean(), whole.mean()
    assert f"confidence in them is {sure:.2f}, in the whole images {whole:.2f}" in told


def test_all_views_of_an_image_are_refined(workspace):
    torch.manual_seed(5)
    network = build("resnet8", len(workspace.config.class_names))
    pixels = torch.from_numpy(original_images("train", 64, SIDE, 1)[0])
    for _ in range(60):  # its running statistics are those of blurred drawings
        network(avg_pool2d(normalise(pixels, [0.5, 0.4, 0.3], [0.25] * 3), 3, 1, 1))
    save_model(Path("models/teacher"), network.eval(), workspace.config)
    assert CliRunner().invoke(app, ["embed"]).exit_code == 0
    plain = contents(Path("data/embed"))
    changes = ("--set", "embed.refine=2", "--set", "embed.refine_batch=8")
    done = CliRunner().invoke(app, ["embed", *changes])
    assert done.exit_code == 0, done.output
    assert "2 steps on 48 images and crops take about" in " ".join(done.stderr.split())
    found = contents(Path("data/embed"))
    assert {name: found[name] for name in plain} == plain
    embeddings = Embeddings.open(Path("data/embed"))
    shown, says = embeddings.training(True)
    before, said = embeddings.training(False)
    assert shown.shape == before.shape == (48, SIDE, SIDE, 3) and len(says) == len(said) == 48
    moved = (shown[:] != before[:]).any(axis=(1, 2, 3))
    assert moved.all()
    with torch.no_grad():
        images = torch.from_numpy(np.array(shown))
        seen = network(normalise(images, workspace.config.mean, workspace.config.std))
    assert np.allclose(seen, says, atol=1e-3)


def test_crops_of_images_that_are_all_small_are_refused_before_any_work(workspace):
    done = CliRunner().invoke(app, ["embed", "--set", "embed.size=60"])
    assert done.exit_code == 2 and not Path("data/embed").exists()
    told = " ".join(done.output.split())
    assert "embed.crops: none of 16 images has a shorter side of 86 pixels" in told
    assert "set embed.crops to 1" in told


@pytest.mark.parametrize("crops", [0, 5, True, "2"])
def test_one_to_four_views_are_all_there_are(crops):
    with pytest.raises(ValueError, match="crops"):
        Embed(crops=crops)


def test_a_store_of_other_crops_is_an_error_that_names_it(large, tmp_path):
    found = embedded(large, tmp_path / "embed")
    np.save(tmp_path / "embed/crops.npy", np.zeros((16, 1, SIDE, SIDE, 3), np.uint8))
    with pytest.raises(UserError, match="16 crops of 16 pixels for 16 images of 16, 2 each"):
        _ = Embeddings.open(found.folder).place_pixels
    np.save(tmp_path / "embed/crops.npy", np.zeros((16, 2, SIDE, 9, 3), np.uint8))
    with pytest.raises(UserError, match=r"crops\.npy is uint8 .*, not uint8 \[N, K, S, S, 3\]"):
        _ = Embeddings.open(found.folder).place_pixels
