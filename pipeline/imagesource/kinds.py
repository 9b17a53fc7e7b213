"""Kinds of files by their first bytes: a name says little, and may lie."""

import re
from functools import cache

from PIL import features

from pipeline.images import OWN_FORMATS

HEAD = 512  # bytes that `kind_of` wants to see; a tar says what it is at 257
# endings of pictures, read here or not: who names a file so expects it to be looked at
PICTURE_ENDINGS = re.compile(
    r"\.(a?png|jpe?g|jpe|jfif|jif|pjpe?g|pjp|gif|bmp|dib|webp|tiff?|jp2|j2[kc]|jp[fxc]|avifs?"
    r"|hei[cf]|hif|jxl|jxr|svgz?|psd|ico|qoi|p[pgbn]m|tga|dds|exr|hdr|xcf|cr[23]|nef|arw|dng|orf"
    r"|rw2|raf)"
)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
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


def ending(name: str) -> str:
    """The ending of a name in small letters, with its dot; "" for none."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if dot and stem else ""


def is_picture(name: str, head: bytes) -> bool:
    """Tells whether a file is to be looked at: a picture by content, or at least by its name."""
    return bool(PICTURE_ENDINGS.fullmatch(ending(name))) or bool(picture_kind(head))


def is_tar(name: str, head: bytes) -> bool:
    """Tells whether a file is an archive; a packed one has to be named so."""
    return head[257:262] == b"ustar" or name.lower().endswith(TAR_ENDINGS)


def is_parquet(name: str, head: bytes) -> bool:
    """Tells whether a file is a Parquet table."""
    return head[:4] == b"PAR1" or ending(name) == ".parquet"


@cache
def readable() -> tuple[str, ...]:
    """The formats that are read from files of the user's own; Pillow may lack some."""
    return tuple(kind for kind in OWN_FORMATS if kind not in NEEDS or features.check(NEEDS[kind]))
