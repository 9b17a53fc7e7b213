import numpy as np
import pytest

from kd3_pipeline.demo import domains, shapes

LABELS = range(len(shapes.CLASS_NAMES))


def generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(list(key))


def test_ten_classes_each_with_a_rotation_limit():
    assert len(shapes.CLASS_NAMES) == len(set(shapes.CLASS_NAMES)) == 10
    assert len(shapes.ROTATION_LIMITS) == 10


@pytest.mark.parametrize("label", LABELS)
def test_placed_shapes_stay_in_the_frame_and_are_large(label):
    for index in range(50):
        contours = shapes.placed(label, (60, 48), generator(label, index))
        outer = contours[0]
        assert outer.min() >= 0
        assert np.all(outer <= (60, 48))
        assert 0.45 * 48 <= np.ptp(outer, axis=0).max() <= 0.86 * 48


@pytest.mark.parametrize("label", LABELS)
def test_masks_cover_a_visible_part_of_the_frame(label):
    contours = shapes.placed(label, (32, 32), generator(label))
    inside = shapes.filled(contours, (32, 32))
    assert inside.shape == (32, 32)
    assert inside.dtype == np.float32
    assert 0.03 < inside.mean() < 0.75
    assert 0 < shapes.stroked(contours, (32, 32), 2).mean() < 0.6


def test_a_ring_has_a_hole():
    contours = shapes.placed(shapes.CLASS_NAMES.index("ring"), (64, 64), generator(3))
    x, y = contours[0].mean(axis=0).round().astype(int)
    assert shapes.filled(contours, (64, 64))[y, x] == 0


def test_wobbling_moves_a_contour_by_pixels_only():
    contours = shapes.placed(3, (100, 100), generator(0))
    wobbly = shapes.wobbled(contours, 1.0, generator(1))
    before, after = shapes.filled(contours, (100, 100)), shapes.filled(wobbly, (100, 100))
    assert 0 < np.abs(before - after).mean() < 0.06


def test_originals_are_balanced_and_typed():
    images, labels = domains.original_images("train", 50, size=24)
    assert images.shape == (50, 24, 24, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [5] * 10


def test_originals_depend_on_the_seed_alone_and_not_on_the_count():
    images, _ = domains.original_images("train", 30, seed=4)
    again, _ = domains.original_images("train", 10, seed=4)
    other, _ = domains.original_images("train", 10, seed=5)
    assert np.array_equal(images[:10], again)
    assert not any(np.array_equal(a, b) for a, b in zip(again, other, strict=True))


def test_train_and_test_share_no_image():
    train, _ = domains.original_images("train", 300)
    test, _ = domains.original_images("test", 300)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_an_unknown_split_is_an_error():
    with pytest.raises(KeyError):
        domains.original_images("validation", 1)


def test_shape_and_background_of_originals_differ():
    spreads = [image.std() for image in domains.original_images("train", 100)[0]]
    assert min(spreads) > 8


@pytest.mark.parametrize("style", domains.WEB_STYLES)
def test_web_images_of_every_style_and_class(style):
    for label in LABELS:
        image = domains.draw_web(label, style, (80, 60), generator(label))
        again = domains.draw_web(label, style, (80, 60), generator(label))
        other = domains.draw_web(label, style, (80, 60), generator(label, 1))
        assert image.mode == "RGB"
        assert image.size == (80, 60)
        assert image.tobytes() == again.tobytes() != other.tobytes()
        assert np.asarray(image).std() > 4


@pytest.mark.parametrize("side", [16, 48, 160])
def test_web_images_and_off_topic_pictures_of_any_size(side):
    for index in range(12):
        assert domains.draw_off_topic(side, generator(index)).size == (side, side)
    for style in domains.WEB_STYLES:
        assert domains.draw_web(3, style, side, generator(0)).size == (side, side)


def test_an_unknown_style_is_an_error():
    with pytest.raises(KeyError):
        domains.draw_web(0, "oil", 32, generator(0))
