import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.demo.domains import WEB_STYLES, draw_web, original_images
from kd3_pipeline.evaluate import contamination, sheet
from kd3_pipeline.evaluate.sheet import contact_sheet
from kd3_pipeline.frames import to_square
from kd3_pipeline.params import Evaluate
from tests.drawings import shirt


@pytest.fixture(scope="module")
def test_pixels() -> np.ndarray:
    return original_images("test", 60)[0]


def other_images(count: int, size: int = 32) -> np.ndarray:
    return original_images("train", count, size)[0]


def contaminated(test: np.ndarray, web: np.ndarray, rows: np.ndarray, *more, **options):
    options = {"ratio": Evaluate().leak_ratio} | options
    return contamination.contaminated(test, web, rows, *more, **options).test.tolist()


def rows(images: np.ndarray) -> np.ndarray:
    return np.arange(len(images))


def through_jpeg(pixels: np.ndarray, side: int) -> np.ndarray:
    out = io.BytesIO()
    large = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    large.save(out, "JPEG", quality=85)
    return to_square(Image.open(out), 32, "crop")


@pytest.mark.parametrize(
    "copied",
    [
        lambda image: image,
        lambda image: image[:, ::-1],
        lambda image: through_jpeg(image, 256),
        lambda image: through_jpeg(image, 128)[:, ::-1],
    ],
    ids=["same", "mirrored", "large jpeg", "mirrored jpeg"],
)
def test_a_copy_is_found(test_pixels, copied):
    web = np.concatenate([other_images(40), np.stack([copied(test_pixels[17])])])
    assert contaminated(test_pixels, web, rows(web)) == [17]


def test_drawings_of_the_same_shapes_are_no_copies(test_pixels):
    rng = np.random.default_rng(0)
    web = [
        to_square(draw_web(label, style, 64, rng), 32, "crop")
        for style in WEB_STYLES
        for label in range(10)
    ]
    web = np.concatenate([np.stack(web), other_images(300)])
    assert contaminated(test_pixels, web, rows(web)) == []


def test_only_the_rows_that_were_trained_on_count(test_pixels):
    web = np.concatenate([other_images(5), test_pixels[3:5]])
    assert contaminated(test_pixels, web, np.array([0, 1, 5])) == [3]
    assert contaminated(test_pixels, web, np.array([], np.int64)) == []


def test_every_pair_within_the_mean_difference_is_looked_at(test_pixels):
    # against the plain definition, on pictures that are at all distances of each other
    rng = np.random.default_rng(1)
    noise = np.linspace(0, 12, 60)[:, None, None, None] * rng.choice([-1, 1], test_pixels.shape)
    web = (np.clip(test_pixels + noise, 0, 255)).astype(np.uint8)[rng.permutation(60)]
    apart = np.abs(test_pixels[:, None].astype(int) - web[None]).mean(axis=(2, 3, 4))
    expected = np.flatnonzero((apart <= 5.0).any(axis=1)).tolist()
    assert 10 < len(expected) < 50
    assert contaminated(test_pixels, web, rows(web), ratio=1e9) == expected


def test_sides_of_an_odd_length_are_whole(test_pixels):
    test, web = original_images("test", 20, 17)[0], other_images(20, 17)
    web[4] = test[9]
    assert contaminated(test, web, rows(web)) == [9]


def test_progress_counts_the_rows(test_pixels):
    web, done = other_images(7), []
    contaminated(test_pixels, web, np.arange(6), advance=done.append)
    assert sum(done) == 6


def test_shirts_with_other_prints_are_no_copies_and_saved_ones_are():
    test, web = (
        np.stack([np.asarray(shirt(index).resize((32, 32))) for index in range(first, first + 40)])
        for first in (0, 100)
    )
    web[30] = through_jpeg(test[7], 128)
    assert contaminated(test, web, rows(web)) == [7]
    near = contaminated(test, web, rows(web), ratio=1e9)
    assert len(near) > 20  # by their mean difference alone, these are taken for test images


def test_each_test_image_comes_with_the_web_image_that_is_nearest(test_pixels):
    web = other_images(12)
    web[3], web[9], web[10] = through_jpeg(test_pixels[5], 128), test_pixels[5], test_pixels[2]
    found = contamination.contaminated(test_pixels, web, rows(web), Evaluate().leak_ratio)
    assert (found.test.tolist(), found.web.tolist()) == ([2, 5], [10, 9])
    assert found.distance.max() < 1e-3 and found.distance.dtype == np.float32


def test_the_sheet_shows_the_nearest_pairs_first_and_obeys_no_name(test_pixels):
    found = contamination.Contamination(
        np.array([4, 7]), np.array([1, 0]), np.array([0.2, 0.01], np.float32)
    )
    ids = ["<b>one</b>", "two"]
    page = contact_sheet(found, test_pixels, other_images(2), ids, "<script>x</script>.parquet")
    assert "2 of 60 images of <bdi>&lt;script&gt;x&lt;/script&gt;.parquet</bdi> are among" in page
    assert page.index("test image 7") < page.index("0.010") < page.index("test image 4")
    assert "&lt;b&gt;one" in page and "<b>" not in page and "<script" not in page
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"data:image/png;base64,([^\"]+)", page)
    ]
    np.testing.assert_array_equal(shown[1], test_pixels[7])
    assert len(shown) == 4


def test_a_sheet_that_is_not_whole_says_so(test_pixels, monkeypatch):
    monkeypatch.setattr(sheet, "MOST", 3)
    all_rows = np.arange(60)
    found = contamination.Contamination(all_rows, all_rows, np.zeros(60, np.float32))
    page = contact_sheet(found, test_pixels, test_pixels, ["a"] * 60, "test")
    assert "3 of 60 are here" in page and page.count("<li>") == 3
