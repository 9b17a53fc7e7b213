"""Decoder of images of unknown origin: by content, within limits, to plain RGB."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.damage import jpeg_damage, jpeg_segments, jpeg_warning
from pipeline.samples import eight_bits

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # from the web: the less, the safer
OWN_FORMATS = (*FORMATS, "TIFF", "PPM", "JPEG2000", "AVIF")  # from files of the user's own
UPRIGHT = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_PIXELS = 50_000_000
LONGEST = 65_535  # pixels of a side; the filters of longer ones alone fill the memory
MAX_SCANS = 100  # of a JPEG; usual are 10, and 12 bytes more are one more pass over all pixels
ORIENTATION, GPS, LATITUDE = 0x0112, 0x8825, 0x0002  # tags of Exif 2.32, 4.6.4 and 4.6.6
SUBFILE = 254  # tag of TIFF 6.0: bit 0 marks a smaller version of another picture
RAW = {50706, 50752}  # tags DNGVersion, and Canon's CR2Slice
Fit = Literal["crop", "squash"]
Box = tuple[float, float, float, float]  # left, top, right, bottom

# Pillow's remarks on hostile images (size, damaged metadata) are of no use to a person; set once,
# because images are decoded in threads
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(Exception):
    """Bytes that are no usable image. `outcome` is one word for counting, the text says more.

    `width` and `height` are pixels as far as they are known, else 0.
    """

    def __init__(self, outcome: str, detail: str, width: int = 0, height: int = 0) -> None:
        super().__init__(detail)
        self.outcome, self.width, self.height = outcome, width, height


def open_image(data: bytes, formats: Sequence[str] = OWN_FORMATS) -> Image.Image:
    """Reads the header only; the format is found from the content, never from a name.

    Raises:
        ImageError: `not_an_image`, `too_many_pixels` (over 50 million, or a side over 65,535),
            `too_many_scans`, or `unsupported`, a TIFF that is no picture of 8 or 16 bits.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(formats))
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("not_an_image", _reason(error, formats)) from None
    if image.width * image.height > MAX_PIXELS:
        detail = f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels"
        raise ImageError("too_many_pixels", detail, image.width, image.height)
    if max(image.size) > LONGEST:
        # here, so that what one stage cannot read is refused by the first
        detail = f"{image.width} x {image.height}: a side of more than {LONGEST:,} pixels"
        raise ImageError("too_many_pixels", detail, image.width, image.height)
    if image.format in ("JPEG", "MPO") and _has_many_scans(data):
        detail = f"more than {MAX_SCANS} scans"
        raise ImageError("too_many_scans", detail, image.width, image.height)
    if image.format == "TIFF" and (reason := _no_plain_tiff(image)):
        raise ImageError("unsupported", reason, image.width, image.height)
    return image


def decode(data: bytes) -> Image.Image:
    """The whole picture as RGB: first frame, upright by its EXIF tag, transparency on white.

    Raises:
        ImageError: as `open_image`, or `truncated` when the pixels cannot be decoded.
    """
    image = open_image(data)
    try:
        image.seek(0)
        image.load()
        orientation, _ = _exif(image)
        rgb = _rgb(eight_bits(image, data).image)
        return rgb.transpose(UPRIGHT[orientation]) if orientation else rgb
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", _reason(error), image.width, image.height) from None


def decode_reduced(
    data: bytes, side: int, mode: Literal["YCbCr", "L"] = "YCbCr"
) -> tuple[Image.Image, Box, Image.Image | None]:
    """An upright picture of at least `side` pixels a side, or as many as there are, at least cost.

    JPEGs are decoded at a half, a quarter or an eighth of their size, which libjpeg does while it
    decodes, as long as both sides keep `side` pixels. Everything else is decoded in full.

    Args:
        mode: what a colour JPEG is decoded to: YCbCr, whose first channel is its grey, or L.

    Returns:
        The picture; the part of it that shows the image, since a size that does not divide is
        rounded up; and the image in full, if it had to be decoded (RGB).

    Raises:
        ImageError: as `decode`.
    """
    image = open_image(data)
    if isinstance(image, JpegImageFile):
        # of another colour space, or broken: the full decode copes, or says why
        with contextlib.suppress(Exception):
            return (*_drafted(image, side, mode), None)
    image = decode(data)
    factor = max(1, min(image.size) // side)
    box = (0.0, 0.0, image.width / factor, image.height / factor)
    return image.reduce(factor), box, image


def _drafted(image: JpegImageFile, side: int, mode: str) -> tuple[Image.Image, Box]:
    drafted = image.draft(mode, (side, side))
    if drafted is None or drafted[0] not in ("YCbCr", "L"):
        raise ValueError(drafted)
    width, height = drafted[1][2:]  # with the fraction that the picture's own size lacks
    image.load()
    code = image.getexif().get(ORIENTATION)
    if code not in UPRIGHT:
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
    brightness, if anything.
    """

    width: int
    height: int
    format: str
    has_gps: bool
    detail: str = ""


def inspect(
    data: bytes, min_side: int, formats: Sequence[str] = FORMATS, *, keep_damaged: bool = False
) -> ImageInfo:
    """Decodes all of an image to see that it is whole: what passes here, `decode` can read.

    Args:
        formats: those that are let in; what comes from the web may be of few.

    Raises:
        ImageError: as `decode`, or `too_small` when a side is under `min_side` pixels, or, unless
            such are kept, `damaged` when some of its data was overwritten (`pipeline.damage`).
    """
    image = open_image(data, formats)
    width, height = image.size
    if min(width, height) < min_side:
        raise ImageError("too_small", f"{width} x {height}", width, height)
    try:
        jpeg = isinstance(image, JpegImageFile)
        said = jpeg_warning(data, image.mode) if jpeg else None
        detail = ""
        if said != "":  # else libjpeg has just read it to its end, and had nothing to say
            # a JPEG is read to its end at an eighth of its size too, with less arithmetic
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            image.load()
            shown = eight_bits(image, data)
            detail = shown.remark
            _rgb(shown.image.resize((min(8, width), min(8, height)), Image.Resampling.NEAREST))
        _, has_gps = _exif(image)  # last: it decodes a PNG too, and hides what was wrong
        damage = jpeg_damage(data, said or "")
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", _reason(error), width, height) from None
    if damage and not keep_damaged:
        raise ImageError("damaged", damage[:200], width, height)
    # a JPEG with more pictures behind the first, as phones write, opens as "MPO"
    kind = str(image.format).replace("MPO", "JPEG")
    return ImageInfo(width, height, kind, has_gps, detail)


def decode_small(data: bytes, side: int) -> Image.Image:
    """The picture as `decode` has it, at most `side` pixels wide and high, never enlarged.

    Raises:
        ImageError: as `decode`.
    """
    image = open_image(data)
    try:
        # a JPEG is decoded at a half, a quarter or an eighth of its size where that is enough
        image.draft("RGB", (2 * side, 2 * side))
        image.load()
        orientation, _ = _exif(image)
        # transparency stays until after the resize, so that edges do not get a dark fringe
        small = eight_bits(image, data).image.convert("RGBA")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        small = small.transpose(UPRIGHT[orientation]) if orientation else small
        flat = Image.new("RGB", small.size, "white")
        flat.paste(small, mask=small.getchannel("A"))
        return flat
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", _reason(error), image.width, image.height) from None


def to_square(image: Image.Image, side: int, fit: Fit) -> np.ndarray:
    """RGB pixels, uint8 [side, side, 3], antialiased.

    `crop` takes the centre square, `squash` changes the aspect ratio.
    """
    if fit == "crop":
        shown = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    else:
        shown = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(shown)


@dataclass(frozen=True, slots=True)
class Frame:
    """How an image becomes the square that a network sees.

    Attributes:
        side: of the square, in pixels.
        fit: how an image is made square.
        resize: side that it is brought to before its centre is taken; 0: `side`, and nothing is
            cut off. Classifiers of 224 pixels are commonly tested so on images of 256.
    """

    side: int
    fit: Fit = "crop"
    resize: int = 0

    def of(self, image: Image.Image) -> np.ndarray:
        """RGB pixels, uint8 [side, side, 3]."""
        return framed(image, self.side, self.fit, self.resize)


def framed(image: Image.Image, side: int, fit: Fit, resize: int = 0) -> np.ndarray:
    """RGB pixels of the centre, uint8 [side, side, 3], of an image made a square of `resize`.

    0 cuts nothing off.
    """
    square = to_square(image, resize or side, fit)
    margin = (len(square) - side) // 2
    return square[margin : margin + side, margin : margin + side]


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def _has_many_scans(data: bytes) -> bool:
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return False
    # metadata, and what follows the picture, may have these bytes by chance
    return sum(marker == 0xDA for marker, _, _ in jpeg_segments(data)) > MAX_SCANS


def _exif(image: Image.Image) -> tuple[int, bool]:
    """The orientation, or 0, and whether EXIF or XMP data has a place; broken data has neither."""
    orientation, has_gps = 0, False
    # damaged metadata makes Pillow raise anything, and costs no picture
    with contextlib.suppress(Exception):
        exif = image.getexif()
        found = exif.get(ORIENTATION)
        orientation = int(found) if found in UPRIGHT else 0
        has_gps = LATITUDE in exif.get_ifd(GPS) or b"GPSLatitude" in image.info.get("xmp", b"")
    return orientation, has_gps


def _no_plain_tiff(image: Image.Image) -> str:
    """Why the first picture of a TIFF is not the picture that people see; "" if it is."""
    tags = getattr(image, "tag_v2", {})
    if int(tags.get(SUBFILE, 0) or 0) & 1 or RAW & set(tags):
        return "a camera's raw file, of which only a preview would be read"
    if image.mode in ("F", "I"):  # what is black and what is white is not said
        return "numbers of 32 bits for each pixel"
    return ""


def _reason(error: Exception, formats: Sequence[str] = OWN_FORMATS) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(formats)}"  # its own text has a memory address in it
    return f"{type(error).__name__}: {error}"[:200]
