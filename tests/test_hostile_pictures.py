"""Pictures made to break or to fill whoever reads them, and those that no browser shows."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from kd3_pipeline.damage import MOST_SEGMENTS
from kd3_pipeline.images import (
    decode,
    decode_reduced,
    decode_small,
    inspect,
)
from kd3_pipeline.picturefile import ImageError, is_large
from kd3_pipeline.pngfile import MOST_CHUNKS
from tests.peak import HIGHEST
from tests.test_colour import chunk, colours, encoded

JPEG, PNG = encoded(colours(), "JPEG"), encoded(colours(), "PNG")
PROGRESSIVE = encoded(colours(), "JPEG", progressive=True)
READERS = {
    "inspect": lambda data: inspect(data, 8),
    "decode": decode,
    "decode_reduced": lambda data: decode_reduced(data, 32),
    "decode_small": lambda data: decode_small(data, 32),
    "is_large": is_large,
}


def without_sampling(data):
    """A JPEG of components that have no pixels."""
    broken, frame = bytearray(data), data.index(b"\xff\xc2")
    for component in range(3):
        broken[frame + 11 + 3 * component] = 0
    return bytes(broken)


def refused(data):
    """What all readers say of a picture, which is the same."""
    said = set()
    for read in READERS.values():
        with pytest.raises(ImageError) as caught:
            read(data)
        said.add((caught.value.outcome, str(caught.value)))
    ((outcome, detail),) = said
    assert outcome == "not_an_image"
    return detail


def test_a_jpeg_whose_components_have_no_size_is_no_image():
    assert "ZeroDivisionError" in refused(without_sampling(PROGRESSIVE))


BROKEN = {
    "a PNG with the unknown chunk CgBI": PNG[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + PNG[8:],
    "a PNG with the unknown chunk AaAA": PNG[:33] + chunk(b"AaAA", b"x") + PNG[33:],
    "header, or has two": PNG[:33] + PNG[8:33] + PNG[33:],
    "does not begin with its header": PNG[:8] + chunk(b"tEXt", b"a\0b") + PNG[8:],
    "in a packing that there is not": PNG[:8] + chunk(b"IHDR", PNG[16:26] + b"\1\0\0") + PNG[33:],
    "without its palette": PNG[:8]
    + chunk(b"IHDR", PNG[16:24] + b"\x08\3\0\0\0")
    + chunk(b"IDAT", zlib.compress(bytes(100_000)))
    + PNG[-12:],
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_png_that_no_browser_shows_is_no_image(why):
    assert why in refused(BROKEN[why]) or why == "a PNG with the unknown chunk CgBI"


def test_what_is_unknown_behind_the_pixels_costs_no_png():
    assert inspect(PNG[:-12] + chunk(b"AaAA", b"x") + PNG[-12:], 8).format == "PNG"


FILLING = {
    "segments": lambda: JPEG[:2] + b"\xff\xe1\0\2" * 1_000_000 + JPEG[2:],
    "segments behind an end": lambda: JPEG[:2] + b"\xff\xd9" + b"\xff\xfe\0\2" * 10**6 + JPEG[2:],
    "chunks": lambda: PNG[:-12] + chunk(b"AaAA", b"") * 1_000_000 + PNG[-12:],
    "transparencies": lambda: PNG[:33] + chunk(b"tRNS", bytes(6)) * 1_000_000 + PNG[33:],
}
PEAK = f"""{HIGHEST}
import sys
from kd3_pipeline.images import inspect
from kd3_pipeline.picturefile import ImageError
data = sys.stdin.buffer.read()
before = highest()
try:
    inspect(data, 8)
except ImageError as error:
    print(highest() - before, error)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's accounts")
@pytest.mark.parametrize("name", FILLING)
def test_a_picture_of_a_million_parts_takes_no_memory(name):
    run = subprocess.run(
        [sys.executable, "-c", PEAK], input=FILLING[name](), capture_output=True, check=True
    )
    peak, _, said = run.stdout.decode().partition(" ")
    assert float(peak) < 60
    assert f"more than {MOST_CHUNKS if name[0] in 'ct' else MOST_SEGMENTS:,}" in said


def test_a_picture_of_a_few_hundred_parts_is_one():
    assert inspect(JPEG[:2] + b"\xff\xe1\0\2" * 400 + JPEG[2:], 8).format == "JPEG"
    pieces = zlib.compress(bytes(3 * 64 * 64 + 64), 0)
    small = [chunk(b"IDAT", pieces[at : at + 4]) for at in range(0, len(pieces), 4)]
    head = chunk(b"IHDR", b"\0\0\0\x40\0\0\0\x40\x08\2\0\0\0")
    assert inspect(PNG[:8] + head + b"".join(small) + PNG[-12:], 8).width == 64


ROWS = {  # mode, bytes of a row with its filter
    "RGB": 1 + 3 * 40,
    "RGBA": 1 + 4 * 40,
    "L": 1 + 40,
    "1": 1 + 5,
    "P": 1 + 5,  # of one colour
    "I;16": 1 + 2 * 40,
}


@pytest.mark.parametrize("mode", ROWS)
def test_a_png_that_ends_with_one_of_its_rows_is_truncated(mode):
    black = Image.new(mode, (40, 30))
    whole = encoded(black, "PNG")
    assert inspect(whole, 8).height == 30  # its last row is black as well
    pixels = zlib.compress(bytes(ROWS[mode] * 15))
    head = whole[: whole.index(b"IDAT") - 4]
    cut = head + chunk(b"IDAT", pixels) + whole[-12:]
    for read in (READERS["inspect"], decode):
        with pytest.raises(ImageError, match="end before its last row") as caught:
            read(cut)
        assert caught.value.outcome == "truncated"
