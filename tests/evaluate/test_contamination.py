import io

import numpy as np
import pytest
from PIL import Image

from pipeline.demo.domains import WEB_STYLES, draw_web, original_images
from pipeline.evaluate.contamination import contaminated
from pipeline.images import to_square


@pytest.fixture(scope="module")
def test_pixels() -> np.ndarray:
    return original_images("test", 60)[0]


def other_images(count: int, size: int = 32) -> np.ndarray:
    return original_images("train", count, size)[0]


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
    assert contaminated(test_pixels, web, rows(web)).tolist() == [17]


def test_drawings_of_the_same_shapes_are_no_copies(test_pixels):
    rng = np.random.default_rng(0)
    web = [
        to_square(draw_web(label, style, 64, rng), 32, "crop")
        for style in WEB_STYLES
        for label in range(10)
    ]
    web = np.concatenate([np.stack(web), other_images(300)])
    assert contaminated(test_pixels, web, rows(web)).tolist() == []


def test_only_the_rows_that_were_trained_on_count(test_pixels):
    web = np.concatenate([other_images(5), test_pixels[3:5]])
    assert contaminated(test_pixels, web, np.array([0, 1, 5])).tolist() == [3]
    assert contaminated(test_pixels, web, np.array([], np.int64)).tolist() == []


def test_pairs_are_judged_by_their_mean_difference_alone(test_pixels):
    # against the plain definition, on pictures that are at all distances of each other
    rng = np.random.default_rng(1)
    noise = np.linspace(0, 12, 60)[:, None, None, None] * rng.choice([-1, 1], test_pixels.shape)
    web = (np.clip(test_pixels + noise, 0, 255)).astype(np.uint8)[rng.permutation(60)]
    apart = np.abs(test_pixels[:, None].astype(int) - web[None]).mean(axis=(2, 3, 4))
    expected = np.flatnonzero((apart <= 5.0).any(axis=1)).tolist()
    assert 10 < len(expected) < 50
    assert contaminated(test_pixels, web, rows(web)).tolist() == expected


def test_sides_of_an_odd_length_are_whole(test_pixels):
    test, web = original_images("test", 20, 17)[0], other_images(20, 17)
    web[4] = test[9]
    assert contaminated(test, web, rows(web)).tolist() == [9]


def test_progress_counts_the_rows(test_pixels):
    web, done = other_images(7), []
    contaminated(test_pixels, web, np.arange(6), done.append)
    assert sum(done) == 6
