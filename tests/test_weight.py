"""How much memory a picture may take, wherever it is decoded."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kd3_pipeline.images import ImageError, decode, inspect, open_image
from kd3_pipeline.weight import MOST_BYTES, is_too_large, webp_size
from tests.test_colour import colours, encoded

MOST = 300  # MB that a process may take for one picture
PEAK = """
import sys
from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.dedup.quality import measure
from kd3_pipeline.images import ImageError, decode, decode_reduced, decode_small, inspect, to_square
data = sys.stdin.buffer.read()
def highest():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
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
    "PNG with alpha": lambda: encoded(plain("RGBA"), "PNG"),
    "JPEG": lambda: encoded(dotted(), "JPEG"),
    "progressive JPEG": lambda: encoded(dotted(size=(6100, 6100)), "JPEG", progressive=True),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's accounts")
@pytest.mark.parametrize("name", HOSTILE)
def test_no_reader_takes_more_than_300_mb_for_a_picture(name):
    data = HOSTILE[name]()
    run = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True)
    peak, _, said = run.stdout.decode().partition(" ")
    assert float(peak) < MOST
    assert bool(said.strip()) == (name in ("WebP of few bytes", "PNG with alpha"))


def test_what_takes_too_much_is_refused_with_its_size_before_it_is_decoded():
    for data in (HOSTILE["WebP of few bytes"](), HOSTILE["PNG with alpha"]()):
        for read in (lambda data: inspect(data, 16), decode, open_image):
            with pytest.raises(ImageError, match=r"7000 x 7000: .* takes \d+ MB") as caught:
                read(data)
            assert (caught.value.outcome, caught.value.width) == ("too_many_pixels", 7000)


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}]
)
def test_the_size_of_a_webp_is_read_before_it_is_opened(options):
    data = encoded(colours().crop((0, 0, 77, 33)), "WEBP", **options)
    assert webp_size(data) == (77, 33)
    assert webp_size(data[:25]) == webp_size(b"RIFF") == (0, 0)


def test_a_turned_picture_counts_twice():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (6000, 6000))
    assert inspect(encoded(image, "JPEG"), 16).width == 6000
    with pytest.raises(ImageError, match="288 MB"):
        inspect(encoded(image, "JPEG", exif=exif.tobytes()), 16)


def test_stored_pictures_that_are_too_large_now_are_known_by_their_record():
    assert is_too_large(5000, 5000, "WEBP") and not is_too_large(4000, 4000, "WEBP")
    assert is_too_large(65_536, 1, "PNG") and not is_too_large(7000, 7000, "JPEG")
    assert MOST_BYTES < 1e6 * MOST
