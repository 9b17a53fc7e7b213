"""Decoding images of unknown origin: by content, within limits, to plain RGB."""

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
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
Fit = Literal["crop", "squash"]

# Pillow's remarks on hostile images (size, damaged metadata) are of no use to a person; set once,
# because images are decoded in threads
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(Exception):
    """Bytes that are no usable image. `outcome` is one word for counting, the text says more."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


def open_image(data: bytes) -> Image.Image:
    """Reads the header only; the format is found from the content, never from a name.

    Raises:
        ImageError: `not_an_image`, or `too_many_pixels` (over 50 million).
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("not_an_image", _reason(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_many_pixels", f"{image.width} x {image.height}")
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
        # ImageOps.exif_transpose refuses images that have a broken tag next to this one
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
        rgb = _rgb(image)
        return rgb if turn is None else rgb.transpose(turn)
    except Exception as error:  # any decoder may raise anything on hostile bytes
        raise ImageError("truncated", _reason(error)) from None


@dataclass(frozen=True)
class ImageInfo:
    """Size in pixels and format of an image that decodes."""

    width: int
    height: int
    format: str


def inspect(data: bytes, min_side: int) -> ImageInfo:
    """Decodes all of an image to see that it is whole.

    Raises:
        ImageError: as `decode`, or `too_small` when a side is under `min_side` pixels.
    """
    image = open_image(data)
    if min(image.size) < min_side:
        raise ImageError("too_small", f"{image.width} x {image.height}")
    decode(data)
    # a JPEG with more pictures behind the first, as phones write, opens as "MPO"
    return ImageInfo(image.width, image.height, str(image.format).replace("MPO", "JPEG"))


def to_square(image: Image.Image, side: int, fit: Fit) -> np.ndarray:
    """RGB pixels, uint8 [side, side, 3], antialiased.

    `crop` takes the centre square, `squash` changes the aspect ratio.
    """
    if fit == "crop":
        shown = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    else:
        shown = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(shown)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"  # its own text has a memory address in it
    return f"{type(error).__name__}: {error}"[:200]
