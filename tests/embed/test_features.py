from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.console import no_progress
from pipeline.embed.features import KeptImage, embed, kept_images
from pipeline.embed.summary import summarise
from pipeline.errors import UserError
from pipeline.models.network import pool
from pipeline.store import read_table, write_shards

CPU = torch.device("cpu")


def run(crawled, folder, batch_size=5, kept=None, advance=no_progress):
    embed(
        kept_images(crawled.verdicts()) if kept is None else kept,
        crawled.folder,
        crawled.network,
        crawled.config,
        folder,
        batch_size=batch_size,
        fit="crop",
        device=CPU,
        advance=advance,
    )
    return {name: np.load(folder / f"{name}.npy") for name in ("pixels", "features", "logits")}


def test_only_kept_images_come_and_in_the_order_of_the_shards(crawled):
    kept = kept_images(crawled.verdicts())
    assert [10 * image.shard + image.row for image in kept] == crawled.kept
    assert kept[0] == KeptImage(crawled.images[1].id, 0, 1, crawled.images[1].label)


def test_a_crawl_of_which_nothing_was_kept_is_an_error_of_the_user(crawled):
    verdicts = crawled.verdicts().set_column(4, "kept", pa.array([False] * 24))
    with pytest.raises(UserError, match=r"kept no image: crawl more, or lower dedup\.radius"):
        kept_images(verdicts)


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
    assert steps == [1] * 16
    assert np.array_equal(one["pixels"], all_at_once["pixels"])
    np.testing.assert_allclose(one["logits"], all_at_once["logits"], rtol=1e-4, atol=1e-5)


def test_an_image_that_is_not_the_one_dedup_saw_is_named(crawled, tmp_path):
    kept = kept_images(crawled.verdicts())
    kept[8] = replace(kept[8], id="0" * 64)
    assert (kept[8].shard, kept[8].row) == (1, 3)
    with pytest.raises(UserError, match=r"images-00001\.parquet: row 3 is not the image.*dedup"):
        run(crawled, tmp_path / "embed", kept=kept)


def test_a_shard_that_is_gone_is_named(crawled, tmp_path):
    (crawled.folder / "images-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"crawl has no shard 2: run `dvc repro dedup`"):
        run(crawled, tmp_path / "embed")


def test_a_row_beyond_the_end_of_its_shard_is_named(crawled, tmp_path):
    kept = [*kept_images(crawled.verdicts()), KeptImage("0" * 64, 2, 7, 0)]
    with pytest.raises(UserError, match=r"images-00002\.parquet has no row 7"):
        run(crawled, tmp_path / "embed", kept=kept)


def test_an_image_that_cannot_be_decoded_is_named(crawled, tmp_path):
    broken = replace(crawled.images[4], data=crawled.images[4].data[:60])
    images = [*crawled.images[:4], broken, *crawled.images[5:]]
    write_shards(crawled.folder, images, crawled.config.class_names)
    pattern = rf"images-00000\.parquet: row 4 \({broken.id}\) cannot be decoded"
    with pytest.raises(UserError, match=pattern):
        run(crawled, tmp_path / "embed")


def test_a_summary_counts_what_the_teacher_says():
    logits = np.array([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [1, 1, 1]], np.float32)
    found = summarise(logits, ["a", "b", "c"])
    assert found["images"] == 4
    assert found["confident"] == 3
    predicted = {row["name"]: row["images"] for row in found["predicted"]}
    assert predicted == {"a": 3, "b": 1, "c": 0}
    sure = np.exp(9) / (np.exp(9) + 2)
    assert found["mean_confidence"] == round((3 * sure + 1 / 3) / 4, 4)


def test_a_summary_of_huge_logits_is_finite():
    assert summarise(np.array([[1e4, -1e4]]), ["a", "b"])["mean_confidence"] == 1.0
