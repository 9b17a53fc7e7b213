"""Originals of fingerprinted images out of their shards, and close-ups of them."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kd3_pipeline.dedup import originals
from kd3_pipeline.dedup.fingerprints import Fingerprints, zeros
from kd3_pipeline.dedup.originals import CloseUps, Originals, close_up
from kd3_pipeline.errors import UserError
from kd3_pipeline.store import SHARD_ROWS, StoredImage, shard_paths, write_shards
from tests.dedup.pictures import encoded, jpeg, scene

SIDE = 96
ALL = np.float32([0, 0, 1, 1])


def stored(folder, files):
    """A reader of files that are written as a crawl writes them, in shards."""
    images = (
        StoredImage(f"{place:064d}", file, -1, 1, 1, "PNG") for place, file in enumerate(files)
    )
    write_shards(folder, images, [])
    places = np.arange(len(files))
    table = pa.table({"shard": places // SHARD_ROWS, "row": places % SHARD_ROWS})
    return Originals(shard_paths(folder), Fingerprints(table, **zeros(len(files))))


@pytest.mark.parametrize(
    "rows", [[0, 99, 100, 1999, 2000, 4104], [4000, 3, 2001, 3, 3, 0], [4104], []]
)
def test_rows_are_read_in_any_order_from_all_shards(tmp_path, rows):
    files = [str(place).encode() for place in range(4105)]
    read = stored(tmp_path, files)
    assert list(read(np.array(rows, np.int64))) == [files[row] for row in rows]


def test_a_shard_that_is_gone_is_an_error(tmp_path):
    read = stored(tmp_path, [b"one"])
    shard_paths(tmp_path)[0].unlink()
    with pytest.raises(UserError, match="images-00000"):
        list(read(np.array([0])))


class Counted:
    """Originals in memory that note which rows are read."""

    def __init__(self, files):
        self.files, self.asked = files, []

    def __call__(self, rows):
        self.asked += rows.tolist()
        return (self.files[row] for row in rows.tolist())


def close_ups(files, workers=1):
    read = Counted(files)
    return CloseUps(read, np.tile(ALL, (len(files), 1)), workers), read


@pytest.mark.parametrize("workers", [1, 3])
def test_close_ups_come_in_the_order_asked_for_and_are_read_once(workers):
    files = [jpeg(scene(index)) for index in range(5)]
    see, read = close_ups(files, workers)
    pictures = see(np.array([3, 0, 3, 4]), SIDE)
    assert pictures.shape == (4, SIDE, SIDE, 3)
    for picture, row in zip(pictures, (3, 0, 3, 4), strict=True):
        assert np.array_equal(picture, close_up(files[row], ALL, SIDE))
    assert sorted(read.asked) == [0, 3, 4]
    assert np.array_equal(see(np.array([4, 1]), SIDE)[0], pictures[3])
    assert sorted(read.asked) == [0, 1, 3, 4]
    see(np.array([4]), 2 * SIDE)
    assert sorted(read.asked) == [0, 1, 3, 4, 4]  # another size is another picture


def test_the_last_close_ups_are_kept_and_the_oldest_are_not(monkeypatch):
    monkeypatch.setattr(originals, "KEPT", 3 * SIDE * SIDE * 3)
    see, read = close_ups([jpeg(scene(index)) for index in range(5)])
    for row in (0, 1, 2, 0, 3, 0, 1):
        see(np.array([row]), SIDE)
    assert read.asked == [0, 1, 2, 3, 1]
    assert see.size == 3 * SIDE * SIDE * 3


def test_more_close_ups_than_are_kept_are_all_there(monkeypatch):
    monkeypatch.setattr(originals, "KEPT", SIDE * SIDE * 3)
    files = [jpeg(scene(index)) for index in range(4)]
    see, _ = close_ups(files)
    assert np.array_equal(
        see(np.array([2, 1, 3]), SIDE), [close_up(files[row], ALL, SIDE) for row in (2, 1, 3)]
    )


def test_no_rows_have_no_close_ups():
    see, _ = close_ups([jpeg(scene(0))])
    assert see(np.empty(0, np.int64), SIDE).shape == (0, SIDE, SIDE, 3)


def test_a_file_that_cannot_be_decoded_is_black():
    whole = encoded(scene(0))
    for data in (b"", b"no image", whole[: len(whole) // 2]):
        assert not close_up(data, ALL, SIDE).any()
        assert not close_up(data, np.float32([0.2, 0.2, 0.5, 0.5]), SIDE).any()


def test_a_close_up_is_of_the_part_that_was_cut_out():
    page = Image.new("RGB", (400, 300), "white")
    page.paste((200, 30, 60), (100, 90, 200, 240))
    seen = close_up(encoded(page), np.float32([0.25, 0.3, 0.5, 0.8]), SIDE)
    assert np.abs(seen.astype(int) - (200, 30, 60)).max() <= 2
    assert close_up(encoded(page), ALL, SIDE)[0, 0].tolist() == [255, 255, 255]
