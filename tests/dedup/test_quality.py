import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from kd3_pipeline.dedup.quality import best_copies, best_first, measure, score
from kd3_pipeline.picturefile import ImageError
from tests.dedup.pictures import encoded, jpeg, scene
from tests.dedup.real import PACS, PHOTOGRAPHS, real_images

BICUBIC, NEAREST = Image.Resampling.BICUBIC, Image.Resampling.NEAREST


def scaled(image, across, down=None, how=BICUBIC):
    return image.resize((round(image.width * across), round(image.height * (down or across))), how)


def thumbnail(image, side, scale, how=BICUBIC):
    small = image.copy()
    small.thumbnail((side, side))
    return small.resize((round(image.width * scale), round(image.height * scale)), how)


def captioned(image, paper="white", ink="black"):
    bar = image.height // 6
    page = Image.new("RGB", (image.width, image.height + bar), paper)
    page.paste(image)
    middle = image.width / 2, image.height + bar / 2
    ImageDraw.Draw(page).text(middle, "what it shows", ink, anchor="mm", font_size=bar / 2)
    return page


EDITS = {
    "black border": lambda i: jpeg(ImageOps.expand(i, i.width // 12, "black")),
    "white border": lambda i: jpeg(ImageOps.expand(i, i.width // 20, "white")),
    "coloured border": lambda i: jpeg(ImageOps.expand(i, i.width // 9, "#2050a0")),
    "blown-up thumbnail": lambda i: jpeg(thumbnail(i, 48, 4)),
    "thumbnail at the same size": lambda i: jpeg(thumbnail(i, 90, 1), 92),
    "blown up by repeating pixels": lambda i: jpeg(thumbnail(i, 60, 3, NEAREST), 92),
    "grey": lambda i: jpeg(scaled(i, 1.5).convert("L")),
    "grey in three channels": lambda i: jpeg(i.convert("L").convert("RGB")),
    "sepia": lambda i: jpeg(ImageOps.colorize(i.convert("L"), "#201000", "#fff0d0")),
    "quality 10, larger": lambda i: jpeg(scaled(i, 1.1), 10),
    "quality 40, larger": lambda i: jpeg(scaled(i, 1.5), 40),
    "PNG of a JPEG of quality 25": lambda i: encoded(Image.open(io.BytesIO(jpeg(i, 25)))),
    "squeezed": lambda i: jpeg(scaled(i, 0.6, 1)),
    "stretched": lambda i: jpeg(scaled(i, 1.6, 1)),
    "smaller": lambda i: jpeg(scaled(i, 0.5)),
    "larger": lambda i: jpeg(scaled(i, 2)),
    "out of focus": lambda i: jpeg(i.filter(ImageFilter.GaussianBlur(2))),
    "caption": lambda i: jpeg(captioned(i)),
    "caption on black": lambda i: jpeg(captioned(i, "black", "white")),
}


# of the photographs' crops; the others show little but sky
TEXTURED = (0, 2, 3, 6, 8, 9)


def photographs():
    files = real_images(PHOTOGRAPHS, 12)
    return [files[place] for place in TEXTURED]


def places(files):
    """Places in the group from the best to the worst; of equal ones the last comes first."""
    ids = [f"{len(files) - place:03d}" for place in range(len(files))]
    return best_first([measure(file) for file in files], [0] * len(files), ids).tolist()


@pytest.mark.parametrize("edit", EDITS)
def test_the_original_is_better_than_an_edited_copy(edit):
    for file in photographs():
        copy = EDITS[edit](Image.open(io.BytesIO(file)).convert("RGB"))
        assert places([file, copy]) == [0, 1]
        assert places([copy, file]) == [1, 0]


def test_the_original_is_better_than_edited_copies_of_many_real_pictures():
    worse = total = 0
    for file in real_images(PACS, 40):
        image = Image.open(io.BytesIO(file)).convert("RGB")
        original = measure(file)
        for name, edit in EDITS.items():
            if image.convert("HSV").getextrema()[1][1] or "grey" not in name:
                order = best_first([original, measure(edit(image))], [0, 0], ["b", "a"])
                worse, total = worse + int(order[0] != 0), total + 1
    assert worse <= 0.04 * total


def test_the_original_is_the_best_of_all_its_copies():
    for file in photographs()[:3]:
        image = Image.open(io.BytesIO(file)).convert("RGB")
        assert places([file, *(edit(image) for edit in EDITS.values())])[0] == 0


def test_a_larger_copy_that_shows_more_is_better():
    for index in range(4):
        large = scene(index, 900, 700)
        noise = np.random.default_rng(index).normal(0, 12, (700, 900, 1))
        pixels = np.asarray(large) + noise
        large = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        small = large.resize((450, 350), Image.Resampling.LANCZOS)
        assert places([jpeg(small, 95), jpeg(large, 85)])[0] == 1


def test_a_picture_of_which_all_copies_are_grey_is_not_held_back_for_it():
    large = scene(1, 400, 300).convert("L")
    files = [encoded(large), encoded(large.resize((200, 150)))]
    found = score([measure(file) for file in files])
    assert not found.grey.any()
    assert places(files) == [0, 1]


def test_of_equal_pixels_the_smaller_file_is_better_then_facts_then_the_id():
    file = jpeg(scene(2), 90)
    png = encoded(Image.open(io.BytesIO(file)))
    copies = [measure(one) for one in (png, file)]
    assert best_first(copies, [0, 0], ["a", "b"]).tolist() == [1, 0]
    twice = [copies[1], copies[1]]
    assert best_first(twice, [0, 2], ["a", "b"]).tolist() == [1, 0]
    assert best_first(twice, [1, 1], ["b", "a"]).tolist() == [1, 0]


def test_an_unreadable_copy_comes_last_and_single_pixels_can_be_measured():
    with pytest.raises(ImageError):
        measure(b"no image")
    copies = [None, measure(encoded(Image.new("RGB", (1, 1)))), measure(jpeg(scene(3)))]
    assert best_first(copies, [0, 0, 0], ["a", "b", "c"]).tolist() == [2, 1, 0]


def test_best_copies_are_placed_within_their_groups_whatever_the_order():
    images = [scene(index) for index in range(3)]
    files = {
        10 * index + place: file
        for index, image in enumerate(images)
        for place, file in enumerate([jpeg(thumbnail(image, 50, 2)), jpeg(image), b"broken"])
    }
    done = []
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(sorted(files))
        found = best_copies(
            rows,
            rows // 10,
            lambda wanted: (files[row] for row in wanted.tolist()),
            np.zeros(len(rows)),
            [f"id{row}" for row in rows],
            done.append,
        )
        assert {row: place for row, place in zip(rows.tolist(), found.tolist(), strict=True)} == {
            10 * index + place: {0: 1, 1: 0, 2: 2}[place]
            for index in range(3)
            for place in range(3)
        }
    assert sum(done) == 3 * len(files)
