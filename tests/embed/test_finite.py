"""Answers of a teacher that are no numbers, or that float16 does not hold."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kd3_pipeline.embed import features as module
from kd3_pipeline.embed.features import kept_images
from kd3_pipeline.embed.finite import (
    FEATURES_WRONG,
    FITS,
    LOGITS_WRONG,
    TOO_WIDE,
    judge,
    started_with,
)
from kd3_pipeline.embed.index import build_index, search, unit
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import save_model

from .conftest import contents, run
from .test_stage import embed
from .test_stage import workspace as workspace


@pytest.fixture
def wide(crawled, monkeypatch):
    """A function that makes the teacher's last block larger by a factor, for embed to fuse."""

    def make(factor: float) -> None:
        with torch.no_grad():
            for name, parameter in crawled.network.named_parameters():
                if name.startswith("layer3") and ("bn2" in name or "downsample.1" in name):
                    parameter *= factor

    return make


def test_features_of_every_image_are_judged():
    pooled = torch.ones(8, 3)
    logits = torch.ones(8, 2)
    pooled[1, 2] = 70_000
    pooled[2] = torch.tensor([1e-6, 0, 2e-5])
    pooled[3] = 0
    pooled[4, 0], pooled[5, 1] = torch.nan, -torch.inf
    logits[6, 1] = torch.nan
    pooled[7] = torch.tensor([65_504.0, 1e-9, 0])
    assert judge(pooled, logits).tolist() == [
        *(FITS, TOO_WIDE, TOO_WIDE, FITS),
        *(FEATURES_WRONG, FEATURES_WRONG, LOGITS_WRONG, FITS),
    ]


@pytest.mark.parametrize("factor", [1e6, 1e-7, 1e20])
def test_features_that_float16_does_not_hold_are_float32(crawled, tmp_path, wide, factor):
    before = run(crawled, tmp_path / "before")["features"].astype(np.float32)
    wide(factor)
    found = run(crawled, tmp_path / "after")
    assert found["features"].dtype == np.float32
    assert np.isfinite(found["features"]).all()
    np.testing.assert_allclose(found["features"], before * factor, rtol=2e-3, atol=1e-3 * factor)
    assert found["pixels"].shape == (16, 16, 16, 3)


def test_one_image_that_float16_does_not_hold_makes_all_of_them_float32(crawled, tmp_path, wide):
    peaks = np.abs(run(crawled, tmp_path / "before")["features"].astype(np.float64)).max(axis=1)
    largest = np.sort(peaks)[::-1]
    wide(float(65_504 / np.sqrt(largest[0] * largest[1])))  # between the two largest
    steps: list[int] = []
    found = run(crawled, tmp_path / "after", advance=steps.append)
    assert found["features"].dtype == np.float32
    assert (np.abs(found["features"]).max(axis=1) > 65_504).sum() == 1
    assert sum(steps) == 16 and min(steps) <= 0


def test_an_interrupted_pass_in_float32_goes_on_in_float32(crawled, tmp_path, wide, monkeypatch):
    wide(1e6)
    run(crawled, tmp_path / "whole")
    write = module.ArrayWriter.save
    saves: list[int] = []

    def stop(self: module.ArrayWriter) -> None:
        write(self)
        saves.append(1)
        if len(saves) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.ArrayWriter, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        run(crawled, tmp_path / "parts")
    assert started_with(tmp_path / "parts") is np.float32
    steps: list[int] = []
    run(crawled, tmp_path / "parts", advance=steps.append)
    assert steps[0] == 6 and min(steps) > 0  # nothing was done twice
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


@pytest.mark.parametrize("device", [False, True], ids=["threads", "processes"])
def test_images_without_a_finite_answer_are_named(crawled, tmp_path, wide, monkeypatch, device):
    if device:
        monkeypatch.setattr(module, "passed_by_threads", module.passed_by_device)
    before = run(crawled, tmp_path / "before")["features"].astype(np.float64)
    peaks = np.sort(np.abs(before).max(axis=1))[::-1]
    # maps are larger than their means, so more than one image may go beyond float32
    wide(float(3.4e38 / peaks[0]))
    with pytest.raises(UserError) as caught:
        run(crawled, tmp_path / "after")
    first, *lines, advice = str(caught.value).splitlines()
    assert first.startswith("the teacher's answer is not finite for ")
    assert first.endswith(" of 16 images:")
    kept = {image.id: image for image in kept_images(crawled.verdicts())}
    named = [line for line in lines if "row" in line]
    assert 1 <= len(named) <= 10
    for line in named:
        where, _, kind = line.rpartition(": ")
        image = kept[where.split("(")[1].rstrip(")")]
        assert f"images-{image.shard:05d}.parquet: row {image.row} " in where
        assert kind in ("features", "logits")
    assert advice.endswith("correct them and run `dvc repro teacher`")
    assert not (tmp_path / "after").exists()


def test_a_teacher_without_any_finite_answer_is_asked_no_more(crawled, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", 4)
    with torch.no_grad():
        crawled.network.fc.bias[3] = torch.nan
    with pytest.raises(UserError) as caught:
        run(crawled, tmp_path / "embed")
    first, *lines = str(caught.value).splitlines()
    assert "not finite for 5 of the first 5 images, and it was asked no more:" in first
    assert all(line.endswith("): logits") for line in lines[:-1])


def test_what_is_wrong_with_many_images_is_counted(crawled, tmp_path):
    with torch.no_grad():
        crawled.network.fc.bias[3] = torch.inf
    with pytest.raises(UserError) as caught:
        run(crawled, tmp_path / "embed")
    assert str(caught.value).splitlines()[-2] == "and 6 more"


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_an_index_takes_features_of_any_size(tmp_path, size):
    draws = np.random.default_rng(0).standard_normal((200, 24)).astype(np.float32)
    lengths = np.linalg.norm(unit(draws * np.float32(size)), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    build_index(draws * np.float32(size), tmp_path / "index.faiss")
    rows, cosines = search(tmp_path / "index.faiss", draws[:5] * np.float32(size), 1)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)
    assert not unit(np.zeros((2, 3), np.float32)).any()


def test_the_command_says_that_features_are_float32(workspace, wide):
    wide(1e6)
    save_model(Path("models/teacher"), workspace.network, workspace.config)
    told = embed("redundant=0.3")
    assert "does not hold the teacher's features: they are stored as float32" in told.stderr
    assert np.load("data/embed/features.npy").dtype == np.float32
    assert '"features": "float32"' in Path("reports/embed.json").read_text()
