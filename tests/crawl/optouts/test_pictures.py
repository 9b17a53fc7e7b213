"""Conformance: what the bytes of an image say, and what is nearly that."""

import time
import zlib

import pytest

from kd3_pipeline.crawl.optouts.pictures import image_signals
from tests.crawl.optouts import marked

DMI = marked.VOCABULARY + "DMI-"
NO = DMI + "PROHIBITED"
MARK = marked.attribute(NO)
NO_TRAINING = marked.assertion({"cawg.ai_training": "notAllowed"})
TRAINING = marked.assertion({"cawg.ai_training": "allowed"})
INGREDIENT = marked.XMP.format(
    '<rdf:Description rdf:about="" xmlns:m="http://ns.adobe.com/xap/1.0/mm/"><m:Ingredients>'
    f'<rdf:Description {marked.PLUS} plus:DataMining="{NO}"/></m:Ingredients></rdf:Description>'
)


def c2pa(*manifests):
    return marked.jpeg_c2pa(marked.store(*manifests))


def itxt(data):
    return marked.png(marked.chunk(b"iTXt", data))


def broken(data):
    return c2pa(marked.superbox("cawg.training-mining", marked.box(b"cbor", data)))


PICTURES = [
    *(
        (marked.with_xmp(form(value)), True)
        for form in (marked.attribute, marked.resource, marked.element)
        for value in (NO, "DMI-PROHIBITED", NO + "-AIMLTRAINING", NO + "-SEECONSTRAINT")
    ),
    (marked.with_xmp(marked.attribute(NO + "-GENAIMLTRAINING")), True),
    (marked.with_xmp(marked.attribute(NO + "-EXCEPTSEARCHENGINEINDEXING")), True),
    (marked.with_xmp(marked.attribute(NO + "-SEELINKEDRIGHTSEXPR")), True),
    (marked.with_xmp(MARK[:-40]), True),  # cut
    (marked.with_xmp(MARK.replace("plus:", "p:").replace(":plus", ":p")), True),
    (marked.with_extended_xmp(marked.resource(NO)), True),
    (marked.png_xmp(MARK), True),
    (marked.png_xmp(marked.element(NO), compressed=True), True),
    (marked.webp(b"XMP ", MARK.encode()), True),
    (marked.gif(MARK), True),
    (marked.with_xmp(marked.attribute(DMI + "ALLOWED")), False),
    (marked.with_xmp(marked.attribute(DMI + "UNSPECIFIED")), False),
    (marked.with_xmp(marked.attribute("")), False),
    (marked.with_xmp(marked.XMP.format("DataMining DMI-PROHIBITED")), False),
    (marked.with_xmp(MARK.replace("DataMining", "OtherMining")), False),
    (marked.with_xmp(MARK.replace("ns.useplus.org/ldf/xmp", "0.test")), False),
    (marked.with_xmp(INGREDIENT), False),  # of what it was made from
    (marked.jpeg(marked.segment(0xFE, MARK.encode())), False),  # a comment
    (marked.jpeg(marked.segment(0xE1, b"Exif\0\0" + MARK.encode())), False),
    (marked.jpeg() + MARK.encode(), False),  # behind the picture
    (itxt(b"Comment\0\0\0\0\0" + MARK.encode()), False),
    (itxt(b"XML:com.adobe.xmp\0\1\0\0\0no zlib DataMining"), False),
    *(
        (c2pa(marked.assertion({entry: use}, label)), refused)
        for label in ("cawg.training-mining", "c2pa.training-mining", "cawg.training-mining__2")
        for entry, use, refused in (
            ("cawg.ai_training", "notAllowed", True),
            ("c2pa.ai_generative_training", "notAllowed", True),
            ("c2pa.data_mining", "notAllowed", True),
            ("cawg.ai_training", "constrained", True),
            ("cawg.ai_training", "allowed", False),
            ("cawg.ai_inference", "notAllowed", False),
            ("cawg.ai_training", "notallowed?", False),
            ("org.example.other", "notAllowed", False),
        )
    ),
    (
        c2pa(marked.assertion({"c2pa.ai_training": "notAllowed"}, "c2pa.training-mining", "json")),
        True,
    ),
    (marked.png(marked.chunk(b"caBX", marked.store(NO_TRAINING))), True),
    (marked.webp(b"C2PA", marked.store(NO_TRAINING)), True),
    (marked.gif_c2pa(marked.store(NO_TRAINING)), True),
    (c2pa(NO_TRAINING, b""), True),  # what an earlier manifest says holds
    (c2pa(NO_TRAINING, TRAINING), False),  # until a later one says otherwise
    (c2pa(TRAINING, NO_TRAINING), True),
    (c2pa(marked.assertion({"cawg.ai_training": "notAllowed"}, "org.training-mining")), False),
    (c2pa(b""), False),
    (broken(b"\x9b" + b"\xff" * 8), False),
    (broken(b"\x81" * 5000), False),
    *((data, False) for data in (b"", b"\xff\xd8", b"\x89PNG", b"RIFF\0\0\0\0WEBP", marked.jpeg())),
    (b"\xff\xd8" + b"\xff" * 100_000, False),
]


@pytest.mark.parametrize(("data", "refused"), PICTURES, ids=range(len(PICTURES)))
def test_marks_inside_of_images_are_read(data, refused):
    found = image_signals(data)
    assert (False in {one.allows for one in found}) is refused
    assert {one.kind for one in found} <= {"data-mining", "c2pa"}


ENTITIES = "".join(
    f'<!ENTITY b{n} "{f"&b{n - 1};" * 9 if n else "aaaaaaaaaa"}">' for n in range(20)
)


# a chunk of 8 kB that unpacks to 8 MB of elements
PACKED = marked.chunk(
    b"iTXt",
    b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x>DataMining" + b"<a/>" * 2_000_000, 9),
)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + marked.segment(0xE1, b"x") * 200_000,
        b"\x89PNG\r\n\x1a\n" + marked.chunk(b"iTXt", b"XML:com.adobe.xmp\0") * 50_000,
        b"RIFF\0\0\0\0WEBP" + bytes(2_000_000),
        marked.png_xmp("DataMining" + " " * 50_000_000, compressed=True),
        marked.with_xmp(marked.XMP.format("DataMining" + "<a>" * 15_000)),
        marked.with_xmp(f"<!DOCTYPE x [{ENTITIES}]><x>DataMining &b19;</x>"),
        marked.jpeg_c2pa(marked.superbox("c2pa", *[marked.superbox("x.training-mining")] * 20_000)),
        broken(b"\x7f" * 50_000),
        marked.png(PACKED * 200),
    ],
    ids=range(9),
)
def test_hostile_images_take_no_time(data):
    start = time.process_time()
    assert all(one.allows is None for one in image_signals(data))
    assert time.process_time() - start < 2


def test_an_image_without_metadata_is_looked_at_in_no_time():
    data = marked.jpeg(
        marked.segment(0xE0, b"JFIF\0"), marked.segment(0xE1, b"Exif\0\0" + bytes(9000))
    )
    start = time.process_time()
    for _ in range(1000):
        image_signals(data)
    assert time.process_time() - start < 0.5  # half a millisecond each, on any machine
