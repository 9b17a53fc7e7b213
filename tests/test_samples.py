"""Samples of 16 bits, as a PNG of its own writer has them: Pillow writes none in colour."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.images import decode, decode_reduced, decode_small, inspect
from kd3_pipeline.samples import used_bits

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # samples a pixel -> PNG's colour type


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def deep_png(values, *, significant=None, hidden=None):
    """A PNG of 16 bits a sample from uint16 [H, W, 1 to 4]."""
    height, width, samples = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[samples], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", header)]
    if significant is not None:
        chunks.append((b"sBIT", bytes(significant)))
    if hidden is not None:
        chunks.append((b"tRNS", struct.pack(f">{len(hidden)}H", *hidden)))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def picture(most, samples):
    """Uint16 [40, 50, samples] with every brightness up to `most`, alpha opaque."""
    ramp = np.linspace(0, most, 40 * 50).round().astype(np.uint16).reshape(40, 50)
    bands = [ramp, ramp[::-1], ramp.T.reshape(40, 50)][: 1 if samples < 3 else 3]
    if samples in (2, 4):
        bands.append(np.full_like(ramp, most))
    return np.stack(bands, axis=-1)


def shown(data):
    return np.asarray(decode(data), int)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_values_of_fewer_bits_are_as_bright_as_those_of_sixteen(bits, samples):
    values = picture(2**bits - 1, samples)
    data = deep_png(values)
    expected = values[..., : 1 if samples < 3 else 3] / (2**bits - 1) * 255
    assert np.abs(shown(data) - expected).max() <= 1
    remark = inspect(data, 1).detail
    expected_words = {10: "values of 10 bits in 16: brightened 64×", 16: ""}
    assert remark == expected_words.get(bits, remark)
    assert remark.startswith(f"values of {bits} bits in 16") or bits == 16


@pytest.mark.parametrize("samples", [1, 3])
def test_all_ways_of_decoding_show_the_same_brightness(samples):
    values = np.full((90, 90, samples), 2048, np.uint16)
    values[0] = 4095
    data = deep_png(values)
    reduced, _, full = decode_reduced(data, 30)
    for image in (decode(data), decode_small(data, 30), reduced, full):
        assert image.convert("RGB").getpixel((15, 20)) == (128,) * 3


def test_a_dark_picture_of_sixteen_bits_is_brightened_and_keeps_its_order():
    values = picture(4000, 1)
    grey = shown(deep_png(values))[..., 0]
    order = np.argsort(values[..., 0].ravel(), kind="stable")
    assert (np.diff(grey.ravel()[order]) >= 0).all()
    assert len(np.unique(grey)) > 240 and grey.max() == 4000 >> 4


def test_one_bright_pixel_says_that_all_sixteen_bits_are_used():
    values = picture(4000, 3)
    values[7, 9, 2] = 65_535
    assert shown(deep_png(values)).max() == 255
    assert np.abs(shown(deep_png(values))[0, :, 0] - (values[0, :, 0] >> 8)).max() == 0
    assert inspect(deep_png(values), 1).detail == ""


@pytest.mark.parametrize("samples", [1, 3])
def test_a_file_that_says_how_many_bits_are_significant_is_believed(samples):
    dark = picture(4000, samples)
    assert shown(deep_png(dark, significant=[16] * samples)).max() == 4000 >> 8
    assert shown(deep_png(dark, significant=[13] * samples)).max() == 4000 >> 5
    # the specification has values scaled to 16 bits whatever sBIT says: these are
    scaled = picture(65_535, samples)
    assert shown(deep_png(scaled, significant=[12] * samples)).max() == 255
    assert inspect(deep_png(scaled, significant=[12] * samples), 1).detail == ""


def test_black_and_white_of_sixteen_bits_stay_what_they_are():
    black, white = (np.full((9, 9, 3), value, np.uint16) for value in (0, 65_535))
    assert shown(deep_png(black)).max() == 0
    assert shown(deep_png(white)).min() == 255


@pytest.mark.parametrize("samples", [2, 4])
def test_alpha_has_bits_of_its_own(samples):
    values = picture(4095, samples)
    values[..., -1] = 65_535  # opaque in 16 bits, beside colours of 12
    values[:10, :, -1] = 0
    pixels = shown(deep_png(values))
    assert pixels[:10].min() == 255  # on white
    assert np.abs(pixels[10:, :, 0] - values[10:, :, 0] / 4095 * 255).max() <= 1


@pytest.mark.parametrize("most", [4095, 65_535])
def test_a_transparent_colour_of_sixteen_bits_is_shown_on_white(most):
    grey = picture(most, 1)
    grey[:5] = 0
    assert (shown(deep_png(grey, hidden=[0]))[:5] == 255).all()
    assert shown(deep_png(grey, hidden=[0]))[20, 20, 0] < 250


def test_of_twelve_bits_one_colour_may_be_transparent():
    colour = picture(4095, 3)
    colour[:5] = (1, 2, 3)
    pixels = shown(deep_png(colour, hidden=[1, 2, 3]))
    assert (pixels[:5] == 255).all()
    assert np.abs(pixels[6:, :, 0] - colour[6:, :, 0] / 4095 * 255).max() <= 1


def test_what_pillow_writes_is_read_alike():
    values = picture(4095, 1)[..., 0]
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    assert np.array_equal(shown(out.getvalue()), shown(deep_png(values[..., None])))


@pytest.mark.parametrize(
    ("most", "significant", "bits"),
    [
        *((0, 0, 8), (255, 0, 8), (256, 0, 10), (1023, 0, 10), (1024, 0, 12), (4096, 0, 14)),
        *((16_384, 0, 16), (255, 12, 12), (4096, 12, 14), (65_535, 12, 16), (5, 16, 16)),
        *((5, 4, 4), (5, 200, 8)),
    ],
)
def test_bits_in_use_are_those_that_hold_the_largest_value(most, significant, bits):
    assert used_bits(most, significant) == bits
