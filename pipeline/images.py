"""Decoder of images of unknown origin: by content, within limits, to plain RGB."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from kd3_pipeline.colour import in_srgb
from kd3_pipeline.damage import jpeg_damage, jpeg_warning
from kd3_pipeline.exif import UPRIGHT, has_place, orientation
from kd3_pipeline.formats import FORMATS
from kd3_pipeline.paper import flat
from kd3_pipeline.picturefile import ImageError, PictureFile, opened, reason_of

Box = tuple[float, float, float, float]  # left, top, right, bottom


def decode(data: bytes) -> Image.Image:
    """The whole picture as RGB: first frame, upright by its EXIF tag, in sRGB, on white.

    It comes at half its size where it would take too much memory in full, and can be read so.

    Raises:
        ImageError: as `open_image`, or `truncated` when the pixels cannot be decoded.
    """
    return _decoded(opened(data))


def _decoded(file: PictureFile) -> Image.Image:
    image = file.image
    try:
        image.seek(0)
        rgb = file.flat()
        turn = orientation(image)
        return rgb.transpose(UPRIGHT[turn]) if turn else rgb
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", reason_of(error), image.width, image.height) from None


def decode_reduced(
    data: bytes, side: int, mode: Literal["YCbCr", "L"] = "YCbCr"
) -> tuple[Image.Image, Box, Image.Image | None]:
    """An upright picture of at least `side` pixels a side, or as many as there are, at least cost.

    JPEGs are decoded at a half, a quarter or an eighth of their size, which libjpeg does while it
    decodes, as long as both sides keep `side` pixels. Everything else is decoded in full.

    Args:
        mode: what a colour JPEG is decoded to: YCbCr, whose first channel is its grey, or L.

    Returns:
        The picture (RGB where its colours had to be brought to sRGB); the part of it that shows
        the image, since a size that does not divide is rounded up; and the image in full, if it had
        to be decoded (RGB).

    Raises:
        ImageError: as `decode`.
    """
    file = opened(data)
    if isinstance(file.image, JpegImageFile):
        # of another colour space, or broken: the full decode copes, or says why
        with contextlib.suppress(Exception):
            return (*_drafted(file, side, mode), None)
        file = opened(data)
    image = _decoded(file)
    factor = max(1, min(image.size) // side)
    box = (0.0, 0.0, image.width / factor, image.height / factor)
    return image.reduce(factor), box, image


def _drafted(file: PictureFile, side: int, mode: str) -> tuple[Image.Image, Box]:
    image = file.image
    assert isinstance(image, JpegImageFile)
    if recoloured := bool(file.colours.profile):
        mode = "RGB"
    drafted = image.draft(mode, (side, side))
    if drafted is None or drafted[0] not in ("YCbCr", "L", "RGB" if recoloured else "L"):
        raise ValueError(drafted)
    width, height = drafted[1][2:]  # with the fraction that the picture's own size lacks
    image.load()
    code = orientation(image)
    image = in_srgb(image, file.colours)
    if not code:
        return image, (0.0, 0.0, width, height)
    small = image.transpose(UPRIGHT[code])
    if code >= 5:
        width, height = height, width
    # what is beyond the image is at the right and at the bottom only until the picture is turned
    left = small.width - width if code in (2, 3, 6, 7) else 0.0
    top = small.height - height if code in (3, 4, 7, 8) else 0.0
    return small, (left, top, left + width, top + height)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Size in pixels and format of an image that decodes, and whether it says where it was taken.

    The size is as stored: an EXIF orientation may turn it. `detail` says what `decode` does to its
    brightness and colours, and what it passes over, if anything.
    """

    width: int
    height: int
    format: str
    has_gps: bool
    detail: str = ""


def inspect(
    data: bytes,
    min_side: int,
    formats: Sequence[str] = FORMATS,
    *,
    keep_damaged: bool = False,
    most: float = math.inf,
) -> ImageInfo:
    """Decodes all of an image to see that it is whole: what passes here, `decode` can read.

    Args:
        formats: those that are let in; what comes from the web may be of few.
        most: bytes that it may take.

    Raises:
        Heavy: it takes more than that.
        ImageError: as `decode`, or `too_small` when a side is under `min_side` pixels, or, unless
            such are kept, `damaged` when some of its data was overwritten (`kd3_pipeline.damage`).
    """
    file = opened(data, formats, most)
    image, data = file.image, file.data
    width, height = image.size
    if min(width, height) < min_side:
        raise ImageError("too_small", f"{width} x {height}", width, height)
    try:
        jpeg = isinstance(image, JpegImageFile)
        said = jpeg_warning(data, image.mode) if jpeg else None
        brighter = ""
        if said != "":  # else libjpeg has just read it to its end, and had nothing to say
            # a JPEG is read to its end at an eighth of its size too, with less arithmetic
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            shown, brighter = file.shown()
            flat(shown.resize((min(8, width), min(8, height)), Image.Resampling.NEAREST))
        has_gps = has_place(image)  # last: it decodes a PNG too, and hides what was wrong
        damage = jpeg_damage(data, said or "")
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", reason_of(error), width, height) from None
    if damage and not keep_damaged:
        raise ImageError("damaged", damage[:200], width, height)
    detail = "; ".join(filter(None, (brighter, file.colours.remark, file.remark)))
    # a JPEG with more pictures behind the first, as phones write, opens as "MPO"
    kind = str(image.format).replace("MPO", "JPEG")
    return ImageInfo(width, height, kind, has_gps, detail)


def decode_small(data: bytes, side: int) -> Image.Image:
    """The picture as `decode` has it, at most `side` pixels wide and high, never enlarged.

    Raises:
        ImageError: as `decode`.
    """
    file = opened(data)
    image = file.image
    try:
        # a JPEG is decoded at a half, a quarter or an eighth of its size where that is enough
        image.draft("RGB", (2 * side, 2 * side))
        small = file.flat()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        turn = orientation(image)
        return small.transpose(UPRIGHT[turn]) if turn else small
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", reason_of(error), image.width, image.height) from None
