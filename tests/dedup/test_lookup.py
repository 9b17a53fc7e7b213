import hashlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from kd3_pipeline.dedup import lookup
from kd3_pipeline.dedup.lookup import NewImage, comparable, fingerprints_of
from kd3_pipeline.dedup.verifier import verifier as two_looks
from kd3_pipeline.images import inspect
from tests.dedup.pictures import encoded, jpeg, scene

RADIUS, LEAST = 12, 0.85
COUNT = 20


def image(data):
    info = inspect(data, 1)
    return NewImage(hashlib.sha256(data).hexdigest(), data, info.width, info.height)


def prints(*data):
    return fingerprints_of([image(one) for one in data], "phash", False)


def edges(both):
    return two_looks(both, None)


def matches(new, stored, radius, least, verifier=edges):
    return lookup.matches(new, stored, radius, least, verifier)


@pytest.fixture(scope="module")
def stored():
    return prints(*(jpeg(scene(index)) for index in range(COUNT)))


def found(data, stored):
    hits = matches(prints(data), stored, RADIUS, LEAST)
    assert not hits.new.any()
    return hits.stored.tolist()


@pytest.mark.parametrize(
    "edit",
    [
        lambda picture: jpeg(picture.resize((200, 150)), 60),
        lambda picture: jpeg(ImageOps.mirror(picture)),
        lambda picture: jpeg(ImageOps.expand(picture, 20, "black")),
        lambda picture: encoded(picture.convert("L")),
    ],
)
def test_an_edited_copy_finds_its_original_alone(edit, stored):
    for index in (0, 7, COUNT - 1):
        assert found(edit(scene(index)), stored) == [index]


def test_another_picture_finds_nothing(stored):
    assert found(jpeg(scene(COUNT + 5)), stored) == []


def test_equal_bytes_are_found_even_where_there_is_nothing_to_compare():
    blank = encoded(Image.new("RGB", (90, 60), "navy"))
    others = prints(blank, jpeg(scene(1)), encoded(Image.new("RGB", (90, 61), "navy")))
    assert not comparable(others)[0]
    hits = matches(prints(blank), others, RADIUS, LEAST)
    assert hits.stored.tolist() == [0]
    assert (hits.distance[0], hits.similarity[0]) == (0, 1)


def test_the_most_alike_comes_first_and_equal_bytes_are_told_once(stored):
    copies = prints(jpeg(scene(3), 30), jpeg(scene(4)), jpeg(scene(3)))
    hits = matches(prints(jpeg(scene(4)), jpeg(scene(3))), copies, RADIUS, LEAST)
    assert hits.new.tolist() == [0, 1, 1]
    assert hits.stored.tolist() == [1, 2, 0]
    assert hits.similarity[1] == 1 > hits.similarity[2] > LEAST


def test_the_radius_and_the_similarity_decide(stored):
    data = jpeg(ImageOps.expand(scene(2), 12, "white").resize((211, 170)), 40)
    hits = matches(prints(data), stored, RADIUS, LEAST)
    assert hits.stored.tolist() == [2]
    alike, bits = float(hits.similarity[0]), int(hits.distance[0])
    assert not len(matches(prints(data), stored, RADIUS, alike + 0.001).new)
    assert len(matches(prints(data), stored, bits, LEAST).new)
    assert not bits or not len(matches(prints(data), stored, bits - 1, LEAST).new)


def test_the_verifier_gets_the_new_images_and_those_near_them(stored):
    asked = []

    def verifier(both):
        def verify(i, j):
            ids = both.images["id"].to_pylist()
            asked.extend((ids[a], ids[b]) for a, b in zip(i.tolist(), j.tolist(), strict=True))
            return np.ones(len(i), np.float32)

        assert both.images["shard"].to_pylist()[0] == -1
        return verify

    data = jpeg(scene(6), 55)
    hits = matches(prints(data), stored, RADIUS, LEAST, verifier)
    assert 6 in hits.stored.tolist()
    assert (image(data).id, stored.images["id"][6].as_py()) in asked


def test_what_cannot_be_read_matches_nothing(stored):
    broken = NewImage("0" * 64, jpeg(scene(5))[:300], 400, 300)
    new = fingerprints_of([broken], "phash", False)
    assert new.images["error"][0].as_py()
    assert not len(matches(new, stored, RADIUS, LEAST).new)


def test_no_images_match_nothing(stored):
    assert not len(matches(prints(), stored, RADIUS, LEAST).new)
    assert not len(matches(prints(jpeg(scene(1))), prints(), RADIUS, LEAST).new)
