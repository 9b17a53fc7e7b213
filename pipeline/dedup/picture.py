"""Small upright pictures of encoded images at the least cost, and the border around them.

JPEGs are decoded at a half, a quarter or an eighth of their size, which libjpeg does while it
decodes, as long as both sides keep 128 pixels. Everything else is decoded in full.
"""

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.dedup.hashing import SHAPES
from pipeline.images import UPRIGHT, ImageError, decode, open_image

SMALL = 128  # pixels of the shorter side that a scaled decode leaves, at least
LONGEST = 65_535  # pixels of a side; the filters of longer ones alone fill the memory

# a line of pixels belongs to the border when all but 2 % of it is within 12 levels of the colour
# of the outermost line, as far as JPEG strays
LEVELS = 12
STRAY = 0.02

Box = tuple[float, float, float, float]  # left, top, right, bottom


def small_picture(data: bytes, mode: str = "YCbCr") -> tuple[Image.Image, Box, Image.Image | None]:
    """An upright picture of at least 128 pixels a side, or as many as there are.

    Args:
        mode: what a colour JPEG is decoded to: YCbCr, whose first channel is its grey, or L.

    Returns:
        The picture; the part of it that shows the image, since a size that does not divide is
        rounded up; and the image in full, if it had to be decoded (RGB).

    Raises:
        ImageError: as `decode`, or `too_many_pixels` on a side.
    """
    image = open_image(data)
    if max(image.size) > LONGEST:
        raise ImageError("too_many_pixels", f"{image.width} x {image.height}")
    if isinstance(image, JpegImageFile):
        try:
            return (*_drafted(image, mode), None)
        except Exception:  # of another colour space, or broken: the full decode copes, or says why
            pass
    image = decode(data)
    factor = max(1, min(image.size) // SMALL)
    box = (0.0, 0.0, image.width / factor, image.height / factor)
    return image.reduce(factor), box, image


def lanczos(grey: Image.Image, kind: str, box: Box | None = None) -> np.ndarray:
    """The pixels that imagehash's `kind` compares: uint8 [*SHAPES[kind]]."""
    rows, columns = SHAPES[kind]
    return np.asarray(grey.resize((columns, rows), Image.Resampling.LANCZOS, box=box))


def squashed(image: Image.Image, side: int, box: Box) -> Image.Image:
    """A square of another size, antialiased: means of whole pixels first, then a cubic filter."""
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=1)


def may_have_border(grey: np.ndarray) -> np.ndarray:
    """Which of the pictures, uint8 [N, S, S], have an edge of about one colour: bool [N]."""
    edges = np.stack([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    edges = edges.astype(np.int16)
    off = np.abs(edges - np.median(edges, axis=2, keepdims=True)) > LEVELS
    return (off.mean(axis=2) <= 2 * STRAY).any(axis=1)


def inside_border(grey: Image.Image, box: Box) -> Box:
    """What is inside a picture's border of one colour a side, as shares of `box`.

    Of a picture that is all border nothing is left: right is then not above left, or bottom not
    above top.
    """
    pixels = np.asarray(grey).astype(np.int16)
    left, top, right, bottom = 0, 0, grey.width, grey.height
    for _ in range(2):  # a pillar box inside a letter box, or the other way round
        rows = pixels[top:bottom, left:right]
        top, bottom = top + _border(rows), bottom - _border(rows[::-1])
        columns = pixels[top:bottom, left:right].T
        left, right = left + _border(columns), right - _border(columns[::-1])
    corner, size = np.array(box[:2]), np.array(box[2:]) - box[:2]
    shares = [(np.array(place) - corner) / size for place in ((left, top), (right, bottom))]
    return tuple(np.clip(np.concatenate(shares), 0, 1).tolist())


def _border(lines: np.ndarray) -> int:
    """How many lines, from the first on, are of the first one's colour."""
    if not lines.size:
        return 0
    colour = np.median(lines[0])
    for start in range(0, len(lines), 8):  # a border ends soon, and most pictures have none
        off = np.abs(lines[start : start + 8] - colour) > LEVELS
        inside = np.mean(off, axis=1) > STRAY
        if inside.any():
            return start + int(inside.argmax())
    return len(lines)


def _drafted(image: JpegImageFile, mode: str) -> tuple[Image.Image, Box]:
    drafted = image.draft(mode, (SMALL, SMALL))
    if drafted is None or drafted[0] not in ("YCbCr", "L"):
        raise ValueError(drafted)
    width, height = drafted[1][2:]  # with the fraction that the picture's own size lacks
    image.load()
    code = image.getexif().get(ExifTags.Base.Orientation)
    if code not in UPRIGHT:
        return image, (0.0, 0.0, width, height)
    small = image.transpose(UPRIGHT[code])
    if code >= 5:
        width, height = height, width
    # what is beyond the image is at the right and at the bottom only until the picture is turned
    left = small.width - width if code in (2, 3, 6, 7) else 0.0
    top = small.height - height if code in (3, 4, 7, 8) else 0.0
    return small, (left, top, left + width, top + height)
