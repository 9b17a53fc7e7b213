import resource
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from kd3_pipeline.console import no_progress
from kd3_pipeline.embed import features, passing
from kd3_pipeline.embed.batches import KeptImage
from kd3_pipeline.embed.features import kept_images
from kd3_pipeline.embed.predictions import read_logits, summarise
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.memory import MEGABYTES, allow
from kd3_pipeline.models.cutting import cut
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.params import Embed
from kd3_pipeline.store import read_table, write_shards, write_table

from .conftest import SIDE, contents, run


def test_only_kept_images_come_and_in_the_order_of_the_shards(crawled):
    kept = kept_images(crawled.verdicts())
    assert [10 * image.shard + image.row for image in kept] == crawled.kept
    assert kept[0] == KeptImage(crawled.images[1].id, 0, 1, crawled.images[1].label)


def test_a_crawl_of_which_nothing_was_kept_is_an_error_of_the_user(crawled):
    verdicts = crawled.verdicts().set_column(4, "kept", pa.array([False] * 24))
    reasons = ["low-information"] * 20 + ["leaked"] * 3 + ["near-duplicate"]
    with pytest.raises(UserError) as error:
        kept_images(verdicts.append_column("reason", pa.array(reasons)))
    text = str(error.value)
    assert "none of 24 images (20 low-information, 3 leaked, 1 near-duplicate)" in text
    assert "dedup.low_information" in text and "dedup.leak_ratio" in text
    assert "radius" not in text, "a smaller one brings nothing back"


def test_pixels_features_and_logits_are_those_of_a_direct_pass(crawled, tmp_path):
    found = run(crawled, tmp_path / "embed")
    pixels = crawled.pixels[crawled.kept]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.25
    with torch.no_grad():
        features = pool(crawled.network.features(images))
        logits = crawled.network(images)
    assert np.array_equal(found["pixels"], pixels)
    np.testing.assert_allclose(found["features"], features.numpy(), rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(found["logits"], logits.numpy(), rtol=1e-4, atol=1e-5)
    assert [found[name].dtype for name in found] == [np.uint8, np.float16, np.float32]
    assert found["features"].shape == (16, 64)


def test_the_table_says_which_image_each_row_is(crawled, tmp_path):
    run(crawled, tmp_path / "embed")
    rows = read_table(tmp_path / "embed" / "images.parquet").to_pylist()
    expected = [crawled.images[row] for row in crawled.kept]
    assert [row["row"] for row in rows] == list(range(16))
    assert [row["id"] for row in rows] == [image.id for image in expected]
    assert [row["label"] for row in rows] == [image.label for image in expected]


def test_the_batch_size_changes_nothing_but_rounding(crawled, tmp_path):
    steps: list[int] = []
    one = run(crawled, tmp_path / "one", batch_size=1, advance=steps.append)
    all_at_once = run(crawled, tmp_path / "all", batch_size=64)
    assert steps == [0] + [1] * 16
    assert np.array_equal(one["pixels"], all_at_once["pixels"])
    np.testing.assert_allclose(one["logits"], all_at_once["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_changes_no_bit(crawled, tmp_path, workers):
    run(crawled, tmp_path / "two")
    run(crawled, tmp_path / "other", workers=workers)
    assert contents(tmp_path / "two") == contents(tmp_path / "other")
    assert torch.get_num_threads() == 1  # as before


class Keeping(nn.Module):
    """A convolution and what goes into it, which waits in an attribute meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.before = x
        x = self.conv(x)
        time.sleep(0.002)
        return x + self.before


class OfKeeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.keeping = nn.Conv2d(3, 8, 3, 2, 1), Keeping()
        self.last, self.fc = nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.last(self.keeping(self.stem(x))).mean((2, 3)))


def test_a_network_that_keeps_activations_is_passed_by_one_thread_at_a_time(crawled, tmp_path):
    network = cut(OfKeeping().eval(), "keeping", 10, sides=(SIDE,))
    crawled = replace(crawled, network=network)
    run(crawled, tmp_path / "one", workers=1, batch_size=1)
    run(crawled, tmp_path / "four", workers=4, batch_size=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")


def test_passes_that_take_turns_are_told(crawled, tmp_path):
    keeping = cut(OfKeeping().eval(), "keeping", 10, sides=(SIDE,))
    section, cpu = Embed(batch_size=2), torch.device("cpu")
    for network, told in ((crawled.network, ""), (keeping, features.IN_TURN)):
        about = (kept_images(crawled.verdicts()), crawled.folder, network, crawled.config)
        place = tmp_path / network.cut / type(network).__name__
        rest = (section, cpu, torch.float32, Engine(2), no_progress)
        assert features.embed(*about, place, *rest) == told


def test_processes_that_decode_for_a_device_bring_the_same(crawled, tmp_path, monkeypatch):
    expected = run(crawled, tmp_path / "threads")
    monkeypatch.setattr(features, "passed_by_threads", features.passed_by_device)
    found = run(crawled, tmp_path / "processes")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=1e-3)
    assert np.array_equal(found["pixels"], expected["pixels"])


def test_what_a_picture_may_take_holds_in_processes_too(crawled, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "passed_by_threads", features.passed_by_device)
    allow(0.001)
    try:
        with pytest.raises(UserError, match=r"cannot be decoded: .* to decode it takes 0 MB"):
            run(crawled, tmp_path / "processes")
    finally:
        allow(MEGABYTES)


def test_in_bfloat16_logits_stay_float32_and_near(crawled, tmp_path):
    exact = run(crawled, tmp_path / "exact")
    rough = run(crawled, tmp_path / "rough", precision=torch.bfloat16)
    assert rough["logits"].dtype == np.float32
    off = np.abs(rough["logits"] - exact["logits"]).max()
    assert 0 < off < 0.05 * np.abs(exact["logits"]).max()
    bits = rough["logits"].view(np.uint32) & 0xFFFF
    assert bits.any()  # the classifier was not rounded to bfloat16


def test_images_larger_than_a_slice_are_passed_a_few_at_a_time(crawled, tmp_path, monkeypatch):
    whole = run(crawled, tmp_path / "whole", batch_size=5)
    seen = []
    teacher = passing.TeacherPass.__call__
    monkeypatch.setattr(
        passing.TeacherPass,
        "__call__",
        lambda self, pixels: seen.append(len(pixels)) or teacher(self, pixels),
    )
    monkeypatch.setattr(passing, "SLICE", 1)
    monkeypatch.setattr(passing, "FEWEST", 4)
    parts = run(crawled, tmp_path / "parts", batch_size=5)
    # of 6, 7 and 3 images that are kept in the shards: 5 and 1, 5 and 2, 3
    assert sorted(seen) == [1, 1, 1, 2, 3, 4, 4]
    np.testing.assert_allclose(parts["logits"], whole["logits"], rtol=1e-4, atol=1e-5)


def error_of(crawled, folder, **changes) -> list[str]:
    """The lines of the error; nothing is left in the folder."""
    with pytest.raises(UserError) as caught:
        run(crawled, folder, **changes)
    assert not folder.exists()
    *lines, hint = str(caught.value).splitlines()
    assert hint == "restore data/crawl with `dvc checkout`, or run `dvc repro dedup`"
    return lines


def test_all_images_that_cannot_be_read_are_named_at_once(crawled, tmp_path):
    broken = replace(crawled.images[4], data=crawled.images[4].data[:60])
    images = [*crawled.images[:4], broken, *crawled.images[5:]]
    write_shards(crawled.folder, images, crawled.config.class_names)
    kept = [*kept_images(crawled.verdicts()), KeptImage("0" * 64, 2, 7, 0)]
    kept[8] = replace(kept[8], id="0" * 64)
    assert (kept[8].shard, kept[8].row) == (1, 3)
    gone, damaged, other = error_of(crawled, tmp_path / "embed", kept=kept)
    assert gone.endswith("images-00002.parquet has no row 7")
    assert f"images-00000.parquet: row 4 ({broken.id}) cannot be decoded: " in damaged
    assert other.endswith("images-00001.parquet: row 3 is not the image that dedup saw")


def test_of_many_bad_images_ten_are_named_and_the_rest_counted(crawled, tmp_path):
    kept = [replace(image, id="0" * 64) for image in kept_images(crawled.verdicts())]
    lines = error_of(crawled, tmp_path / "embed", kept=kept)
    assert [line.partition("row ")[2].split()[0] for line in lines[:10]] == [
        str(row % 10) for row in crawled.kept[:10]
    ]
    assert lines[10:] == ["and 6 more"]


def test_a_shard_that_is_gone_is_named(crawled, tmp_path):
    (crawled.folder / "images-00002.parquet").unlink()
    (line,) = error_of(crawled, tmp_path / "embed")
    assert "images-00002.parquet not found" in line


def test_a_shard_without_images_is_named(crawled, tmp_path):
    write_table(crawled.folder / "images-00001.parquet", pa.table({"id": ["a"] * 10}))
    (line,) = error_of(crawled, tmp_path / "embed")
    assert "images-00001.parquet: column 'image': expected struct<" in line


def test_a_shard_with_damaged_pages_is_named(crawled, tmp_path):
    path = crawled.folder / "images-00001.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    lines = error_of(crawled, tmp_path / "embed", batch_size=64)
    assert len(lines) == 1 and "images-00001.parquet: rows 0 to 9 cannot be read: " in lines[0]


def test_a_teacher_is_asked_no_more_once_an_image_is_bad(crawled, tmp_path, monkeypatch):
    kept = kept_images(crawled.verdicts())
    kept[0] = replace(kept[0], id="0" * 64)
    passed = []
    monkeypatch.setattr(features.TeacherPass, "__call__", lambda self, pixels: passed.append(1))
    monkeypatch.setattr(features, "locate", lambda kept, crawl: (kept, ["before"]))
    assert len(error_of(crawled, tmp_path / "embed", kept=kept)) == 2
    assert not passed


def test_a_disk_that_takes_no_more_is_an_error_of_the_world(crawled, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # 768 bytes a picture: the first shard's six are saved, the second's are too many
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        with pytest.raises(
            ExternalError, match="embed cannot be written: File too large: make room"
        ):
            run(crawled, tmp_path / "embed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    steps: list[int] = []
    run(crawled, tmp_path / "embed", advance=steps.append)
    assert steps[0] == 6
    run(crawled, tmp_path / "other")
    assert contents(tmp_path / "embed") == contents(tmp_path / "other")


def test_a_summary_counts_what_the_teacher_says(monkeypatch):
    monkeypatch.setattr("kd3_pipeline.embed.predictions.BLOCK", 3)
    logits = np.array([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [1, 1, 1]], np.float32)
    predictions = read_logits(logits)
    found = summarise(predictions)
    assert found["images"] == 4
    assert found["confident"] == 3
    assert predictions.predicted.tolist() == [0, 1, 0, 0]
    assert [(label, rows.tolist()) for label, rows in predictions.by_class()] == [
        (0, [0, 2, 3]),
        (1, [1]),
    ]
    np.testing.assert_allclose(
        predictions.energy, [-np.log(np.exp(row).sum()) for row in logits], rtol=1e-6
    )
    sure = np.exp(9) / (np.exp(9) + 2)
    assert found["mean_confidence"] == round((3 * sure + 1 / 3) / 4, 4)


def test_a_summary_of_huge_logits_is_finite():
    predictions = read_logits(np.array([[1e4, -1e4]]))
    assert summarise(predictions)["mean_confidence"] == 1.0
    assert predictions.energy.tolist() == [-1e4]


class Wide(Network):
    """A network with weights of five dimensions, as tables of relative positions are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Conv2d(3, 4, 3)
        self.table = torch.nn.Parameter(torch.ones(1, 2, 2, 1, 1))
        self.feature_channels = 4
        self.fc = torch.nn.Linear(4, 2)


def test_a_teacher_with_weights_of_five_dimensions_is_passed(crawled):
    found = passing.TeacherPass(Wide(), crawled.config, torch.device("cpu"), torch.float32)
    assert found.network.features.weight.is_contiguous(memory_format=torch.channels_last)
    side = crawled.config.input_size
    assert found(np.zeros((2, side, side, 3), np.uint8))[1].shape == (2, 2)
