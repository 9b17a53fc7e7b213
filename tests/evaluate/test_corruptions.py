import io

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.evaluate.corruptions import KINDS, SEVERITIES, corrupted, corruption_error
from kd3_pipeline.evaluate.warp import motion, zoomed
from kd3_pipeline.evaluate.weather import plasma

PAPER = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return original_images("test", 24)[0]


def change(pixels: np.ndarray, kind: str, severity: int) -> float:
    found = corrupted(pixels, kind, severity)
    return float(np.abs(found.astype(int) - pixels).mean())


def test_the_kinds_are_the_papers():
    assert list(KINDS) == PAPER
    assert all(len(constants) == len(SEVERITIES) for _, constants in KINDS.values())


@pytest.mark.parametrize("kind", PAPER)
@pytest.mark.parametrize("side", [32, 24])
def test_shape_and_type_stay_at_every_severity(kind, side):
    images = original_images("test", 3, side)[0]
    for severity in SEVERITIES:
        found = corrupted(images, kind, severity)
        assert (found.shape, found.dtype) == (images.shape, np.uint8)
        assert (found != images).any()


# the elastic transform begins with its strongest tilt, as published, so its pixels move least at 5
@pytest.mark.parametrize("kind", [kind for kind in PAPER if kind != "elastic_transform"])
def test_severity_5_changes_more_than_severity_1(pixels, kind):
    assert change(pixels, kind, 5) > change(pixels, kind, 1) > 0.1


@pytest.mark.parametrize("kind", PAPER)
def test_an_image_is_corrupted_alike_in_every_batch(pixels, kind):
    whole = corrupted(pixels, kind, 3, seed=7)
    parts = [
        corrupted(pixels[start : start + size], kind, 3, seed=7, first=start)
        for start, size in ((0, 1), (1, 10), (11, 13))
    ]
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("kind", ["gaussian_noise", "glass_blur", "snow", "elastic_transform"])
def test_images_severities_and_seeds_draw_their_own_numbers(pixels, kind):
    twice = np.stack([pixels[0], pixels[0]])
    found = corrupted(twice, kind, 3)
    assert (found[0] != found[1]).any()
    assert (found != corrupted(twice, kind, 3, seed=1)).any()
    assert np.array_equal(found, corrupted(twice, kind, 3))


def test_noise_has_its_deviation():
    grey = np.full((8, 32, 32, 3), 128, np.uint8)
    off = corrupted(grey, "gaussian_noise", 5).astype(float) - 128
    assert off.std() == pytest.approx(0.10 * 255, rel=0.03)
    off = corrupted(grey, "shot_noise", 5).astype(float) - 128
    assert off.std() == pytest.approx(255 * np.sqrt(128 / 255 / 50), rel=0.03)
    assert abs(off.mean()) < 1


def test_impulses_are_black_or_white_in_equal_shares():
    grey = np.full((16, 32, 32, 3), 128, np.uint8)
    found = corrupted(grey, "impulse_noise", 5)
    assert set(np.unique(found)) == {0, 128, 255}
    assert (found == 0).mean() == pytest.approx(0.035, rel=0.1)
    assert (found == 255).mean() == pytest.approx(0.035, rel=0.1)


def test_contrast_is_drawn_to_each_channels_mean(pixels):
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    expected = (mean + 0.3 * (pixels - mean)).round()
    np.testing.assert_allclose(corrupted(pixels, "contrast", 4), expected, atol=1)


def test_brightness_raises_value_and_keeps_hue_and_saturation():
    import colorsys

    colours = np.array([[200, 30, 60], [0, 0, 0], [10, 90, 240], [77, 77, 77]], np.uint8)
    image = np.repeat(colours, 16, axis=0).reshape(1, 8, 8, 3)
    found = corrupted(image, "brightness", 3)
    for before, after in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.15))
        np.testing.assert_allclose(after, np.array(expected) * 255, atol=1)


def test_jpeg_and_pixelate_are_pillows(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels[0]).save(out, "JPEG", quality=40)
    expected = np.asarray(Image.open(out))
    assert np.array_equal(corrupted(pixels[:1], "jpeg_compression", 5)[0], expected)
    box = Image.Resampling.BOX
    expected = np.asarray(Image.fromarray(pixels[0]).resize((20, 20), box).resize((32, 32), box))
    assert np.array_equal(corrupted(pixels[:1], "pixelate", 5)[0], expected)


@pytest.mark.parametrize("kind", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"])
def test_blurs_leave_an_even_picture_as_it_is(kind):
    plain = np.full((2, 32, 32, 3), (200, 90, 30), np.uint8)
    for severity in SEVERITIES:
        assert np.abs(corrupted(plain, kind, severity).astype(int) - plain).max() <= 1


def test_motion_smears_a_point_in_its_direction():
    point = np.zeros((2, 32, 32, 1), np.float32)
    point[:, 16, 16] = 1
    found = motion(point, 6, 2, np.array([0.0, -90.0]))[..., 0]
    assert found.sum(axis=(1, 2)) == pytest.approx([1, 1], abs=1e-5)
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    expected = weights / weights.sum()
    np.testing.assert_allclose(found[0, 16, 16:3:-1], expected, atol=1e-6)
    np.testing.assert_allclose(found[1, 16:29, 16], expected, atol=1e-6)


def test_a_zoom_keeps_the_centre_and_enlarges():
    ramp = np.broadcast_to(np.arange(33.0)[None, :, None, None], (1, 33, 33, 1))
    found = zoomed(ramp.astype(np.float32), 2)[0, :, 5, 0]
    np.testing.assert_allclose(found, 16 + (np.arange(33) - 16) / 2, atol=1e-4)


def test_lengths_grow_with_the_image():
    small, large = (original_images("test", 4, side)[0] for side in (32, 64))
    halved = corrupted(large, "defocus_blur", 5).reshape(4, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    plain = large.reshape(4, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    alike = np.abs(halved - plain).mean() / change(small, "defocus_blur", 5)
    assert 0.5 < alike < 1.5


def test_a_landscape_is_smooth_and_spans_its_range():
    rngs = [np.random.default_rng(row) for row in range(20)]
    land = plasma(48, 3, rngs)
    assert land.shape == (20, 48, 48)
    assert land.min(axis=(1, 2)).tolist() == [0] * 20
    assert land.max(axis=(1, 2)).tolist() == [1] * 20
    rough = plasma(48, 1.2, rngs)
    steps = [np.abs(np.diff(of, axis=1)).mean() for of in (land, rough)]
    assert steps[0] < 0.06 < steps[1]


def test_the_corruption_error_is_a_mean_of_ratios():
    rows = [("a", 1, 0.9, 0.8), ("a", 2, 0.7, 0.4), ("b", 1, 0.5, 0.5), ("b", 2, 0.5, 0.5)]
    found = corruption_error(rows)
    assert found == {"teacher": 0.35, "student": 0.45, "relative": 150.0}  # (0.8/0.4 + 1) / 2


def test_kinds_without_an_error_of_the_teacher_have_no_ratio():
    rows = [("a", 1, 1.0, 0.8), ("b", 1, 0.5, 0.25)]
    assert corruption_error(rows)["relative"] == 150.0
    assert corruption_error(rows[:1])["relative"] is None
    assert corruption_error([]) is None
