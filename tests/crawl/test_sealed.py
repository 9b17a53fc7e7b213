"""The sealed shards of a crawl, read by id."""

import hashlib

import pytest

from kd3_pipeline import store
from kd3_pipeline.crawl.sealed import Sealed
from kd3_pipeline.store import StoredImage, write_shards

# in no order; some have zeros at their end, and two begin alike
IDS = [
    *(hashlib.sha256(bytes([n])).hexdigest() for n in range(6)),
    "ab" * 31 + "00",
    "ab" * 30 + "0000",
    "00" * 32,
    "ff" * 32,
    "ab" * 31 + "01",
]


def stored(id: str) -> StoredImage:
    return StoredImage(id, b"picture " + id[-6:].encode() * 3, 0, 1, 1, "PNG")


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", 4)
    write_shards(tmp_path / "sealed", map(stored, IDS), [])
    return Sealed(tmp_path / "sealed")


def test_every_image_is_found_by_its_id_in_any_order(sealed):
    assert list(sealed) == IDS
    for id in [*IDS, *reversed(IDS), *sorted(IDS)]:
        assert id in sealed
        assert sealed.read(id) == stored(id).data


@pytest.mark.parametrize(
    "id", ["", "ab", "ab" * 31, "ab" * 64, "0" * 63, "x" * 64, "ab" * 31 + "02", "\0" * 32, None]
)
def test_what_is_not_there_is_not_found(sealed, id):
    assert id not in sealed
    with pytest.raises(KeyError):
        sealed.read(id)


def test_without_shards_there_is_nothing(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        assert list(Sealed(folder)) == []
        assert IDS[0] not in Sealed(folder)


def test_a_damaged_shard_has_no_images_and_others_keep_theirs(sealed):
    damaged = sealed.folder / "images-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    again = Sealed(sealed.folder)
    assert list(again) == IDS[:4] + IDS[8:]
    assert [again.read(id) for id in again] == [stored(id).data for id in again]


def test_a_shard_more_is_among_them_at_once(tmp_path, sealed):
    new = [hashlib.sha256(bytes([n])).hexdigest() for n in range(20, 23)]
    write_shards(tmp_path / "new", map(stored, new), [])
    assert sealed.add(tmp_path / "new/images-00000.parquet") == new
    assert list(sealed) == [*IDS, *new]
    again = Sealed(sealed.folder)
    assert again.add(tmp_path / "new/images-00000.parquet") == new
    assert again.read(new[1]) == stored(new[1]).data  # there twice, which nobody minds
    again.drop(new[:1])
    assert new[0] not in again and new[1] in again and IDS[0] in again
