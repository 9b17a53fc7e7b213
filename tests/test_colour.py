import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from kd3_pipeline.colour import PRIMARIES, matrix_profile
from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.images import decode, decode_reduced, decode_small, inspect

D65 = (0.3127, 0.3290)
BEST = {
    "JPEG": {"quality": 98, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True},
}
SPACES = {
    "Adobe RGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 2.2),
    "Display P3": (PRIMARIES[12], 2.2),
    "linear light": (PRIMARIES[1], 1.0),
    "swapped channels": (PRIMARIES[1][1:] + PRIMARIES[1][:1], 2.2),
}


def colours():
    """Patches of many colours that every space has, large enough for JPEG to keep them."""
    levels = np.random.default_rng(3).integers(40, 216, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(np.repeat(np.repeat(levels, 16, 0), 16, 1))


def xyz(primaries):
    matrix = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    return matrix * np.linalg.solve(matrix, white)


def in_space(image, primaries, gamma):
    """The same colours as numbers of another space."""
    level = np.asarray(image) / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    there = light @ (np.linalg.inv(xyz(primaries)) @ xyz(PRIMARIES[1])).T
    return Image.fromarray((255 * there.clip(0, 1) ** (1 / gamma)).round().astype(np.uint8))


def profile_of(name):
    primaries, gamma = SPACES[name]
    return matrix_profile(lambda level: level**gamma, primaries, D65)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def with_chunks(image, *chunks):
    data = encoded(image, "PNG")
    return data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:]


def off(shown, wanted):
    return np.abs(np.asarray(shown.convert("RGB"), float) - np.asarray(wanted, float)).mean()


def every_reader(data, size):
    """What each reader makes of a picture, at its own size."""
    reduced, box, _ = decode_reduced(data, 128)
    return [
        decode(data),
        decode_small(data, 1000),
        reduced.crop(tuple(map(round, box))).convert("RGB").resize(size, Image.Resampling.NEAREST),
    ]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", SPACES)
def test_a_picture_with_a_profile_comes_out_in_srgb_from_every_reader(name, kind):
    there = in_space(colours(), *SPACES[name])
    data = encoded(there, kind, icc_profile=profile_of(name), **BEST.get(kind, {}))
    assert off(there, colours()) > 3
    assert "colours brought to sRGB" in inspect(data, 16).detail
    for shown in every_reader(data, colours().size):
        assert off(shown, colours()) < 2
    prints, errors = fingerprint_images([data], "phash", False)
    plain, _ = fingerprint_images([encoded(colours(), "PNG")], "phash", False)
    assert errors == [""] and off(Image.fromarray(prints.colour[0]), plain.colour[0]) < 2


def test_a_large_jpeg_with_a_profile_is_reduced_in_srgb():
    size = (960, 800)
    large = colours().resize(size, Image.Resampling.NEAREST)
    there = in_space(large, *SPACES["swapped channels"])
    data = encoded(there, "JPEG", quality=95, icc_profile=profile_of("swapped channels"))
    reduced, _, full = decode_reduced(data, 128)
    assert full is None and reduced.size == (240, 200)
    assert off(reduced.resize(size, Image.Resampling.NEAREST), large) < 6


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_transparency_stays_where_colours_change(mode):
    there = in_space(colours(), *SPACES["linear light"]).convert("RGBA")
    there.paste((0, 0, 0, 0), (0, 0, 48, 80))
    if mode == "P":
        there = there.quantize(64)
    elif mode == "LA":
        there = there.convert("LA")
    shown = np.asarray(decode(encoded(there, "PNG", icc_profile=profile_of("linear light"))))
    assert (shown[:, :48] == 255).all()
    wanted = np.asarray(colours())[:, 48:]
    if mode != "LA":
        assert np.abs(shown[:, 48:].astype(float) - wanted).mean() < 4
    else:
        assert shown[:, 48:].mean() > np.asarray(there.convert("L"))[:, 48:].mean() + 30


def test_ink_and_grey_are_read_by_their_own_profiles():
    grey = Image.linear_gradient("L")
    light = bytearray(profile_of("linear light"))
    light[16:20] = b"GRAY"
    light = bytes(light).replace(b"rTRC", b"kTRC")
    shown = np.asarray(decode(encoded(grey, "PNG", icc_profile=light)))[:, 0, 0]
    level = np.arange(256) / 255
    wanted = 255 * np.where(level <= 0.0031308, 12.92 * level, 1.055 * level ** (1 / 2.4) - 0.055)
    assert np.abs(shown - wanted)[8:].max() < 3
    data = encoded(colours().convert("CMYK"), "JPEG", icc_profile=profile_of("Adobe RGB"))
    assert "a profile of RGB on pixels of CMYK" in inspect(data, 16).detail
    assert np.array_equal(
        np.asarray(decode(data)), np.asarray(decode(encoded(colours().convert("CMYK"), "JPEG")))
    )


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("profile", [SRGB, b"nonsense" * 50, b"", SRGB[:200], SRGB[:128] * 9])
def test_srgb_and_broken_profiles_leave_every_bit(kind, profile):
    plain, data = encoded(colours(), kind), encoded(colours(), kind, icc_profile=profile)
    detail = inspect(data, 16).detail
    assert ("colours taken for sRGB" in detail) == (profile not in (SRGB, b""))
    assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(plain)))


def gamma(value):
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def primaries(space, white=D65):
    numbers = [value for point in (white, *space) for value in point]
    return b"cHRM", struct.pack(">8I", *(round(100_000 * number) for number in numbers))


def test_a_png_says_its_colours_in_chunks():
    linear = in_space(colours(), PRIMARIES[1], 1.0)
    assert off(decode(with_chunks(linear, gamma(1.0))), colours()) < 3
    p3 = in_space(colours(), PRIMARIES[12], 2.2)
    for said in (
        [gamma(1 / 2.2), primaries(PRIMARIES[12])],
        [(b"cICP", bytes([12, 13, 0, 1]))],
        [(b"cICP", bytes([12, 13, 0, 1])), gamma(1.0)],
        [(b"iCCP", b"p3\0\0" + zlib.compress(profile_of("Display P3"))), gamma(1.0)],
    ):
        assert off(decode(with_chunks(p3, *said)), colours()) < 3
        assert "brought to sRGB" in inspect(with_chunks(p3, *said), 16).detail


@pytest.mark.parametrize(
    "said",
    [
        [gamma(0.45455)],
        [gamma(0.45455), primaries(PRIMARIES[1])],
        [(b"sRGB", b"\0"), gamma(1.0)],
        [gamma(0.0)],
        [(b"gAMA", b"")],
        [(b"cICP", bytes([1, 13, 0, 1]))],
        [(b"cICP", bytes([9, 16, 0, 1]))],
        [primaries(PRIMARIES[12])],
        [(b"cHRM", bytes(32))],
        [(b"cHRM", bytes(32)), gamma(0.45455)],
        [(b"cHRM", b"\xff" * 32), gamma(0.45455)],
    ],
)
def test_chunks_that_say_srgb_or_nonsense_leave_every_bit(said):
    assert np.array_equal(np.asarray(decode(with_chunks(colours(), *said))), np.asarray(colours()))


def test_an_avif_says_its_colours_by_code_points():
    there = in_space(colours(), PRIMARIES[12], 2.2)
    data = encoded(there, "AVIF", **BEST["AVIF"])
    at = data.index(b"colrnclx") + 8
    data = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert off(decode(data), colours()) < 3 < off(there, colours())
