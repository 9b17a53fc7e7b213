"""The rule by which a web image is a test image: distances, and the spread of a test set."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kd3_pipeline import copies
from kd3_pipeline.copies import Spread, distance
from kd3_pipeline.params import Dedup
from tests.dedup.test_verify import scene
from tests.drawings import handwritten, shirt

RATIO = Dedup().leak_ratio
BICUBIC = Image.Resampling.BICUBIC


def small(*images):
    return np.stack([np.asarray(image.resize((32, 32), BICUBIC)) for image in images])


def saved(image, quality=50):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue()))


def cut(image, left, top, right, bottom):
    return image.crop((left, top, image.width - right, image.height - bottom))


EDITS = {
    "the same": lambda image: image,
    "saved": saved,
    "scaled": lambda image: image.resize((45, 45), BICUBIC).resize(image.size, BICUBIC),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "of less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cut at a corner": lambda image: cut(image, 18, 18, 0, 0),
    "cut all round": lambda image: cut(image, 15, 15, 15, 15),
    "cut on one side": lambda image: cut(image, 0, 0, 0, 22),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_copy_is_near_and_another_picture_is_far(edit):
    web = small(*(EDITS[edit](scene(index)) for index in range(12)))
    test = small(*map(scene, range(12)))
    assert distance(web, test).max() < 0.2
    assert distance(test, web).max() < 0.2
    assert distance(web, np.roll(test, 1, axis=0)).min() > 0.5


def test_the_same_picture_is_at_0_and_one_without_contrast_at_1():
    test = small(scene(0), scene(1))
    blank = np.full_like(test, 90)
    np.testing.assert_allclose(distance(test, test), 0, atol=2e-3)
    np.testing.assert_allclose(distance(blank, test), 1, atol=1e-3)
    np.testing.assert_allclose(distance(test, blank), 1, atol=1e-3)


def test_colours_tell_pictures_apart_where_both_have_them():
    image = scene(0)
    red, green, blue = image.split()
    test, other, grey = (
        small(one)
        for one in (
            image,
            Image.merge("RGB", (blue, red, green)),
            image.convert("L").convert("RGB"),
        )
    )
    assert distance(other, test) > 0.5
    assert distance(grey, test) < 0.1


def nearest(test):
    """How far the first test image is from the nearest other one."""
    return Spread(test).nearest(np.array([0]), RATIO, np.array([False]))


def judged(web, test, ratio=RATIO):
    """Which of web images are the test images of their own row."""
    spread, rows = Spread(test), np.arange(len(web))
    nothing = np.zeros(len(web), np.float32)  # the edges agree nowhere
    return spread.judge(web, nothing, rows, rows < 0, ratio)


def test_what_is_near_depends_on_how_near_test_images_are_to_each_other():
    shirts, scenes = (small(*map(draw, range(12))) for draw in (shirt, scene))
    web = small(*(shirt(100 + index) for index in range(12)))
    alone = np.concatenate([shirts[:1], scenes])
    # other prints on the shirt: nearer than any photograph is to another, and no copies
    apart = judged(web, shirts)
    assert not apart.copy.any()
    assert judged(web[:1], alone).limit[0] > 1.5 * apart.limit[0]
    copied = small(*(saved(shirt(index)) for index in range(12)))
    assert judged(copied, shirts).copy.all()


@pytest.mark.slow
def test_digits_of_another_hand_are_no_copies_and_saved_ones_are():
    digits = handwritten()
    test, web = digits[:200], digits[200:400]
    found = np.stack([judged(np.roll(web, shift, axis=0), test).copy for shift in range(3)])
    assert found.mean() <= 0.01
    again = np.stack([np.asarray(saved(Image.fromarray(one), 75)) for one in test])
    assert judged(again, test).copy.mean() >= 0.95


def test_a_picture_that_the_test_set_has_twice_is_found():
    test = small(*map(scene, range(8)), saved(scene(0)), saved(scene(0), 30))
    web = small(scene(0).resize((90, 90), BICUBIC))
    assert judged(web, test).copy.tolist() == [True]
    assert nearest(test)[0, 0] > 0.5


def test_a_larger_ratio_finds_more_and_0_only_the_same():
    rng = np.random.default_rng(0)
    test = small(*map(scene, range(20)))
    strength = np.linspace(0, 120, 20)[:, None, None, None]
    web = (test + strength * rng.normal(size=test.shape)).clip(0, 255).astype(np.uint8)
    counts = [int(judged(web, test, ratio).copy.sum()) for ratio in (0, 0.25, 0.5, 1)]
    assert 0 < counts[0] < counts[1] < counts[2] <= counts[3] < 20


def test_like_edges_are_enough_where_light_was_cut_off():
    test, rows = small(*map(scene, range(12))), np.arange(12)
    web = small(*(ImageEnhance.Brightness(scene(index)).enhance(2) for index in rows))
    spread = Spread(test)

    def copied(web, edges):
        return spread.judge(web, np.full(12, edges, np.float32), rows, rows < 0, RATIO).copy

    assert copied(web, 0.6).sum() < 6
    assert copied(web, 0.95).sum() > 9
    assert not copied(np.roll(web, 1, axis=0), 0.95).any()  # other test images are nearer


def test_beside_a_grey_web_image_colours_make_no_test_image_lonely():
    def in_ink(image, ink):
        return ImageOps.colorize(ImageOps.invert(image.convert("L")), "black", ink)

    inks = ["red", "blue", "lime", "magenta"]
    test = small(*(in_ink(shirt(index), inks[index % 4]) for index in range(12)))
    spread, rows = Spread(test), np.arange(12)
    in_colour, in_grey = (
        spread.nearest(rows, RATIO, np.full(12, grey))[:, 0] for grey in (False, True)
    )
    assert np.median(in_grey) < 0.7 * np.median(in_colour)
    web = small(*(shirt(100 + index).convert("L").convert("RGB") for index in range(12)))
    assert not spread.judge(255 - web, np.zeros(12), rows, rows < 0, RATIO).copy.any()


def test_one_test_image_alone_has_no_neighbour():
    test = small(scene(0))
    assert nearest(test).tolist() == [[1, 1]]
    assert judged(small(saved(scene(0))), test).copy.tolist() == [True]
    assert judged(small(scene(1)), test).copy.tolist() == [False]


def test_blocks_make_no_difference(monkeypatch):
    test, web = (small(*map(scene, of)) for of in (range(9), range(4, 13)))
    once = judged(web, test)
    monkeypatch.setattr(copies, "BLOCK", 4)
    again = judged(web, test)
    np.testing.assert_allclose(once.distance, again.distance, atol=1e-5)
    np.testing.assert_allclose(once.limit, again.limit, atol=1e-5)


def test_test_images_of_any_size_are_compared():
    rows = np.arange(4)
    for side in (16, 32, 64, 100):
        test = np.stack([np.asarray(scene(index).resize((side, side), BICUBIC)) for index in rows])
        web = small(*map(scene, rows))
        assert Spread(test).judge(web, np.zeros(4), rows, rows < 0, RATIO).copy.all()
