"""Formats of pictures: which are read, from where, and what the first bytes of a file say."""

import re
from functools import cache

from PIL import features

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")  # from the web: the less, the safer
OWN_FORMATS = (*FORMATS, "TIFF", "PPM", "JPEG2000")  # from files of the user's own
SIGNATURES = {  # what these are read as, if at all, is for Pillow to say
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS\0": "Photoshop",
    b"gimp xcf": "GIMP",
    b"qoif": "QOI",
    b"DDS |": "DDS",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance",
    b"FUJIFILMCCD-RAW": "a camera's raw",
    b"IIU\0": "a camera's raw",
    b"IIRO": "a camera's raw",
    b"SIMPLE  =": "FITS",
}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # bytes of the header behind the file's own
PORTABLE = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*[0-9]+\s+(?:#[^\n]*\n\s*)*[0-9]+\s")
SVG = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:\?xml|!--|!DOCTYPE svg|svg\b)")
NEEDS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # built into Pillow, or not
HEAD = 512  # bytes that `picture_kind` wants to see; a tar says what it is at 257


def picture_kind(head: bytes) -> str:
    """The format of a picture that begins so, "" for what is none that is known."""
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _brand(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if PORTABLE.match(head):
        return "PPM"
    if SVG.match(head) and b"<svg" in head:
        return "SVG"
    if head[:4] == b"\0\0\1\0" and head[5:6] == b"\0" and head[9:10] == b"\0" and len(head) > 21:
        return "ICO"
    return "DICOM" if head[128:132] == b"DICM" else ""


def _brand(head: bytes) -> str:
    box = head[: max(16, min(int.from_bytes(head[:4], "big"), len(head)))]
    brands = {box[start : start + 4] for start in range(8, len(box) - 3, 4)}
    if brands & AVIF_BRANDS:
        return "AVIF"
    if brands & HEIF_BRANDS:
        return "HEIC"
    return "a camera's raw" if head[8:11] == b"crx" else ""


@cache
def readable(formats: tuple[str, ...] = OWN_FORMATS) -> tuple[str, ...]:
    """Those of the formats that are read here: Pillow may be built without some."""
    return tuple(kind for kind in formats if kind not in NEEDS or features.check(NEEDS[kind]))


def accepted() -> str:
    """The header Accept of a request for a picture: what is read, and last anything else.

    A host that has several forms of a picture sends one of these; `image/*` would ask for HEIC and
    SVG as well. Browsers end with `*/*` too: without it, a host that is strict about what it calls
    its pictures (`image/jpg`, `application/octet-stream`) answers 406.
    """
    return ",".join([*(f"image/{kind.lower()}" for kind in readable(FORMATS)), "*/*;q=0.1"])


@cache
def suffixes() -> str:
    """A pattern of what follows the dot in the names of pictures that are read from the web."""
    kinds = (kind.lower().replace("jpeg", "jpe?g") for kind in readable(FORMATS))
    return f"(?:{'|'.join(kinds)})"
