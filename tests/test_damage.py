"""Damage that decoders pass over: pictures drawn here, overwritten in their middle."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.damage import jpeg_damage
from kd3_pipeline.images import decode, inspect
from kd3_pipeline.picturefile import ImageError

TEXT = b"<p>Lorem ipsum dolor sit amet, consectetur adipiscing elit.</p>\n" * 100


def photograph(seed, side=400):
    """Smooth colours with a texture everywhere."""
    draws = np.random.default_rng(seed)
    coarse = Image.fromarray(draws.integers(0, 256, (9, 9, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), int)
    fine = draws.normal(0, 12, (side, side, 1))
    return Image.fromarray((smooth + fine).clip(0, 255).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def overwritten(data, block, seed=0):
    """`data` with a block of other bytes somewhere in its middle half."""
    place = random.Random(seed).randrange(len(data) // 4, 3 * len(data) // 4 - len(block))
    return data[:place] + block + data[place + len(block) :]


def outcome(data, **options):
    try:
        inspect(data, 1, **options)
    except ImageError as error:
        return error.outcome
    return "ok"


OPTIONS = {
    "baseline": {},
    "4:4:4": {"subsampling": 0, "quality": 95},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 1},
    "optimised": {"optimize": True, "quality": 40},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_jpegs_of_every_kind_pass(name, mode):
    for seed in range(5):
        assert outcome(encoded(photograph(seed).convert(mode), **OPTIONS[name])) == "ok"


BLOCKS = {
    "zeros": bytes(1024),
    "random": random.Random(0).randbytes(1024),
    "ff": b"\xff" * 1024,
    "text": TEXT[:1024],
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_jpegs_whose_middle_is_overwritten_are_refused(kind, mode):
    broken = [
        overwritten(encoded(photograph(seed).convert(mode)), BLOCKS[kind], seed)
        for seed in range(10)
    ]
    found = [outcome(data) for data in broken]
    assert {"damaged", "truncated", "ok"} >= set(found)
    assert found.count("ok") <= 4  # where decoding finds its way again after just so many blocks


def test_a_damaged_jpeg_is_kept_if_so_asked_and_says_why_if_not():
    data = overwritten(encoded(photograph(3)), bytes(512))
    with pytest.raises(ImageError) as caught:
        inspect(data, 1)
    assert caught.value.outcome == "damaged"
    assert (caught.value.width, caught.value.height) == (400, 400)
    assert "data segment" in str(caught.value) or "extraneous bytes" in str(caught.value)
    assert inspect(data, 1, keep_damaged=True).width == 400
    assert decode(data).size == (400, 400)


def before_end(data, more):
    return data[:-2] + more + data[-2:]


@pytest.mark.parametrize("stray", [b"\x11", b"abc", bytes(500), b"\x55" * 40])
def test_padding_at_the_end_of_a_jpeg_harms_nothing(stray):
    assert outcome(before_end(encoded(photograph(1)), stray)) == "ok"


def test_much_else_at_the_end_of_a_jpeg_does():
    assert outcome(before_end(encoded(photograph(1)), bytes(range(1, 60)))) == "damaged"


def test_stray_bytes_between_the_segments_of_a_header_harm_nothing():
    data = encoded(photograph(1))
    table = data.index(b"\xff\xdb")
    assert outcome(data[:table] + b"stray bytes" + data[table:]) == "ok"


def test_what_follows_the_end_of_a_jpeg_harms_nothing():
    assert outcome(encoded(photograph(1)) + TEXT) == "ok"


def test_warnings_of_other_things_than_pixels_are_no_damage():
    assert jpeg_damage(encoded(photograph(1)), "Warning: unknown JFIF revision number 9.09") == ""


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_other_formats_show_it_by_their_own_checks(kind, form):
    data = encoded(photograph(1), form)
    assert outcome(data) == "ok"
    assert outcome(overwritten(data, BLOCKS[kind])) == "truncated"


def test_what_is_left_of_a_gif_or_webp_is_refused():
    for form in ("GIF", "WEBP"):
        data = encoded(photograph(1), form)
        for share in (0.3, 0.6, 0.9):
            assert outcome(data[: int(len(data) * share)]) in ("truncated", "not_an_image")
