import io
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kd3_pipeline.dedup import leakage
from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.params import Dedup
from tests.dedup.real import PACS, PHOTOGRAPHS, other_images, real_images
from tests.dedup.test_verify import SIZE, cropped, encoded, scene

leaks = partial(leakage.leaks, similarity=Dedup().leak_similarity, ratio=Dedup().leak_ratio)
PLANTED = range(8)  # scenes that the test set has


def small(image, side=32):
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def shown_by(images, side=32):
    return np.stack([small(image, side) for image in images])


TEST = shown_by([scene(index) for index in range(12)])


def fingerprints_of(images, quality=90):
    data = [encoded(image, quality) for image in images]
    fingerprints, errors = fingerprint_images(data, "phash", False)
    width, height = np.array([image.size for image in images]).T
    return replace(
        fingerprints, images=pa.table({"width": width, "height": height, "error": errors})
    )


def nothing():
    fingerprints, _ = fingerprint_images([], "phash", False)
    none = pa.array([], pa.int32())
    table = pa.table({"width": none, "height": none, "error": pa.array([], pa.string())})
    return replace(fingerprints, images=table)


def found(images, test=TEST, **options):
    leaked = leaks(fingerprints_of(images), test, **options)
    return dict(zip(leaked.image.tolist(), leaked.test.tolist(), strict=True))


WEB = {
    "large": lambda image: image.resize((500, 500)),
    "small": lambda image: image.resize((40, 40), Image.Resampling.BICUBIC),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "mirrored": ImageOps.mirror,
    "squashed": lambda image: image.resize((300, 200)),
    "framed": lambda image: ImageOps.expand(image, 20, "white"),
    "cut by 5 % at a corner": lambda image: cropped(image, 0.05, 0.05, 1, 1),
}


@pytest.mark.parametrize("edit", WEB)
def test_planted_copies_are_found_and_nothing_else(edit):
    copies = [WEB[edit](scene(index)) for index in PLANTED]
    others = [WEB[edit](scene(100 + index)) for index in range(20)]
    assert found(others + copies) == {20 + index: index for index in PLANTED}


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_a_test_image_may_be_the_middle_of_a_web_image(share):
    edge = share / 2
    test = shown_by([cropped(scene(n), edge, edge, 1 - edge, 1 - edge) for n in PLANTED])
    assert found([scene(index) for index in PLANTED], test) == {n: n for n in PLANTED}


@pytest.mark.parametrize("size", [(300, 200), (200, 330)])
def test_a_test_image_may_be_the_centre_square_of_a_web_image(size):
    web = [scene(index, *size) for index in PLANTED]
    test = shown_by([ImageOps.fit(image, (min(size),) * 2) for image in web])
    assert found(web, test) == {n: n for n in PLANTED}


def test_an_image_that_several_test_images_look_like_goes_to_the_most_alike():
    cut = cropped(scene(0), 0, 0, 0.92, 0.92)
    test = shown_by([scene(1), cut, scene(0), cropped(scene(0), 0.1, 0, 1, 0.9)])
    assert found([scene(0), cut], test) == {0: 2, 1: 1}


@pytest.mark.parametrize("side", [16, 32, 96])
def test_test_images_may_have_any_size(side):
    test = shown_by([scene(index) for index in range(6)], side)
    assert found([scene(9), scene(4), scene(0)], test) == {1: 4, 2: 0}


def test_each_leak_comes_with_its_similarities_in_the_order_of_the_images():
    leaked = leaks(fingerprints_of([scene(3), scene(200), scene(1)]), TEST)
    assert (leaked.image.tolist(), leaked.test.tolist()) == ([0, 2], [3, 1])
    assert leaked.cosine.min() > 0.99
    assert leaked.similarity.min() > 0.95
    assert {array.dtype for array in vars(leaked).values()} == {np.dtype("i8"), np.dtype("f4")}


def test_the_least_similarity_is_kept():
    cut = [cropped(scene(index), 0, 0, 0.93, 0.93) for index in PLANTED]
    leaked = leaks(fingerprints_of(cut), TEST, similarity=0.0)
    middle = float(np.median(leaked.similarity))
    fewer = leaks(fingerprints_of(cut), TEST, similarity=middle)
    assert fewer.image.tolist() == leaked.image[leaked.similarity >= middle].tolist()
    assert 0 < len(fewer.image) < len(leaked.image)


def test_blocks_make_no_difference(monkeypatch):
    web = [WEB[edit](scene(index)) for index in range(4) for edit in WEB] + [scene(300)]
    fingerprints = fingerprints_of(web)
    once = leaks(fingerprints, TEST)
    monkeypatch.setattr(leakage, "BLOCK", 5)
    steps = []
    again = leaks(fingerprints, TEST, advance=steps.append)
    assert once.image.tolist() == again.image.tolist()
    assert once.test.tolist() == again.test.tolist()
    np.testing.assert_allclose(once.similarity, again.similarity, atol=1e-5)
    assert sum(steps) == len(web)


def test_only_the_nearest_test_images_are_compared_in_full(monkeypatch):
    compared = []
    whole = leakage.verify.similarity

    def counted(*args, **options):
        compared.append(len(args[0]))
        return whole(*args, **options)

    monkeypatch.setattr(leakage.verify, "similarity", counted)
    monkeypatch.setattr(leakage, "MOST", 3)
    test = shown_by([cropped(scene(0), 0, 0, 1 - n / SIZE, 1) for n in range(6)] + [scene(0)])
    assert found([scene(0), scene(50)], test) == {0: 0}  # of two that are the same, the first
    assert compared[0] == 3


def test_blank_test_images_and_blank_web_images_are_like_nothing():
    blank = Image.new("RGB", (SIZE, SIZE), (200, 180, 160))
    test = np.concatenate([shown_by([blank, Image.new("RGB", (9, 9))]), TEST])
    assert found([blank, scene(0), Image.new("RGB", (50, 70), "white")], test) == {1: 2}


def test_an_image_that_cannot_be_read_is_passed_over():
    fingerprints = fingerprints_of([scene(0), scene(1), scene(2)])
    error = pa.array(["", "truncated", ""])
    fingerprints = replace(fingerprints, images=fingerprints.images.set_column(2, "error", error))
    steps = []
    assert leaks(fingerprints, TEST, advance=steps.append).image.tolist() == [0, 2]
    assert sum(steps) == 3


def test_no_test_images_and_no_web_images():
    empty = [
        leaks(nothing(), TEST),
        leaks(nothing(), TEST[:0]),
        leaks(fingerprints_of([scene(0)]), TEST[:0]),
    ]
    for leaked in empty:
        assert {array.shape for array in vars(leaked).values()} == {(0,)}
    unreadable = fingerprints_of([scene(0)])
    table = unreadable.images.set_column(2, "error", pa.array(["truncated"]))
    assert len(leaks(replace(unreadable, images=table), TEST).image) == 0


@pytest.mark.parametrize(("source", "total"), [(PHOTOGRAPHS, 12), (PACS, 24)])
def test_real_test_images_are_found_in_real_web_images(source, total):
    web = [Image.open(io.BytesIO(data)).convert("RGB") for data in real_images(source, total)]
    others = other_images(source, 500)
    rng = np.random.default_rng(0)
    for share in (0, 0.05):
        places = rng.uniform(0, share, (len(web), 2))
        test = [
            small(image.crop(tuple(np.array([x, y, 1 - share + x, 1 - share + y]) * image.width)))
            for image, (x, y) in zip(web, places, strict=True)
        ]
        assert found(web, np.stack(others + test)) == {n: 500 + n for n in range(len(web))}
