import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from kd3_pipeline.dedup import verify
from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.dedup.verify import WHOLE, resample, similarity
from tests.dedup.real import PACS, PHOTOGRAPHS, real_images

SIZE = 200


def scene(index, width=SIZE, height=SIZE):
    """A drawn picture with edges of many directions."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(60, 200, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = rng.uniform(0, 0.8, 2) * image.size
        right, bottom = (left, top) + rng.uniform(0.1, 0.4, 2) * image.size
        colour = tuple(rng.integers(0, 256, 3).tolist())
        draw.ellipse((left, top, right, bottom), fill=colour)
        draw.line((left, bottom, *rng.uniform(0, 1, 2) * image.size), colour, 5)
    return image


def grey(*images):
    small = (image.convert("L").resize((64, 64), Image.Resampling.LANCZOS) for image in images)
    return np.stack([np.asarray(image) for image in small])


def whole(count):
    return np.tile(WHOLE, (count, 1))


def compare(one, other, mirrored=True, trims=(WHOLE, WHOLE)):
    trim_a, trim_b = (np.asarray(trim, np.float32)[None] for trim in trims)
    return float(similarity(grey(one), trim_a, grey(other), trim_b, mirrored)[0])


def encoded(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def cropped(image, left, top, right, bottom):
    return image.crop(tuple(round(share * SIZE) for share in (left, top, right, bottom)))


def captioned(image):
    page = Image.new("RGB", (SIZE, round(1.15 * SIZE)), "white")
    page.paste(image)
    return page


EDITS = {
    "none": lambda image: image,
    "small": lambda image: image.resize((50, 50), Image.Resampling.BICUBIC),
    "squeezed": lambda image: image.resize((90, 200), Image.Resampling.BICUBIC),
    "re-encoded": lambda image: Image.open(io.BytesIO(encoded(image, 30))),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "cut at a corner by 5 %": lambda image: cropped(image, 0.05, 0, 1, 0.95),
    "cut all round by 15 %": lambda image: cropped(image, 0.07, 0.08, 0.92, 0.93),
    "cut at the top by 15 %": lambda image: cropped(image, 0, 0.15, 1, 1),
    "caption": captioned,
    "mirrored": ImageOps.mirror,
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_is_alike(edit):
    found = [compare(scene(index), EDITS[edit](scene(index))) for index in range(6)]
    assert min(found) > 0.85


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_of_another_picture_is_not(edit):
    found = [compare(scene(index), EDITS[edit](scene(index + 6))) for index in range(6)]
    assert max(found) < 0.5


def test_a_picture_is_like_itself_and_like_its_negative_the_other_way_round():
    assert compare(scene(1), scene(1)) == pytest.approx(1, abs=1e-3)
    assert compare(scene(1), ImageOps.invert(scene(1)), mirrored=False) < 0.3


def test_which_of_the_two_comes_first_makes_no_difference():
    images = [EDITS[edit](scene(index)) for index in range(2) for edit in EDITS]
    pictures = grey(*images)
    i, j = np.triu_indices(len(images), 1)
    trim = whole(len(images))
    trim[::3] = (0.05, 0.1, 0.9, 1)
    one = similarity(pictures[i], trim[i], pictures[j], trim[j])
    other = similarity(pictures[j], trim[j], pictures[i], trim[i])
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_mirrored_copy_is_found_only_if_it_is_looked_for():
    assert compare(scene(2), ImageOps.mirror(scene(2)), mirrored=False) < 0.5
    assert compare(scene(2), ImageOps.mirror(scene(2)), mirrored=True) > 0.99


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_border_is_left_out_by_its_box(share):
    border = round(share * SIZE)
    framed = ImageOps.expand(scene(3), border, "white")
    inside = np.array([border, border, SIZE + border, SIZE + border]) / framed.width
    assert compare(scene(3), framed, trims=(WHOLE, inside)) > 0.95
    assert compare(framed, scene(3), trims=(inside, WHOLE)) > 0.95
    assert compare(scene(4), framed, trims=(WHOLE, inside)) < 0.5
    dark = ImageOps.expand(scene(3), border, "black")
    assert compare(framed, dark, trims=(inside, inside)) > 0.98


def test_the_whole_pictures_count_where_a_border_was_only_thought_to_be():
    wrong = (0.3, 0.3, 0.6, 0.6)
    assert compare(scene(5), scene(5), trims=(WHOLE, wrong)) == pytest.approx(1, abs=1e-3)


def test_a_picture_without_edges_is_like_nothing():
    pictures = np.stack([np.zeros((64, 64)), np.full((64, 64), 255), *grey(scene(0))])
    pictures = pictures.astype(np.uint8)
    i, j = np.triu_indices(3)
    found = similarity(pictures[i], whole(6), pictures[j], whole(6))
    assert found[:5].tolist() == [0, 0, 0, 0, 0]
    assert found[5] > 0.99


def test_noise_and_single_lines_give_numbers_between_minus_one_and_one():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 64, 64), dtype=np.uint8)
    pictures[20:40] = 128
    pictures[20:40, 5, :7] = 129  # hardly an edge, at a corner
    pictures[40:50] = np.eye(64, dtype=np.uint8) * 255
    i, j = rng.integers(0, 60, (2, 400))
    boxes = np.tile(np.array([0.4, 0.4, 0.41, 0.6], np.float32), (400, 1))
    found = similarity(pictures[i], boxes, pictures[j], whole(400))
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1


def test_a_pair_has_one_value_in_any_company():
    pictures = grey(*(EDITS[edit](scene(index)) for index in range(3) for edit in EDITS))
    i, j = np.triu_indices(len(pictures), 1)
    assert len(i) > 2 * verify.BLOCK
    trim = whole(len(pictures))
    trim[::4] = (0.1, 0, 1, 0.95)
    together = similarity(pictures[i], trim[i], pictures[j], trim[j])
    for n in (0, 255, 256, len(i) - 1):
        a, b = i[n : n + 1], j[n : n + 1]
        alone = similarity(pictures[a], trim[a], pictures[b], trim[b])
        assert alone[0] == pytest.approx(together[n], abs=1e-5)


def test_no_pairs_have_no_values():
    none = np.zeros((0, 64, 64), np.uint8)
    assert similarity(none, whole(0), none, whole(0)).shape == (0,)


def test_the_correlation_is_that_of_a_plain_loop():
    one, other = grey(scene(7), cropped(scene(7), 0.1, 0, 1, 0.9)).astype(np.float32)[:, None]
    best = -1.0
    for a, b in ((one, other), (other, one)):
        field = verify._fields(b, verify.GRID, verify.GRID)[0]
        for size in verify.SIZES:
            part = verify._fields(a, *size)[0, 1:-1, 1:-1]
            height, width = part.shape
            for top in range(len(field) - height + 1):
                for left in range(len(field) - width + 1):
                    window = field[top : top + height, left : left + width]
                    lengths = np.linalg.norm(part) * np.linalg.norm(window)
                    best = max(best, float((part.conj() * window).sum().real / lengths))
    a, b = one.astype(np.uint8), other.astype(np.uint8)
    assert similarity(a, whole(1), b, whole(1), mirrored=False)[0] == pytest.approx(best, abs=1e-4)
    assert best > 0.9


def test_resampling_keeps_a_slope_and_takes_the_box():
    slope = np.broadcast_to(np.arange(64, dtype=np.uint8), (1, 64, 64))
    box = np.array([[0.25, 0.5, 0.75, 1]])
    found = resample(slope, box, 16)[0]
    np.testing.assert_allclose(found, np.tile(16.5 + 2 * np.arange(16), (16, 1)), atol=1e-4)
    colours = np.stack([slope, slope // 2, 255 - slope], axis=3)
    found = resample(colours, box, 16)
    assert found.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(found[..., 2], 255 - found[..., 0], atol=1e-4)


def test_resampling_down_takes_the_mean_of_what_it_leaves_out():
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[None]
    inner = resample(checks, whole(1), 16)[0, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, 127.5, atol=0.1)


@pytest.mark.parametrize(("source", "total"), [(PHOTOGRAPHS, 12), (PACS, 40)])
def test_real_copies_are_alike_and_real_neighbours_are_not(source, total):
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in real_images(source, total)]
    copies = [
        image.crop((7, 0, image.width, image.height - 7)).resize((150, 120)) for image in images
    ]
    originals, _ = fingerprint_images([encoded(image, 90) for image in images], "phash", False)
    edited, _ = fingerprint_images([encoded(image, 50) for image in copies], "phash", False)
    found = similarity(originals.grey, originals.trim, edited.grey, edited.trim)
    assert found.min() > 0.8
    i, j = np.array(list(pairwise(range(total)))).T
    others = similarity(originals.grey[i], originals.trim[i], edited.grey[j], edited.trim[j])
    assert others.max() < 0.6
