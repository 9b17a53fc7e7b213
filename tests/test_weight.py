"""How much memory a picture may take, wherever it is decoded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline import memory
from kd3_pipeline.images import decode, decode_small, inspect
from kd3_pipeline.memory import allow
from kd3_pipeline.picturefile import ImageError, open_image
from kd3_pipeline.weight import is_too_large, webp_size
from tests.peak import HIGHEST
from tests.test_colour import colours, encoded

MOST = memory.MEGABYTES  # that a process may take for one picture
EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = EXIF.tobytes()


@pytest.fixture(autouse=True)
def usual():
    """The limit that a process begins with."""
    yield
    allow(MOST)


PEAK = f"""{HIGHEST}
import sys
from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.dedup.quality import measure
from kd3_pipeline.frames import to_square
from kd3_pipeline.images import decode, decode_reduced, decode_small, inspect
from kd3_pipeline.picturefile import ImageError
data = sys.stdin.buffer.read()
before = highest()
said = ""
try:
    inspect(data, 16)
    to_square(decode(data), 224, "crop")
    decode_reduced(data, 128)
    decode_small(data, 96)
    measure(data)
except ImageError as error:
    said = str(error)
fingerprint_images([data], "phash", False)
print(highest() - before, said)
"""


def plain(mode="RGB", size=(7000, 7000), colour=7):
    return Image.new(mode, size, colour)


def dotted(**more):
    """One colour and a dot: dedup looks at such a picture again, in full."""
    image = plain(**more)
    image.paste("white", (100, 100, 300, 300))
    return image


HOSTILE = {
    "WebP of few bytes": lambda: encoded(plain("RGBA"), "WEBP", lossless=True, method=0),
    "WebP as large as may be": lambda: encoded(
        plain("RGBA", (4000, 4000)), "WEBP", lossless=True, method=0
    ),
    "PNG": lambda: encoded(dotted(), "PNG"),
    "JPEG": lambda: encoded(dotted(), "JPEG"),
    "PNG with alpha, turned": lambda: encoded(plain("RGBA"), "PNG", exif=TURNED),
    "JPEG, turned": lambda: encoded(dotted(), "JPEG", exif=TURNED),
    "progressive JPEG": lambda: encoded(dotted(), "JPEG", progressive=True),
    "progressive JPEG in full colour": lambda: encoded(
        dotted(size=(6100, 6100)), "JPEG", progressive=True, subsampling=0
    ),
}

LONG = ("PNG with alpha, turned", "progressive JPEG in full colour")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's accounts")
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in LONG else ()) for one in HOSTILE]
)
def test_no_reader_takes_more_than_300_mb_for_a_picture(name):
    data = HOSTILE[name]()
    run = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True)
    peak, _, said = run.stdout.decode().partition(" ")
    assert float(peak) < MOST
    assert bool(said.strip()) == (name == "WebP of few bytes")


def test_what_takes_too_much_is_refused_with_its_size_before_it_is_decoded():
    data = HOSTILE["WebP of few bytes"]()
    for read in (lambda data: inspect(data, 16), decode, open_image):
        with pytest.raises(
            ImageError, match=r"7000 x 7000: .* takes 898 MB, more than 300"
        ) as told:
            read(data)
        assert (told.value.outcome, told.value.width) == ("too_many_pixels", 7000)


def test_the_limit_is_the_users_and_holds_wherever_a_picture_is_read():
    data = encoded(colours().crop((0, 0, 900, 900)).resize((900, 900)), "WEBP")
    allow(14)
    for read in (lambda data: inspect(data, 16), decode, open_image, lambda d: decode_small(d, 9)):
        with pytest.raises(ImageError, match=r"900 x 900: .* takes 15 MB, more than 14"):
            read(data)
    allow(15)
    assert inspect(data, 16).width == decode(data).width == 900


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"exif": TURNED}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {"exif": TURNED}),
        ("PNG", "RGBA", {}),
        ("PNG", "RGBA", {"exif": TURNED}),
        ("PNG", "LA", {}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}),
    ],
)
def test_what_fits_at_half_its_size_comes_so_and_shows_the_same(kind, mode, options):
    picture = colours().convert("RGB").resize((601, 403)).convert(mode)
    if mode.endswith("A"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    data = encoded(picture, kind, **options)
    whole = decode(data)
    allow(601 * 403 * 6 / memory.OF_PICTURE)
    half = decode(data)
    assert half.size == tuple(-(-side // 2) for side in whole.size) and half.mode == "RGB"
    near = np.asarray(whole.reduce(2)).astype(int) - np.asarray(half)
    assert np.abs(near).mean() < 2
    assert (inspect(data, 16).width, inspect(data, 16).height) == (601, 403)
    allow(601 * 403 * 20 / memory.OF_PICTURE)
    assert decode(data).size == whole.size


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}]
)
def test_the_size_of_a_webp_is_read_before_it_is_opened(options):
    data = encoded(colours().crop((0, 0, 77, 33)), "WEBP", **options)
    assert webp_size(data) == (77, 33)
    assert webp_size(data[:25]) == webp_size(b"RIFF") == (0, 0)


def test_stored_pictures_that_are_too_large_now_are_known_by_their_record():
    assert is_too_large(5000, 5000, "WEBP") and not is_too_large(4000, 4000, "WEBP")
    assert is_too_large(65_536, 1, "PNG") and not is_too_large(7000, 7000, "JPEG")
    allow(1200)
    assert not is_too_large(7000, 7000, "WEBP") and not is_too_large(7000, 7000, "AVIF")
