import hashlib
import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from pipeline.dedup.hashing import HASHES, HashedImage, hash_image, hash_shard
from pipeline.images import ImageError, decode
from pipeline.store import StoredImage, shard_path, write_shards

KINDS = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "ahash": imagehash.average_hash,
    "whash": imagehash.whash,
}


def picture(index, width=70, height=50):
    """A smooth random picture."""
    coarse = np.random.default_rng(index).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG"):
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_hashes_are_those_of_imagehash(kind):
    assert set(HASHES) == set(KINDS)
    images = [picture(index, 20 + 7 * index, 90 - 6 * index) for index in range(12)]
    images += [Image.new("RGB", (9, 9), "white"), Image.new("RGB", (300, 8), "black")]
    found = [hash_image(image, kind) for image in images]
    assert found == [int(str(KINDS[kind](image)), 16) for image in images]
    assert len(set(found)) > 10
    assert all(0 <= value < 2**64 for value in found)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_those_of_imagehash(kind):
    first, second = picture(1), picture(2)
    theirs = KINDS[kind](first) - KINDS[kind](second)
    assert (hash_image(first, kind) ^ hash_image(second, kind)).bit_count() == theirs


def test_a_picture_too_small_for_wavelets_is_named():
    with pytest.raises(ImageError, match="300 x 7: whash needs 8 pixels"):
        hash_image(picture(1, 300, 7), "whash")
    assert hash_image(picture(1, 1, 1), "phash") >= 0


def stored(data, label=0, width=70, height=50):
    return StoredImage(hashlib.sha256(data).hexdigest(), data, label, width, height, "PNG")


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_is_hashed_in_order_and_broken_images_are_named(tmp_path, kind):
    good = [encoded(picture(index)) for index in range(3)]
    broken = [good[0][: len(good[0]) // 2], b"<html>"]
    tiny = encoded(picture(9, 4, 4))
    data = [good[0], broken[0], good[1], broken[1], good[2], tiny]
    write_shards(tmp_path, [stored(one, row) for row, one in enumerate(data)], [])
    found = hash_shard(shard_path(tmp_path, 0), 7, kind)
    assert [(one.id, one.shard, one.row, one.label) for one in found] == [
        (hashlib.sha256(one).hexdigest(), 7, row, row) for row, one in enumerate(data)
    ]
    assert [bool(one.error) for one in found] == [
        False, True, False, True, False, kind == "whash"
    ]  # fmt: skip
    assert found[2] == HashedImage(
        hashlib.sha256(good[1]).hexdigest(),
        7,
        2,
        2,
        70,
        50,
        len(good[1]),
        hash_image(decode(good[1]), kind),
    )
