import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from kd3_pipeline.dedup.fingerprints import squashed
from kd3_pipeline.dedup.hashing import (
    KINDS,
    SHAPES,
    centre_of,
    cut_hashes,
    hashes,
    lanczos,
    library_hash,
)
from kd3_pipeline.images import decode
from tests.dedup.pictures import bits_apart, picture
from tests.dedup.real import PACS, PHOTOGRAPHS, TINY_IMAGENET, real_images

THEIRS = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "ahash": imagehash.average_hash,
    "whash": imagehash.whash,
    "crop_resistant": imagehash.crop_resistant_hash,
}


def pictures():
    return [picture(index, 20 + 7 * index, 200 - 6 * index) for index in range(24)]


def batch(images, kind):
    return hashes(np.stack([lanczos(image.convert("L"), kind) for image in images]), kind)


def theirs(images, kind):
    return [int(str(THEIRS[kind](image)), 16) for image in images]


@pytest.mark.parametrize("kind", ["phash", "dhash", "ahash", "whash"])
def test_hashes_are_those_of_imagehash(kind):
    images = [*pictures(), Image.new("RGB", (9, 9), "white"), Image.new("RGB", (300, 8), "black")]
    found = [library_hash(image, kind) for image in images]
    assert found == theirs(images, kind)
    assert len(set(found)) > 20
    assert all(0 <= value < 2**64 for value in found)


def test_the_crop_resistant_hash_is_that_of_the_largest_segment():
    drawn = Image.new("L", (300, 300), 40)
    drawn.paste(picture(1, 190, 150).convert("L").point(lambda level: 140 + level // 3), (15, 20))
    drawn.paste(230, (230, 200, 280, 280))
    sizes = []
    hashed = imagehash.crop_resistant_hash(
        drawn, hash_func=lambda part: sizes.append(part.size) or imagehash.dhash(part)
    )
    segments = str(hashed).split(",")
    assert len(segments) > 1
    largest = max(range(len(sizes)), key=lambda k: sizes[k][0] * sizes[k][1])
    assert f"{library_hash(drawn, 'crop_resistant'):016x}" == segments[largest]


def test_all_kinds_are_the_librarys_and_three_are_for_many_pictures_at_once():
    assert set(KINDS) == set(THEIRS)
    assert set(SHAPES) == {"phash", "dhash", "ahash"}


@pytest.mark.parametrize("kind", SHAPES)
def test_many_pictures_at_once_have_the_bits_of_imagehash(kind):
    images = pictures()
    found = batch(images, kind)
    assert found[:, 0].tolist() == theirs(images, kind)
    assert found[:, 1].tolist() == theirs(map(ImageOps.mirror, images), kind)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("source", [PHOTOGRAPHS, PACS, TINY_IMAGENET])
def test_many_real_images_at_once_have_the_bits_of_imagehash(source, kind):
    images = [decode(data) for data in real_images(source, 150)]
    found = batch(images, kind)
    assert found[:, 0].tolist() == theirs(images, kind)
    assert found[:, 1].tolist() == theirs(map(ImageOps.mirror, images), kind)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_hash_does_not_depend_on_what_is_hashed_beside_it(kind):
    pixels = np.stack([lanczos(image.convert("L"), kind) for image in pictures()])
    alone = [hashes(one[None], kind)[0].tolist() for one in pixels]
    assert hashes(pixels, kind).tolist() == alone
    assert hashes(pixels[:0], kind).shape == (0, 4)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_hash_of_a_cut_is_near_that_of_the_picture_cut_out(kind):
    images = [picture(index, 640, 640) for index in range(40)]
    grey = np.stack([np.asarray(squashed(i.convert("L"), 64, (0, 0, 640, 640))) for i in images])
    boxes = np.random.default_rng(0).uniform(0, 0.25, (40, 4))
    boxes[:, 2:] = 1 - boxes[:, 2:]
    cut = [
        image.crop(tuple(np.round(box * 640).astype(int).tolist()))
        for image, box in zip(images, boxes, strict=True)
    ]
    apart = bits_apart(cut_hashes(grey, boxes, kind), batch(cut, kind)[:, 0])
    assert apart.mean() < 2
    assert apart.max() <= 6
    whole = cut_hashes(grey, np.tile([0.0, 0, 1, 1], (40, 1)), kind)
    assert bits_apart(whole, batch(images, kind)[:, 0]).mean() < 1
    assert bits_apart(whole, batch(cut, kind)[:, 0]).mean() > 5


def test_the_centre_is_nine_tenths_of_each_side():
    boxes = np.array([[0, 0, 1, 1], [0.2, 0.1, 0.6, 0.9]])
    wanted = [[0.05, 0.05, 0.95, 0.95], [0.22, 0.14, 0.58, 0.86]]
    assert np.allclose(centre_of(boxes), wanted)
