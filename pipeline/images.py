"""Decoder of images of unknown origin: by content, within limits, to plain RGB."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile

from kd3_pipeline.colour import Colours, colours_of, in_srgb
from kd3_pipeline.damage import (
    MOST_SEGMENTS,
    has_many_segments,
    jpeg_damage,
    jpeg_segments,
    jpeg_warning,
)
from kd3_pipeline.endings import webp_of_its_size, with_its_end
from kd3_pipeline.formats import FORMATS, OWN_FORMATS, picture_kind
from kd3_pipeline.pngfile import SIGNATURE, BrokenPng, Tidied, lacks_rows, tidied
from kd3_pipeline.samples import eight_bits
from kd3_pipeline.strips import strips
from kd3_pipeline.weight import LONGEST, MOST_BYTES, RGB, WEBP_WEIGHT, webp_size, weight

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
LARGE = 12_000_000  # pixels of four bytes, or as many bytes of a decoder
LARGE_TURN = threading.Lock()
LONG_HEAD = 4096  # bytes in which an SVG has said what it is
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


@dataclass(frozen=True)
class _File:
    """A picture whose header has been read.

    Attributes:
        data: what it was opened from, without what harms the reading.
        remark: what was passed over, in words; "" for nothing.
    """

    image: Image.Image
    data: bytes
    colours: Colours
    taken: float  # bytes while it is decoded
    remark: str = ""

    def loaded(self) -> Image.Image:
        """Its pixels, 8 bits a sample, in sRGB; a GIF is white where its frame is not."""
        shown, _ = self.shown()
        return shown

    def shown(self) -> tuple[Image.Image, str]:
        """`loaded`, and what was done to its brightness."""
        image = self.image
        frame = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile else None
        image.load()
        last_row = (0, image.height - 1, image.width, image.height)
        if image.format == "PNG" and not image.crop(last_row).getbbox() and lacks_rows(self.data):
            raise OSError("its pixels end before its last row")
        if frame and "transparency" not in image.info:
            return _white_around(image, frame), ""
        deep = eight_bits(image, self.data)
        return in_srgb(deep.image, self.colours), deep.remark


def open_image(data: bytes, formats: Sequence[str] = OWN_FORMATS) -> Image.Image:
    """Reads the header only; the format is found from the content, never from a name.

    Raises:
        ImageError: `not_an_image`, `too_many_pixels` (over 50 million, a side over 65,535, or so
            many that its decoder would fill the memory), `too_many_scans`, or `unsupported`, a TIFF
            that is no picture of 8 or 16 bits.
    """
    return _open(data, formats).image


def _open(data: bytes, formats: Sequence[str] = OWN_FORMATS) -> _File:
    try:
        return _opened(data, formats)
    except ImageError:
        raise
    except Exception as error:  # what reads the header beside Pillow may stumble over it as well
        reason = str(error) if isinstance(error, BrokenPng) else _reason(error)
        raise ImageError("not_an_image", reason) from None


def _opened(data: bytes, formats: Sequence[str]) -> _File:
    png = Tidied(data)
    if data.startswith(SIGNATURE):
        png = tidied(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_pixels(webp_size(data), WEBP_WEIGHT)  # it takes its memory when it is opened
        png = Tidied(webp_of_its_size(data))
    elif data[:2] == b"\xff\xd8" and has_many_segments(data):
        raise ImageError("not_an_image", f"a JPEG of more than {MOST_SEGMENTS:,} segments")
    image = _header(png.data, formats)
    if image.format in ("JPEG", "MPO") and _has_many_scans(data):
        detail = f"more than {MAX_SCANS} scans"
        raise ImageError("too_many_scans", detail, image.width, image.height)
    if image.format == "TIFF" and (reason := _no_plain_tiff(image)):
        raise ImageError("unsupported", reason, image.width, image.height)
    # a chunk behind a PNG's pixels may turn it too, and Pillow turns a TIFF itself
    turned = bool(orientation(image)) or (image.format == "PNG" and b"eXIf" in png.data)
    heavy = weight(image, png.data, turned or image.format == "TIFF")
    _check_pixels(image.size, heavy)
    if image.format in ("JPEG", "MPO"):
        whole = with_its_end(data, image.mode)
        if whole is not data:
            image, png = _header(whole, formats), Tidied(whole)
    colours, taken = colours_of(image, png.data, png.colour), image.width * image.height * heavy
    return _File(image, png.data, colours, taken, png.remark)


def is_large(data: bytes, formats: Sequence[str] = OWN_FORMATS, pixels: int | None = None) -> bool:
    """Whether to decode a picture takes so much that threads do it one after the other.

    Args:
        pixels: of four bytes, from which on it does; None for LARGE.

    Raises:
        ImageError: as `open_image`.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":  # not opened: that takes most of it
        width, height = webp_size(data)
        taken = width * height * WEBP_WEIGHT
    else:
        taken = _open(data, formats).taken
    return taken > RGB * (LARGE if pixels is None else pixels)


@contextlib.contextmanager
def one_large(data: bytes) -> Iterator[None]:
    """A time for a picture in which no other thread has a large one, if it is large itself.

    Raises:
        ImageError: as `open_image`.
    """
    with LARGE_TURN if is_large(data) else contextlib.nullcontext():
        yield


def _header(data: bytes, formats: Sequence[str]) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(formats))
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("not_an_image", _unknown(error, data, formats)) from None
    _check_pixels(image.size)
    return image


def _check_pixels(size: tuple[int, int], weight: float = 0) -> None:
    """Raises ImageError for a picture that is too large, by its decoder's bytes a pixel too."""
    width, height = size
    detail = f"{width} x {height}: "
    if width * height > MAX_PIXELS:
        detail += f"more than {MAX_PIXELS:,} pixels"
    elif max(size) > LONGEST:
        # here, so that what one stage cannot read is refused by the first
        detail += f"a side of more than {LONGEST:,} pixels"
    elif (taken := width * height * weight) > MOST_BYTES:
        detail += f"to decode it takes {taken / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}"
    else:
        return
    raise ImageError("too_many_pixels", detail, width, height)


def decode(data: bytes) -> Image.Image:
    """The whole picture as RGB: first frame, upright by its EXIF tag, in sRGB, on white.

    Raises:
        ImageError: as `open_image`, or `truncated` when the pixels cannot be decoded.
    """
    return _decoded(_open(data))


def _decoded(file: _File) -> Image.Image:
    image = file.image
    try:
        image.seek(0)
        rgb = flat(file.loaded())
        turn = orientation(image)
        return rgb.transpose(UPRIGHT[turn]) if turn else rgb
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
        The picture (RGB where its colours had to be brought to sRGB); the part of it that shows
        the image, since a size that does not divide is rounded up; and the image in full, if it had
        to be decoded (RGB).

    Raises:
        ImageError: as `decode`.
    """
    file = _open(data)
    if isinstance(file.image, JpegImageFile):
        # of another colour space, or broken: the full decode copes, or says why
        with contextlib.suppress(Exception):
            return (*_drafted(file, side, mode), None)
        file = _open(data)
    image = _decoded(file)
    factor = max(1, min(image.size) // side)
    box = (0.0, 0.0, image.width / factor, image.height / factor)
    return image.reduce(factor), box, image


def _drafted(file: _File, side: int, mode: str) -> tuple[Image.Image, Box]:
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
    data: bytes, min_side: int, formats: Sequence[str] = FORMATS, *, keep_damaged: bool = False
) -> ImageInfo:
    """Decodes all of an image to see that it is whole: what passes here, `decode` can read.

    Args:
        formats: those that are let in; what comes from the web may be of few.

    Raises:
        ImageError: as `decode`, or `too_small` when a side is under `min_side` pixels, or, unless
            such are kept, `damaged` when some of its data was overwritten (`kd3_pipeline.damage`).
    """
    file = _open(data, formats)
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
        has_gps = _has_place(image)  # last: it decodes a PNG too, and hides what was wrong
        damage = jpeg_damage(data, said or "")
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", _reason(error), width, height) from None
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
    file = _open(data)
    image = file.image
    try:
        # a JPEG is decoded at a half, a quarter or an eighth of its size where that is enough
        image.draft("RGB", (2 * side, 2 * side))
        small = flat(file.loaded())
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        turn = orientation(image)
        return small.transpose(UPRIGHT[turn]) if turn else small
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


def flat(image: Image.Image) -> Image.Image:
    """RGB of a loaded picture, transparency on white; a strip at a time, to spare memory."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    made = Image.new("RGB", image.size)
    for top, strip in strips(image):
        paper = Image.new("RGBA", strip.size, "white")
        made.paste(Image.alpha_composite(paper, strip.convert("RGBA")).convert("RGB"), (0, top))
    return made


def _white_around(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A GIF that is white where its frame is not, as what is behind it would be."""
    left, top, right, bottom = frame
    width, height = image.size
    if frame == (0, 0, width, height):
        return image
    image = image.convert("RGB")
    for box in (
        *((0, 0, width, top), (0, bottom, width, height)),
        *((0, 0, left, height), (right, 0, width, height)),
    ):
        if box[0] < box[2] and box[1] < box[3]:
            image.paste("white", box)
    return image


def _has_many_scans(data: bytes) -> bool:
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return False
    # metadata, and what follows the picture, may have these bytes by chance
    return sum(marker == 0xDA for marker, _, _ in jpeg_segments(data)) > MAX_SCANS


def orientation(image: Image.Image) -> int:
    """What a loaded picture's EXIF data says about how it stands, or 0; broken data says nothing.

    Pillow would take XMP's word for it too, which no browser does.
    """
    found: object = 0
    # damaged metadata makes Pillow raise anything, and costs no picture
    with contextlib.suppress(Exception):
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        found = exif.get(ORIENTATION)
    return int(found) if isinstance(found, int) and found in UPRIGHT else 0


def _has_place(image: Image.Image) -> bool:
    """Whether EXIF or XMP data has a place; broken data has none."""
    with contextlib.suppress(Exception):
        latitude = LATITUDE in image.getexif().get_ifd(GPS)
        return latitude or b"GPSLatitude" in image.info.get("xmp", b"")
    return False


def _no_plain_tiff(image: Image.Image) -> str:
    """Why the first picture of a TIFF is not the picture that people see; "" if it is."""
    tags = getattr(image, "tag_v2", {})
    if int(tags.get(SUBFILE, 0) or 0) & 1 or RAW & set(tags):
        return "a camera's raw file, of which only a preview would be read"
    if image.mode in ("F", "I"):  # what is black and what is white is not said
        return "numbers of 32 bits for each pixel"
    return ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _unknown(error: Exception, data: bytes, formats: Sequence[str]) -> str:
    """Why bytes are no picture of these formats, with what they are, if they are another."""
    if not isinstance(error, UnidentifiedImageError):
        return _reason(error)
    # Pillow's own text has a memory address in it
    kind = picture_kind(data[:LONG_HEAD])
    also = f": {kind}, which is not read" if kind and kind not in formats else ""
    return f"none of {', '.join(formats)}{also}"
