"""The folder of embeddings as an object: what it maps, names and refuses."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.embeddings import (
    ENDS,
    FEATURES,
    FILES,
    IMAGES,
    JPEGS,
    LOGITS,
    PIXELS,
    Embeddings,
    has_pixels,
    write_images,
)
from kd3_pipeline.errors import UserError
from kd3_pipeline.pixelstore import decode_jpeg, encode_jpeg
from kd3_pipeline.store import write_table

NAMES = ["cat", "großer Hund", 'a "fox"']
IDS = [f"{row:064x}" for row in range(4)]
ARRAYS = {
    PIXELS: np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3),
    FEATURES: np.linspace(0, 1, 4 * 5, dtype=np.float16).reshape(4, 5),
    LOGITS: np.linspace(-1, 1, 4 * 3, dtype=np.float32).reshape(4, 3),
}


@pytest.fixture
def folder(tmp_path):
    for name, values in ARRAYS.items():
        np.save(tmp_path / name, values)
    columns = {
        "row": np.arange(4),
        "id": pa.array(IDS),
        "label": np.array([2, 0, -1, 1]),
        "off_topic": np.linspace(0, 1, 4, dtype=np.float32),
    }
    write_images(tmp_path, columns, NAMES)
    return tmp_path


def test_all_that_embed_wrote_is_read(folder):
    found = Embeddings.open(folder)
    assert (len(found), found.ids, found.class_names) == (4, IDS, NAMES)
    assert found.labels.tolist() == [2, 0, -1, 1] and found.labels.dtype == np.int64
    for name, values in (
        (PIXELS, found.pixels),
        (FEATURES, found.features),
        (LOGITS, found.logits),
    ):
        assert isinstance(values, np.memmap) and not values.flags.writeable
        assert values.dtype == ARRAYS[name].dtype and np.array_equal(values, ARRAYS[name])
    scores = found.score("off_topic", "embed.off_topic")
    assert scores.dtype == np.float32 and scores[-1] == 1
    assert found.index == folder / "index.faiss"
    assert {path.name for path in folder.iterdir()} | {"index.faiss"} == {PIXELS, *FILES}


def test_added_scores_are_columns_and_all_else_stays(folder):
    before = pq.read_table(folder / IMAGES)
    Embeddings.open(folder).add_scores({"redundant": np.array([True, False, False, True])})
    after = Embeddings.open(folder)
    assert after.images.drop_columns(["redundant"]).equals(before, check_metadata=True)
    assert after.images["redundant"].to_pylist() == [True, False, False, True]
    assert after.class_names == NAMES


def as_jpegs(folder) -> list[bytes]:
    """The same folder with its pixels as JPEG."""
    jpegs = [encode_jpeg(image, 90) for image in ARRAYS[PIXELS]]
    (folder / PIXELS).unlink()
    (folder / JPEGS).write_bytes(b"".join(jpegs))
    np.save(folder / ENDS, np.cumsum([len(one) for one in jpegs]))
    return jpegs


def test_pixels_may_be_jpegs(folder):
    jpegs = as_jpegs(folder)
    assert has_pixels(folder)
    found = Embeddings.open(folder)
    assert found.pixels.shape == (4, 8, 8, 3)
    for row, data in enumerate(jpegs):
        assert np.array_equal(found.pixels[row], decode_jpeg(data, 8))
    assert np.array_equal(found.centre(5)[:], found.pixels[:][:, 1:6, 1:6])


def test_the_centre_of_raw_pixels_is_a_view_of_the_file(folder):
    centre = Embeddings.open(folder).centre(6)
    assert np.array_equal(centre, ARRAYS[PIXELS][:, 1:7, 1:7])
    assert isinstance(centre, np.memmap)
    with pytest.raises(UserError, match="images of 8 pixels, the network takes 9: run `dvc"):
        Embeddings.open(folder).centre(9)


def test_a_folder_without_all_files_of_a_store_has_no_pixels(folder):
    assert has_pixels(folder)
    as_jpegs(folder)
    (folder / ENDS).unlink()
    assert not has_pixels(folder)


def other_columns(folder, **columns):
    table = pq.read_table(folder / IMAGES)
    for name, values in columns.items():
        table = table.drop_columns([name])
        table = table if values is None else table.append_column(name, values)
    write_table(folder / IMAGES, table)


BROKEN = {
    "no table": (lambda folder: (folder / IMAGES).unlink(), "images.parquet not found: run"),
    "no ids": (lambda folder: other_columns(folder, id=None), "images.parquet: no column 'id'"),
    "no class names": (
        lambda folder: write_table(
            folder / IMAGES, pq.read_table(folder / IMAGES).replace_schema_metadata(None)
        ),
        "images.parquet has no class names",
    ),
    "no score": (
        lambda folder: other_columns(folder, off_topic=None),
        "images.parquet has no column 'off_topic': set embed.off_topic and run `dvc repro embed`",
    ),
    "no array": (lambda folder: (folder / LOGITS).unlink(), "logits.npy not found"),
    "no numpy": (lambda folder: (folder / LOGITS).write_bytes(b"x"), "logits.npy cannot be read"),
    "pickled": (
        lambda folder: np.save(folder / LOGITS, np.array([{}] * 4), allow_pickle=True),
        "logits.npy cannot be read",
    ),
    "another crawl": (
        lambda folder: np.save(folder / FEATURES, ARRAYS[FEATURES][:3]),
        "features.npy has 3 rows",
    ),
    "no ends": (
        lambda folder: (as_jpegs(folder), (folder / ENDS).unlink()),
        "ends.npy not found",
    ),
    "ends of another crawl": (
        lambda folder: (as_jpegs(folder), np.save(folder / ENDS, np.arange(1, 4))),
        "ends.npy has 3 rows",
    ),
    "ends that are no numbers of bytes": (
        lambda folder: (as_jpegs(folder), np.save(folder / ENDS, np.ones(4))),
        "ends.npy is float64, not int64",
    ),
    "ends of other bytes": (
        lambda folder: (as_jpegs(folder), np.save(folder / ENDS, np.arange(1, 5))),
        "is not what its ends tell",
    ),
    "flat": (
        lambda folder: np.save(folder / FEATURES, np.zeros(4)),
        "features.npy has shape [4], not 2-d",
    ),
    "no squares": (
        lambda folder: np.save(folder / PIXELS, np.zeros((4, 8, 9, 3), np.uint8)),
        "pixels.npy is uint8 [4, 8, 9, 3], not uint8 [N, S, S, 3]",
    ),
    "floats": (
        lambda folder: np.save(folder / PIXELS, np.zeros((4, 8, 8, 3), np.float32)),
        "pixels.npy is float32 [4, 8, 8, 3], not uint8 [N, S, S, 3]",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_kind_of_broken_folder_is_one_error_that_says_what_to_run(folder, fault):
    break_it, text = BROKEN[fault]
    break_it(folder)
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        found = Embeddings.open(folder)
        _ = found.class_names, found.score("off_topic", "embed.off_topic")
        _ = found.pixels, found.features, found.logits
    assert "dvc repro" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused_by_whoever_reads_them(folder, value, monkeypatch):
    monkeypatch.setattr("kd3_pipeline.embeddings.BLOCK", 2)
    logits = ARRAYS[LOGITS].copy()
    logits[2, 1] = logits[3, 0] = value
    np.save(folder / LOGITS, logits)
    text = f"not finite in 2 of 4 rows, first in row 2 ({IDS[2]})"
    with pytest.raises(UserError, match=re.escape(text)):
        _ = Embeddings.open(folder).logits
