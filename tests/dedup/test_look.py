"""The second look, on whole files: copies of photographs, and drawings of one layout."""

import io
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.dedup.originals import close_up
from kd3_pipeline.dedup.verifier import verifier
from kd3_pipeline.params import Dedup
from tests.dedup.pictures import encoded, jpeg
from tests.dedup.real import PHOTOGRAPHS, real_images

LEAST = Dedup().similarity
SIDE = 300


def prints(files):
    found, errors = fingerprint_images(files, "phash", False)
    sizes = [
        (1, 1) if e else Image.open(io.BytesIO(f)).size for f, e in zip(files, errors, strict=True)
    ]
    columns = {"width": [w for w, _ in sizes], "height": [h for _, h in sizes], "error": errors}
    return type(found)(pa.table(columns), **{n: v for n, v in vars(found).items() if n != "images"})


def judge_of(files):
    """The verifier of some files by their places, as the stage has it."""
    found = prints(files)

    def close_ups(rows, side):
        return np.stack([close_up(files[row], found.cut[row], side) for row in rows.tolist()])

    return verifier(found, close_ups)


def similarity(one, other):
    """Of two lists of pictures, pair by pair: float32 [P]."""
    files = [file if isinstance(file, bytes) else jpeg(file) for file in [*one, *other]]
    rows = np.arange(len(one))
    return judge_of(files)(rows, rows + len(one))


@cache
def photographs():
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in real_images(PHOTOGRAPHS, 12)]
    # of three there is little but sky
    some = [image for place, image in enumerate(images) if place not in (1, 4, 7)]
    return [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in some]


# copies


def cropped(image):
    width, height = image.size
    return image.crop((round(0.06 * width), round(0.04 * height), width, round(0.95 * height)))


def turned(image):
    """Turned by 5 degrees, and what is beyond the edges cut off."""
    side = round(0.84 * image.width)
    left = (image.width - side) // 2
    whole = image.rotate(5, Image.Resampling.BICUBIC)
    return whole.crop((left, left, left + side, left + side))


COPIES = {
    "JPEG": lambda image: jpeg(image, 25),
    "small": lambda image: image.resize((110, 120)),
    "crop": cropped,
    "turn": turned,
    "mirror": ImageOps.mirror,
    "quarter": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "three quarters": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "half": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "border": lambda image: ImageOps.expand(image, 24, "black"),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
}


@pytest.mark.parametrize("edit", COPIES)
def test_a_copy_of_a_photograph_is_one_with_it(edit):
    copies = [COPIES[edit](image) for image in photographs()]
    found = similarity(photographs(), copies)
    assert found.min() >= LEAST, found.round(3)


def test_the_same_file_has_about_the_similarity_1():
    found = similarity(photographs(), photographs())
    assert found.min() > 0.98


def test_unlike_photographs_are_not_one():
    files = [jpeg(image) for image in photographs()]
    i, j = np.triu_indices(len(files), 1)
    assert judge_of(files)(i, j).max() < 0.6


# pictures of one layout that differ


def sign(number):
    image = Image.new("RGB", (SIDE, SIDE), "#9fb8c8")
    draw = ImageDraw.Draw(image)
    draw.ellipse((25, 25, 275, 275), "#c8102e")
    draw.ellipse((55, 55, 245, 245), "white")
    draw.text((150, 150), str(number), "black", ImageFont.load_default(110), anchor="mm")
    return image


def shirt(print_, cloth="#2b4f81"):
    image = Image.new("RGB", (SIDE, SIDE), "#f2f2f2")
    draw = ImageDraw.Draw(image)
    outline = [(90, 40), (40, 70), (20, 130), (70, 145), (75, 270), (225, 270), (230, 145)]
    draw.polygon([*outline, (280, 130), (260, 70), (210, 40), (150, 65)], cloth)
    print_(draw)
    return image


PRINTS = (
    lambda draw: draw.ellipse((115, 110, 185, 180), "#ffd23f"),
    lambda draw: draw.rectangle((115, 110, 185, 180), "#ffd23f"),
    lambda draw: draw.polygon([(150, 105), (190, 185), (110, 185)], "#ffd23f"),
    lambda draw: draw.text((150, 145), "KIWI", "#ffd23f", ImageFont.load_default(40), anchor="mm"),
)


def with_animal(ground, kind):
    """A frame of a camera that stands still, with one of two animals, in their furs."""
    shape = Image.new("L", ground.size)
    draw = ImageDraw.Draw(shape)
    draw.ellipse((120, 170, 205, 215 if kind else 235), 255)
    draw.ellipse((190, 140, 225, 178) if kind else (120, 120, 160, 175), 255)
    for leg in range(4 if kind else 2):
        left = 130 + leg * 18
        draw.rectangle((left, 205, left + 6, 250), 255)
    y, x = np.mgrid[: ground.height, : ground.width]
    stripes = np.sin(x / 3 + kind) * np.cos(y / (4 + 3 * kind))
    fur = np.array([110, 80, 50]) + 70 * stripes[:, :, None]
    image = ground.copy()
    image.paste(Image.fromarray(fur.clip(0, 255).astype(np.uint8)), mask=shape)
    return image


def pairs(pictures):
    i, j = np.triu_indices(len(pictures), 1)
    return [pictures[place] for place in i], [pictures[place] for place in j]


UNLIKE = {
    "number": lambda: pairs([sign(number) for number in (20, 30, 50, 60, 80, 120)]),
    "print": lambda: pairs([shirt(one) for one in PRINTS]),
    "colour": lambda: pairs(
        [shirt(PRINTS[0], cloth) for cloth in ("#2b4f81", "#8a1c3b", "#1f7a4d", "#111111")]
    ),
    "animal": lambda: (
        [with_animal(image, 0) for image in photographs()],
        [with_animal(image, 1) for image in photographs()],
    ),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_one_layout_with_another_subject_is_another_picture(kind):
    found = similarity(*UNLIKE[kind]())
    assert found.max() < LEAST, found.round(3)


@pytest.mark.parametrize("kind", UNLIKE)
def test_a_copy_of_such_a_picture_is_one_with_it(kind):
    pictures = [*UNLIKE[kind]()[0], UNLIKE[kind]()[1][-1]]
    for edit in ("JPEG", "small"):
        assert similarity(pictures, [COPIES[edit](one) for one in pictures]).min() >= LEAST, edit


def test_edges_of_whole_pictures_take_them_for_one():
    one, other = UNLIKE["number"]()
    files = [jpeg(image) for image in [*one, *other]]
    rows = np.arange(len(one))
    assert verifier(prints(files), None)(rows, rows + len(one)).max() > 0.9


# how it is computed


def mixed():
    """Files of which some are copies, and all pairs of them."""
    images = [*photographs()[:4], *map(turned, photographs()[:4]), sign(20), sign(80), sign(20)]
    files = [jpeg(image, 70 + place) for place, image in enumerate(images)]
    return files, *np.triu_indices(len(files), 1)


def test_the_order_of_a_pair_does_not_matter():
    files, i, j = mixed()
    judge = judge_of(files)
    assert np.array_equal(judge(i, j), judge(j, i))


def test_a_pair_is_judged_alike_alone_and_among_others():
    files, i, j = mixed()
    judge = judge_of(files)
    alone = np.concatenate([judge(i[k : k + 1], j[k : k + 1]) for k in range(len(i))])
    assert np.abs(judge(i, j) - alone).max() < 1e-3


def test_no_pairs_have_no_similarities():
    files, *_ = mixed()
    nothing = np.empty(0, np.int64)
    assert judge_of(files)(nothing, nothing).shape == (0,)


def test_what_cannot_be_decoded_is_like_nothing():
    file = jpeg(photographs()[0])
    found = similarity([file, b"no image"], [b"no image", b"no image"])
    assert (found < LEAST).all()


def test_a_small_thing_on_a_page_is_looked_at_by_itself():
    pages = []
    for image in photographs()[:4]:
        page = Image.new("RGB", (900, 900), "white")
        page.paste(image.resize((120, 120)), (60, 500))
        pages.append(encoded(page))
    found = similarity(pages, photographs()[:4])
    assert found.min() >= LEAST, found
    assert similarity(pages, pages[1:] + pages[:1]).max() < LEAST
