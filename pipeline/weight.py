"""Bytes that a picture takes while it is decoded: of its pixels, and of its decoder.

A WebP of 46 bytes may have 50 million pixels, of which its decoder holds four copies. The numbers
are bytes a pixel at the highest point, as measured, until the picture is RGB and upright.
"""

import re

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from kd3_pipeline.damage import first_scan
from kd3_pipeline.memory import OF_PICTURE, allowed, most_bytes

TOO_HEAVY = re.compile(r"to decode it takes (\d+) MB, more than \d+$")
LONGEST = 65_535  # pixels of a side; the filters of longer ones alone fill the memory
WEBP_WEIGHT = 16.5  # two canvases of the animation decoder, what it hands over, and the picture
DECODERS = {"AVIF": 20, "JPEG2000": 20}
RGB = 4  # Pillow's, of a pixel
OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # others are four
DEEP_GREY, DEEP_COLOUR = 10, 18  # of 16 bits, which become eight


def weight(image: Image.Image, data: bytes, turned: bool, in_scans: bool) -> float:
    """Bytes a pixel that an open picture takes until it is RGB, and upright if it is `turned`.

    Args:
        in_scans: a JPEG that `comes_in_scans`.
    """
    if image.format == "WEBP":
        return WEBP_WEIGHT
    if image.format in DECODERS:
        return DECODERS[image.format]
    own: float = OF_MODE.get(image.mode, 4)
    if image.mode.startswith("I;16"):
        return DEEP_GREY
    if image.format == "PNG" and data[24:25] == b"\x10":
        return DEEP_COLOUR
    made = 0 if image.mode == "RGB" and not image.has_transparency_data else RGB
    most = own + made
    if in_scans and isinstance(image, JpegImageFile):
        most = max(most, own + _coefficients(image))
    return max(most, 2 * RGB) if turned else most


def halved_weight(image: Image.Image, data: bytes, recoloured: bool) -> float | None:
    """Bytes a pixel that it takes if it comes out at half its size; None where it cannot.

    libjpeg halves a JPEG while it decodes; others are halved before they are turned or flattened,
    but after they were `recoloured`.
    """
    own: float = OF_MODE.get(image.mode, 4)
    if isinstance(image, JpegImageFile):
        held = _coefficients(image) if comes_in_scans(image, data) else 0.0
        return max(own / 4 + held, 2 * RGB / 4)
    if image.format not in ("PNG", "BMP") or data[24:25] == b"\x10":
        return None
    copied = recoloured and (image.mode == "P" or "transparency" in image.info)
    return own + (RGB if copied else RGB / 4)


def too_heavy(taken: float) -> str:
    """What is said of a picture that takes so many bytes, if these are too many; "" otherwise."""
    if taken <= most_bytes():
        return ""
    return f"to decode it takes {taken / OF_PICTURE:.0f} MB, more than {allowed():.0f}"


def may_fit_now(said: str) -> bool:
    """Whether a picture of which `too_heavy` was said takes no more than what is allowed now."""
    found = TOO_HEAVY.search(said)
    return found is not None and int(found[1]) < allowed()


def is_too_large(width: int, height: int, format: str) -> bool:
    """Whether a stored picture, of which no more is known, is too large to be decoded."""
    least = WEBP_WEIGHT if format == "WEBP" else DECODERS.get(format, 0)
    return max(width, height) > LONGEST or width * height * least > most_bytes()


def comes_in_scans(image: JpegImageFile, data: bytes) -> bool:
    """Whether a JPEG comes in several scans, so that all of its coefficients are held.

    Of others libjpeg reads the first scan, which has all components, and no more.
    """
    if image.info.get("progressive"):
        return True
    scan = first_scan(data)
    return scan > 0 and data[scan + 4] < image.layers


def _coefficients(image: JpegImageFile) -> float:
    """Bytes a pixel of the coefficients of all components, two each."""
    sizes = [across * down for _, across, down, _ in image.layer]
    most = max(one[1] for one in image.layer) * max(one[2] for one in image.layer)
    return 2 * sum(sizes) / most


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP (RFC 9649); 0, 0 where there is none."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        bits = int.from_bytes(body[6:10], "little")
        return bits & 0x3FFF, bits >> 16 & 0x3FFF
    return 0, 0
