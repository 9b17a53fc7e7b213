"""What a browser shows although something is wrong with the file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.dedup.quality import measure
from kd3_pipeline.formats import FORMATS
from kd3_pipeline.images import decode, decode_reduced, decode_small, inspect
from kd3_pipeline.picturefile import ImageError
from tests.test_colour import chunk, colours, encoded

PNG = encoded(colours(), "PNG")


def png(*chunks, last=False):
    extra = b"".join(chunks)
    return PNG[:-12] + extra + PNG[-12:] if last else PNG[:33] + extra + PNG[33:]


def broken(data):
    """A chunk whose checksum is another's."""
    return data[:-4] + b"\0\0\0\0"


TWO_MEGABYTES = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))
WHOLE = {
    "a text of a wrong checksum": png(broken(chunk(b"tEXt", b"a\0b"))),
    "a text of a wrong checksum behind": png(broken(chunk(b"tEXt", b"a\0b")), last=True),
    "transparency of a wrong checksum": png(broken(chunk(b"tRNS", bytes(6)))),
    "transparency that is too short": png(chunk(b"tRNS", b"\0")),
    "EXIF of a wrong checksum": png(broken(chunk(b"eXIf", b"nonsense"))),
    "an unknown remark of a wrong checksum": png(broken(chunk(b"abCd", b"x"))),
    "a text of two megabytes": png(TWO_MEGABYTES),
    "a text of two megabytes behind": png(TWO_MEGABYTES, last=True),
    "a hundred of them": png(*[TWO_MEGABYTES] * 100),
    "XMP of two megabytes": png(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2_000_000)))
    ),
    "a text in a packing that is none": png(chunk(b"zTXt", b"k\0\7nozlib")),
    "a profile in a packing that is none": png(chunk(b"iCCP", b"k\0\7nozlib")),
    "a profile of five megabytes": png(chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(5_000_000)))),
    "a size of paper that is too short": png(chunk(b"pHYs", b"\0")),
    "an animation that is none": png(chunk(b"acTL", b"\0"), chunk(b"fcTL", b"\0" * 26)),
    "a text that is cut off": PNG[:-12] + struct.pack(">I", 99) + b"tEXtabc",
    "no end": PNG[:-12],
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_pixel_costs_no_png(name):
    data = WHOLE[name]
    detail = inspect(data, 16).detail
    if "checksum" in name or ("too short" in name and "paper" not in name):
        assert detail.startswith("passed over: ")
    assert np.array_equal(np.asarray(decode(data)), np.asarray(colours()))
    assert decode_small(data, 9).size == (9, 8) and decode_reduced(data, 128)[2] is not None
    assert fingerprint_images([data], "phash", False)[1] == [""]
    assert measure(data).content == measure(PNG).content


def jpegs():
    photo = colours().resize((300, 250), Image.Resampling.BICUBIC)
    return {
        "baseline": encoded(photo, "JPEG"),
        "progressive": encoded(photo, "JPEG", progressive=True),
        "grey": encoded(photo.convert("L"), "JPEG"),
        "ink": encoded(photo.convert("CMYK"), "JPEG"),
        "with a small one inside": encoded(
            photo, "JPEG", exif=b"Exif\0\0" + encoded(photo, "JPEG")
        ),
    }


@pytest.mark.parametrize("name", jpegs())
def test_a_jpeg_that_only_lacks_its_end_is_kept_and_one_that_lacks_more_is_not(name):
    data = jpegs()[name]
    for missing in (1, 2):
        cut = data[:-missing]
        assert inspect(cut, 16).width == 300
        assert np.array_equal(np.asarray(decode(cut)), np.asarray(decode(data)))
        assert fingerprint_images([cut], "phash", False)[1] == [""]
        assert decode_small(cut, 30).size == (30, 25) and measure(cut)
    for share in (0.3, 0.5, 0.7, 0.9, 0.95, 0.99):
        cut = data[: int(len(data) * share)]
        for read in (lambda data: inspect(data, 16, keep_damaged=True), decode):
            with pytest.raises(ImageError) as caught:
                read(cut)
            assert caught.value.outcome in ("truncated", "not_an_image")


def test_a_progressive_jpeg_that_ends_between_two_scans_is_not_whole():
    data = jpegs()["progressive"]
    at = 0
    ends = []
    while (at := data.find(b"\xff\xda", at + 1)) > 0:
        ends.append(at)
    assert len(ends) > 5
    for end in ends:
        with pytest.raises(ImageError):
            inspect(data[:end], 16)
        with pytest.raises(ImageError):
            decode(data[:end])


def test_a_webp_of_a_wrong_size_is_kept_where_its_parts_are_whole():
    data = encoded(colours(), "WEBP", lossless=True)
    wrong = data[:4] + struct.pack("<I", len(data) + 100) + data[8:]
    assert inspect(wrong, 16).width == 96
    assert np.array_equal(np.asarray(decode(wrong)), np.asarray(colours()))
    with pytest.raises(ImageError):
        inspect(wrong[: len(wrong) // 2], 16)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_that_cannot_be_opened_for_want_of_its_end_is_called_so(kind):
    data = encoded(colours(), kind)
    for cut in (30, 40, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(ImageError) as caught:
            inspect(data[:cut], 16)
        assert caught.value.outcome == "truncated"
        assert "none of" not in str(caught.value)
        if kind == "WEBP":  # it is opened whole or not at all
            assert str(caught.value).startswith("WEBP that ends early")


def test_a_gif_without_a_picture_is_no_other_kind_of_file():
    data = encoded(colours(), "GIF")
    palette = 3 * 2 ** ((data[10] & 7) + 1)
    with pytest.raises(ImageError, match=r"^GIF that ends early") as caught:
        inspect(data[: 13 + palette] + b";", 16)
    assert caught.value.outcome == "truncated"


def gif(transparent=False):
    """A canvas of 64 pixels of which a frame of 32 is blue; colour 0 of its palette is red."""
    small = Image.new("P", (32, 32), 1)
    small.putpalette([255, 0, 0, 0, 0, 255])
    out = io.BytesIO()
    small.save(out, "GIF", **({"transparency": 0} if transparent else {}))
    data = bytearray(out.getvalue())
    data[6:10] = struct.pack("<HH", 64, 64)
    at = data.index(b",", 13 + 6)
    data[at + 1 : at + 5] = struct.pack("<HH", 8, 16)
    return bytes(data)


@pytest.mark.parametrize("transparent", [False, True])
def test_where_a_gif_has_no_frame_it_is_white(transparent):
    data = gif(transparent)
    assert inspect(data, 16).width == 64
    shown = decode(data)
    assert shown.getpixel((20, 20)) == (0, 0, 255)
    for place in ((1, 20), (50, 20), (20, 5), (20, 60), (63, 63)):
        assert shown.getpixel(place) == (255, 255, 255)
    assert decode_small(data, 64).getpixel((63, 63)) == (255, 255, 255)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "AVIF"])
def test_only_exif_turns_a_picture(kind):
    exif = Image.Exif()
    exif[0x011A] = 72.0  # it says something, and nothing of how it stands
    if kind == "PNG":
        data = png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))
    else:
        data = encoded(colours(), kind, xmp=XMP, exif=exif.tobytes())
    assert decode(data).size == decode_small(data, 1000).size == (96, 80)
    assert decode_reduced(data, 16)[0].width > decode_reduced(data, 16)[0].height
    exif[0x0112] = 8
    assert decode(encoded(colours(), kind, exif=exif.tobytes())).size == (80, 96)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
SVG = b"<!-- drawn by hand -->" * 40 + b'<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.mark.parametrize(
    ("data", "kind"),
    [(HEIC, "HEIC"), (SVG, "SVG"), (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9), "JPEG XL")],
)
def test_a_picture_of_a_kind_that_is_not_read_is_named(data, kind):
    with pytest.raises(ImageError, match=f": {kind}, which is not read"):
        inspect(data, 16)
