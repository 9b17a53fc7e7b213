import io

import pytest
from PIL import Image, features

from kd3_pipeline.formats import picture_kind, readable
from kd3_pipeline.imagesource.kinds import is_parquet, is_picture, is_tar

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
AVIF_AS_MIF1 = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(100)


def encoded(kind: str, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (20, 20)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"]
)
def test_every_format_that_is_read_is_known_by_its_content(kind):
    if kind in ("AVIF", "JPEG2000") and not features.check({"AVIF": "avif"}.get(kind, "jpg_2000")):
        pytest.skip("this Pillow has no codec for it")
    assert picture_kind(encoded(kind)[:512]) == kind
    assert kind in readable()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (HEIC, "HEIC"),
        (AVIF_AS_MIF1, "AVIF"),
        (encoded("ICO"), "ICO"),
        (b"8BPS\0\1" + bytes(50), "Photoshop"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (bytes(128) + b"DICM" + bytes(50), "DICOM"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9), "JPEG XL"),
    ],
)
def test_pictures_that_are_not_read_are_known_too(head, kind):
    assert picture_kind(head) == kind
    assert (kind in readable()) == (kind == "AVIF")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"BM is how this note begins, and it is no picture",
        b"P6 is a road in Norway 3",
        b"<html><body>svg</body></html>",
        b"<?xml version='1.0'?><annotation/>",
        b"\0\0\0\x18ftypisom\0\0\0\0mp42" + bytes(40),
        b"\0\0\1\xba" + bytes(40),
        b"PK\3\4" + bytes(40),
        b"RIFF\0\0\0\0WAVE" + bytes(40),
    ],
)
def test_what_is_no_picture_is_not_taken_for_one(head):
    assert picture_kind(head) == ""
    assert not is_picture("notes", head)


@pytest.mark.parametrize("name", ["a.JFIF", "deep/er/a.tif", "a.b.heic", "a.jpe", "a.nef"])
def test_a_name_of_a_picture_is_enough_to_be_looked_at(name):
    assert is_picture(name, b"<html>")
    assert not is_picture(name.rpartition(".")[0] + ".txt", b"<html>")


def test_archives_and_tables_are_known_by_content_or_name():
    assert is_tar("shard", bytes(257) + b"ustar\0" + bytes(200))
    assert is_tar("x.TGZ", b"") and is_tar("x.tar.xz", b"") and not is_tar("x.gz", b"\x1f\x8b")
    assert (
        is_parquet("x", b"PAR1....") and is_parquet("x.parquet", b"") and not is_parquet("x", b"")
    )
