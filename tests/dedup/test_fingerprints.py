import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from PIL.Image import Transpose

from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.dedup.hashing import SHAPES, library_hash
from kd3_pipeline.exif import UPRIGHT
from kd3_pipeline.images import decode
from tests.dedup.pictures import bits_apart, encoded, jpeg, scene
from tests.dedup.real import PACS, PHOTOGRAPHS, real_images

WHOLE, TRIMMED, CENTRE, MIRRORED = range(4)
UNTRIMMED = (0, 0, 1, 1)


def bordered(image, share, colour, sides="lrtb"):
    across = round(image.width * share) if "l" in sides else 0
    down = round(image.height * share) if "t" in sides else 0
    return ImageOps.expand(image, (across, down, across, down), colour)


# hashes of whole pictures


@pytest.mark.parametrize("kind", SHAPES)
def test_pictures_that_are_no_jpeg_have_the_hashes_of_imagehash(kind):
    images = [scene(index, 90 + 31 * index, 400 - 17 * index) for index in range(12)]
    found, errors = fingerprint_images([encoded(image) for image in images], kind, False)
    assert not any(errors)
    assert found.hashes[:, WHOLE].tolist() == [library_hash(image, kind) for image in images]
    mirrored = [library_hash(ImageOps.mirror(image), kind) for image in images]
    assert found.hashes[:, MIRRORED].tolist() == mirrored


@pytest.mark.parametrize("size", [(800, 600), (723, 541), (301, 900), (257, 256), (64, 64)])
def test_jpegs_decoded_small_are_at_most_two_bits_from_imagehash(size):
    data = [jpeg(scene(index, *size)) for index in range(30)]
    found, _ = fingerprint_images(data, "phash", False)
    apart = bits_apart(found.hashes[:, WHOLE], [library_hash(decode(d), "phash") for d in data])
    assert apart.max() <= 2
    assert (apart == 0).mean() >= 0.85


@pytest.mark.parametrize("source", [PHOTOGRAPHS, PACS])
def test_real_jpegs_decoded_small_are_at_most_two_bits_from_imagehash(source):
    real = [decode(data) for data in real_images(source, 60)]
    data = [jpeg(image.resize((800, 600), Image.Resampling.LANCZOS), 85) for image in real]
    found, _ = fingerprint_images(data, "phash", False)
    apart = bits_apart(found.hashes[:, WHOLE], [library_hash(decode(d), "phash") for d in data])
    assert apart.max() <= 2
    assert (apart == 0).mean() >= 0.9


@pytest.mark.parametrize("kind", SHAPES)
def test_exact_hashes_are_those_of_imagehash(kind):
    data = [jpeg(scene(index, 643, 481)) for index in range(10)]
    found, _ = fingerprint_images(data, kind, True)
    images = [decode(one) for one in data]
    assert found.hashes[:, WHOLE].tolist() == [library_hash(image, kind) for image in images]
    mirrored = [library_hash(ImageOps.mirror(image), kind) for image in images]
    assert found.hashes[:, MIRRORED].tolist() == mirrored


@pytest.mark.parametrize("kind", ["whash", pytest.param("crop_resistant", marks=pytest.mark.slow)])
def test_kinds_without_a_fast_path_are_exact_in_every_key(kind):
    image = scene(3, 300, 200)
    framed = bordered(image, 0.1, "navy")
    found, _ = fingerprint_images([encoded(framed)], kind, False)
    turns = [framed.transpose(way) for way in (Transpose.ROTATE_90, Transpose.ROTATE_180)]
    views = [framed, image, image.crop((15, 10, 285, 190)), ImageOps.mirror(framed), *turns]
    assert found.hashes[0].tolist() == [library_hash(view, kind) for view in views]


def test_the_mirrored_key_is_the_whole_key_of_the_mirrored_picture():
    for kind in SHAPES:
        images = [scene(index) for index in range(10)]
        one, _ = fingerprint_images([encoded(image) for image in images], kind, False)
        other, _ = fingerprint_images([encoded(ImageOps.mirror(i)) for i in images], kind, False)
        assert np.array_equal(one.hashes[:, MIRRORED], other.hashes[:, WHOLE])
        assert np.array_equal(one.hashes[:, WHOLE], other.hashes[:, MIRRORED])


# what a stored picture may be


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("code", UPRIGHT)
def test_a_picture_turned_by_its_tag_is_its_upright_twin(code, form):
    image = scene(code, 531, 402)
    # what undoes a quarter turn is the other quarter turn; all others undo themselves
    undone = UPRIGHT[{6: 8, 8: 6}.get(code, code)]
    exif = Image.Exif()
    exif[0x0112] = code
    data = [encoded(image, form), encoded(image.transpose(undone), form, exif=exif)]
    found, errors = fingerprint_images(data, "phash", False)
    assert not any(errors)
    # a JPEG's squares of 8 pixels lie elsewhere in the turned picture
    allowed = 2 if form == "JPEG" else 0
    assert bits_apart(*found.hashes).max() <= allowed
    difference = np.abs(found.grey[0].astype(int) - found.grey[1])
    assert difference.max() <= (16 if form == "JPEG" else 0)
    exact, _ = fingerprint_images(data, "phash", True)
    assert bits_apart(*exact.hashes[:, [WHOLE, MIRRORED]]).max() <= allowed


def test_transparency_is_on_white_and_other_modes_are_as_in_colour():
    image = scene(5, 200, 150)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((30, 20, 170, 130), fill=255)
    cut_out = image.copy()
    cut_out.putalpha(mask)
    on_white = Image.composite(image, Image.new("RGB", image.size, "white"), mask)
    grey16 = np.asarray(image.convert("L")).astype(np.uint16) * 257
    pairs = [
        (encoded(cut_out), encoded(on_white)),
        (encoded(Image.fromarray(grey16)), encoded(image.convert("L"))),
        (encoded(image.quantize(256)), encoded(image.quantize(256).convert("RGB"))),
        (jpeg(image.convert("CMYK"), 95), jpeg(image, 95)),
        (jpeg(image.convert("L"), 95), encoded(decode(jpeg(image.convert("L"), 95)))),
        (jpeg(image, 95, keep_rgb=True), encoded(decode(jpeg(image, 95, keep_rgb=True)))),
        (encoded(image, "GIF", save_all=True, append_images=[scene(6)]), encoded(image, "GIF")),
        (encoded(image, "WEBP", lossless=True, method=0), encoded(image)),
        (encoded(image, "MPO", save_all=True, append_images=[scene(6)], quality=90), jpeg(image)),
    ]
    for one, other in pairs:
        found, errors = fingerprint_images([one, other], "phash", False)
        assert not any(errors)
        assert bits_apart(*found.hashes).max() <= 2
        assert np.abs(found.grey[0].astype(int) - found.grey[1]).mean() < 2
        assert np.abs(found.colour[0].astype(int) - found.colour[1]).mean() < 4


def test_grey_and_colour_are_the_whole_picture_small():
    image = scene(8, 803, 599)
    for data in (jpeg(image, 95), encoded(image)):
        found, _ = fingerprint_images([data], "phash", False)
        for name, mode, side in (("grey", "L", 64), ("colour", "RGB", 32)):
            wanted = image.convert(mode).resize((side, side), Image.Resampling.BICUBIC)
            difference = np.asarray(wanted).astype(int) - getattr(found, name)[0]
            assert np.abs(difference).mean() < 1.5


# borders and flat pictures


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("share", "colour", "sides"),
    [
        (0.05, "white", "lrtb"),
        (0.05, "black", "lrtb"),
        (0.1, "orchid", "lrtb"),
        (0.125, "black", "tb"),
        (0.2, "black", "lr"),
    ],
)
def test_a_bordered_copy_is_near_its_original_by_the_trimmed_key(share, colour, sides, form):
    images = [scene(index, 640, 480) for index in range(8)]
    plain, _ = fingerprint_images([encoded(image, form) for image in images], "phash", False)
    copies = [encoded(bordered(image, share, colour, sides), form) for image in images]
    framed, _ = fingerprint_images(copies, "phash", False)
    cut = share / (1 + 2 * share)
    x, y = cut * ("l" in sides), cut * ("t" in sides)
    assert np.array_equal(plain.trim, np.tile(UNTRIMMED, (8, 1)))
    assert np.allclose(framed.trim, [x, y, 1 - x, 1 - y], atol=0.011)
    assert bits_apart(plain.hashes[:, TRIMMED], framed.hashes[:, TRIMMED]).max() <= 6
    assert bits_apart(plain.hashes[:, CENTRE], framed.hashes[:, CENTRE]).max() <= 6
    assert bits_apart(plain.hashes[:, WHOLE], framed.hashes[:, WHOLE]).mean() > 6


def test_a_letter_box_in_a_pillar_box_is_trimmed_on_all_sides():
    image = scene(4, 640, 360)
    boxed = bordered(bordered(image, 0.1, "black", "tb"), 0.1, "teal", "lr")
    found, _ = fingerprint_images([jpeg(boxed)], "phash", False)
    cut = 0.1 / 1.2
    assert np.allclose(found.trim[0], [cut, cut, 1 - cut, 1 - cut], atol=0.011)


def test_a_border_is_trimmed_where_the_tag_has_turned_it():
    image = Image.new("RGB", (603, 401), "black")
    image.paste(scene(9, 500, 401), (103, 0))  # a bar at the left only
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: the bar is on top
    found, _ = fingerprint_images([jpeg(image, 95, exif=exif)], "phash", False)
    assert np.allclose(found.trim[0], [0, 103 / 603, 1, 1], atol=0.011)


# what shows nothing, what cannot be compared, and what is cut out

BLANK = 16  # levels


def on_page(thing, corner, size=(400, 300), ground="white"):
    page = Image.new("RGB", size, ground)
    page.paste(thing, corner)
    return page


def drawn_with_a_pen(points, ink="black"):
    page = Image.new("RGB", (400, 300), "white")
    ImageDraw.Draw(page).line(points, ink, 1)
    return page


def prints(*images, form="PNG"):
    found, errors = fingerprint_images([encoded(image, form) for image in images], "phash", False)
    assert not any(errors)
    return found


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_one_colour_in_every_pixel_is_blank_and_cannot_be_compared(form):
    colours = ("white", "black", "firebrick", "#203040")
    sizes = [(300, 200), (9, 9), (1, 1), (700, 20)]
    images = [Image.new("RGB", size, colour) for size in sizes for colour in colours]
    found = prints(*images, form=form)
    assert found.blank(BLANK).all()
    assert not found.comparable.any()
    assert not (found.range == 255).any()


def test_little_is_not_nothing():
    stripes = Image.new("RGB", (300, 200))
    for place, colour in enumerate(("#0055a4", "#ffffff", "#ef4135")):
        stripes.paste(colour, (100 * place, 0, 100 * place + 100, 200))
    equally_bright = Image.new("RGB", (300, 200), (200, 40, 60))
    equally_bright.paste((40, 120, 61), (150, 0, 300, 200))
    grain = np.random.default_rng(0).normal(120, 6, (200, 300, 3)).clip(0, 255)
    found = prints(
        drawn_with_a_pen([(30, 40), (200, 250), (370, 60)]),
        drawn_with_a_pen([(190, 150), (199, 158)], "#c8c8ff"),
        stripes,
        equally_bright,
        Image.fromarray(grain.astype(np.uint8)),
        on_page(scene(1, 20, 20), (370, 4)),
        scene(2, 300, 7),
        scene(3),
    )
    assert not found.blank(BLANK).any()
    assert found.range[-1] == 255  # plainly shows something: it was not measured


def test_the_range_is_that_of_the_channel_with_most():
    page = Image.new("RGB", (300, 200), (250, 250, 250))
    page.putpixel((120, 90), (250, 250, 220))
    found = prints(page, ImageOps.mirror(page))
    assert found.range.tolist() == [30, 30]
    assert not found.blank(29).any()
    assert found.blank(30).all()


def test_what_is_faint_or_tiny_cannot_be_compared_and_other_pictures_can():
    grain = np.random.default_rng(0).normal(120, 6, (200, 300, 3)).clip(0, 255).astype(np.uint8)
    others = [Image.fromarray(grain), scene(2, 300, 7), scene(2, 15, 15), scene(2, 1, 1)]
    able = [scene(3, 300, 200), scene(4, 16, 16), bordered(scene(5), 0.2, "white")]
    for form in ("JPEG", "PNG"):
        found = prints(*others, *able, form=form)
        assert found.comparable.tolist() == [False] * len(others) + [True] * len(able)


@pytest.mark.parametrize("ground", ["white", "black", "#3060a0"])
def test_a_small_thing_on_a_page_is_compared_by_itself(ground):
    things = [scene(index, 60, 60) for index in range(6)]
    corners = [(20, 200), (170, 170), (300, 31), (5, 5), (333, 239), (111, 90)]
    pages = [on_page(*each, ground=ground) for each in zip(things, corners, strict=True)]
    moved = [on_page(thing, (230, 60), ground=ground) for thing in things]
    found, others = prints(*pages), prints(*moved)
    assert found.comparable.all()
    for cut, corner in zip(found.cut * [400, 300, 400, 300], corners, strict=True):
        assert np.abs(cut - [*corner, corner[0] + 60, corner[1] + 60]).max() <= 6
    apart = bits_apart(found.hashes[:, None, WHOLE], others.hashes[:, WHOLE])
    same = np.eye(6, dtype=bool)
    assert apart[same].max() <= 8 < 14 <= apart[~same].min()
    assert np.abs(np.hstack([found.trim[:, :2], 1 - found.trim[:, 2:]]) - 0.045).max() <= 0.03
    assert found.grey.std(axis=(1, 2)).min() > 10


def test_a_small_thing_on_a_page_is_near_the_thing_alone():
    things = [scene(index, 60, 60) for index in range(6)]
    found = prints(*(on_page(thing, (200, 111)) for thing in things), *things)
    apart = bits_apart(found.hashes[:6, TRIMMED], found.hashes[6:, WHOLE])
    assert apart.max() <= 6


def test_nothing_is_cut_out_of_a_picture_with_a_ground_of_its_own():
    found = prints(*(scene(index) for index in range(4)), bordered(scene(5), 0.2, "white"))
    assert (found.cut == UNTRIMMED).all()


def test_the_sharpness_of_a_page_is_that_of_the_whole():
    thing = scene(1, 60, 60)
    found = prints(on_page(thing, (150, 120)), on_page(thing.resize((30, 30)), (150, 120)))
    assert (found.cut[:, 0] > 0.3).all()
    assert (found.sharpness > 0.6).all()  # the thing's own edge is a step from pixel to pixel


@pytest.mark.parametrize("source", [PHOTOGRAPHS, PACS])
def test_real_images_can_be_compared_and_show_something(source):
    found, _ = fingerprint_images(real_images(source, 200), "phash", False)
    assert not found.blank(BLANK).any()
    assert found.comparable.sum() >= 198
