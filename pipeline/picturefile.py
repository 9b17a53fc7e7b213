"""Files of pictures of unknown origin: found by content, within limits, their headers read."""

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile

from kd3_pipeline.colour import Colours, colours_of, in_srgb
from kd3_pipeline.damage import MOST_SEGMENTS, has_many_segments, jpeg_segments
from kd3_pipeline.endings import webp_of_its_size, with_its_end
from kd3_pipeline.exif import orientation
from kd3_pipeline.formats import OWN_FORMATS, picture_kind
from kd3_pipeline.paper import flat, white_around
from kd3_pipeline.pngfile import SIGNATURE, BrokenPng, Tidied, lacks_rows, tidied
from kd3_pipeline.samples import eight_bits
from kd3_pipeline.weight import (
    LONGEST,
    RGB,
    WEBP_WEIGHT,
    comes_in_scans,
    halved_weight,
    too_heavy,
    webp_size,
    weight,
)

MAX_PIXELS = 50_000_000
LARGE = 12_000_000  # pixels of four bytes, or as many bytes of a decoder
LARGE_TURN = threading.Lock()
LONG_HEAD = 4096  # bytes in which an SVG has said what it is
MAX_SCANS = 100  # of a JPEG; usual are 10, and 12 bytes more are one more pass over all pixels
SUBFILE = 254  # tag of TIFF 6.0: bit 0 marks a smaller version of another picture
RAW = {50706, 50752}  # tags DNGVersion, and Canon's CR2Slice

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


class Heavy(Exception):
    """A picture that takes so much while it is decoded that threads do it one after the other."""


@dataclass(frozen=True)
class PictureFile:
    """A picture whose header has been read.

    Attributes:
        data: what it was opened from, without what harms the reading.
        halved: it comes out at half its size, since it takes too much memory otherwise.
        remark: what was passed over, in words; "" for nothing.
    """

    image: Image.Image
    data: bytes
    colours: Colours
    halved: bool = False
    remark: str = ""

    def loaded(self) -> Image.Image:
        """Its pixels, 8 bits a sample, in sRGB; a GIF is white where its frame is not.

        It is closed, if these are others than its own: they would take as much again.
        """
        shown, _ = self.shown()
        if shown is not self.image:
            self.image.close()
        return shown

    def flat(self) -> Image.Image:
        """Its pixels as RGB, transparency on white; `halved` as told."""
        shown = self.loaded()
        # a JPEG was halved when it was loaded
        halved = self.halved and not isinstance(self.image, JpegImageFile)
        rgb = flat(shown, 2 if halved else 1)
        if rgb is not shown:
            shown.close()
        return rgb

    def shown(self) -> tuple[Image.Image, str]:
        """`loaded`, and what was done to its brightness."""
        image = self.image
        if self.halved:
            image.draft(None, (image.width // 2, image.height // 2))  # which JPEGs alone follow
        frame = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile else None
        image.load()
        last_row = (0, image.height - 1, image.width, image.height)
        if image.format == "PNG" and not image.crop(last_row).getbbox() and lacks_rows(self.data):
            raise OSError("its pixels end before its last row")
        if frame and "transparency" not in image.info:
            return white_around(image, frame), ""
        deep = eight_bits(image, self.data)
        return in_srgb(deep.image, self.colours), deep.remark


def open_image(data: bytes, formats: Sequence[str] = OWN_FORMATS) -> Image.Image:
    """Reads the header only; the format is found from the content, never from a name.

    Raises:
        ImageError: `not_an_image`, `truncated` where it begins as a picture and cannot be opened,
            `too_many_pixels` (over 50 million, a side over 65,535, or so many that its decoder
            would fill the memory), `too_many_scans`, or `unsupported`, a TIFF that is no picture of
            8 or 16 bits.
    """
    return opened(data, formats).image


def opened(
    data: bytes, formats: Sequence[str] = OWN_FORMATS, most: float = math.inf
) -> PictureFile:
    """A picture as `open_image` opens it, with what else its file says.

    Raises:
        Heavy: to decode it takes more than `most` bytes.
        ImageError: as `open_image`.
    """
    try:
        return _opened(data, formats, most)
    except (ImageError, Heavy):
        raise
    except Exception as error:  # what reads the header beside Pillow may stumble over it as well
        reason = str(error) if isinstance(error, BrokenPng) else reason_of(error)
        raise ImageError("not_an_image", reason) from None


def _opened(data: bytes, formats: Sequence[str], most: float) -> PictureFile:
    png = Tidied(data)
    if data.startswith(SIGNATURE):
        png = tidied(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_pixels(webp_size(data), WEBP_WEIGHT, most)  # it takes its memory when it is opened
        png = Tidied(webp_of_its_size(data))
    elif data[:2] == b"\xff\xd8" and has_many_segments(data):
        raise ImageError("not_an_image", f"a JPEG of more than {MOST_SEGMENTS:,} segments")
    image = _header(png.data, formats)
    in_scans = isinstance(image, JpegImageFile) and comes_in_scans(image, data)
    if in_scans and _has_many_scans(data):
        detail = f"more than {MAX_SCANS} scans"
        raise ImageError("too_many_scans", detail, image.width, image.height)
    if image.format == "TIFF" and (reason := _no_plain_tiff(image)):
        raise ImageError("unsupported", reason, image.width, image.height)
    # a chunk behind a PNG's pixels may turn it too, and Pillow turns a TIFF itself
    turned = bool(orientation(image)) or (image.format == "PNG" and b"eXIf" in png.data)
    colours = colours_of(image, png.data, png.colour)
    heavy, halved = weight(image, png.data, turned or image.format == "TIFF", in_scans), False
    if too_heavy(image.width * image.height * heavy):
        light = halved_weight(image, png.data, bool(colours.profile))
        halved, heavy = light is not None, light or heavy
    _check_pixels(image.size, heavy, most)
    if image.format in ("JPEG", "MPO"):
        whole = with_its_end(data, image.mode)
        if whole is not data:
            image, png = _header(whole, formats), Tidied(whole)
    return PictureFile(image, png.data, colours, halved, png.remark)


def is_large(data: bytes, formats: Sequence[str] = OWN_FORMATS, pixels: int | None = None) -> bool:
    """Whether to decode a picture takes so much that threads do it one after the other.

    Args:
        pixels: of four bytes, from which on it does; None for LARGE.

    Raises:
        ImageError: as `open_image`.
    """
    try:
        opened(data, formats, RGB * (LARGE if pixels is None else pixels))
    except Heavy:
        return True
    return False


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
        raise _unopened(error, data, formats) from None
    _check_pixels(image.size)
    return image


def _check_pixels(size: tuple[int, int], weight: float = 0, most: float = math.inf) -> None:
    """Raises ImageError for a picture that is too large, by its decoder's bytes a pixel too.

    Heavy for one that takes more than `most` bytes.
    """
    width, height = size
    detail = f"{width} x {height}: "
    if width * height > MAX_PIXELS:
        detail += f"more than {MAX_PIXELS:,} pixels"
    elif max(size) > LONGEST:
        # here, so that what one stage cannot read is refused by the first
        detail += f"a side of more than {LONGEST:,} pixels"
    elif said := too_heavy(width * height * weight):
        detail += said
    elif width * height * weight > most:
        raise Heavy
    else:
        return
    raise ImageError("too_many_pixels", detail, width, height)


def _has_many_scans(data: bytes) -> bool:
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return False
    # metadata, and what follows the picture, may have these bytes by chance
    return sum(marker == 0xDA for marker, _, _ in jpeg_segments(data)) > MAX_SCANS


def _no_plain_tiff(image: Image.Image) -> str:
    """Why the first picture of a TIFF is not the picture that people see; "" if it is."""
    tags = getattr(image, "tag_v2", {})
    if int(tags.get(SUBFILE, 0) or 0) & 1 or RAW & set(tags):
        return "a camera's raw file, of which only a preview would be read"
    if image.mode in ("F", "I"):  # what is black and what is white is not said
        return "numbers of 32 bits for each pixel"
    return ""


def reason_of(error: Exception) -> str:
    """What a decoder said, in a line of 200 letters at most."""
    return f"{type(error).__name__}: {error}"[:200]


def _unopened(error: Exception, data: bytes, formats: Sequence[str]) -> ImageError:
    """Why bytes are no picture of these formats, with what they are, if they are another."""
    kind = picture_kind(data[:LONG_HEAD])
    # Pillow's own text has a memory address in it
    why = "" if isinstance(error, UnidentifiedImageError) else f" ({reason_of(error)})"
    if kind in formats:
        return ImageError("truncated", f"{kind} that ends early, or whose head is broken{why}")
    also = f": {kind}, which is not read" if kind else why
    return ImageError("not_an_image", f"none of {', '.join(formats)}{also}")
