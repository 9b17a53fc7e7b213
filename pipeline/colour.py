"""Colours of pictures: from what a file says they are to sRGB, as browsers show them.

A profile (ICC.1) counts, or in its place a PNG's chunks cICP, sRGB, gAMA and cHRM, or the code
points of an AVIF (ITU-T H.273). Pixels of a picture that says nothing, or that says sRGB in one of
its many spellings, stay as they are to the bit.
"""

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from kd3_pipeline.pngfile import MOST_PROFILE, unpacked

RECOLOURED, COLOURS_UNREAD = "colours brought to sRGB", "colours taken for sRGB"
SAME = 2  # levels by which a profile may move a colour and still be sRGB
REMEMBERED = 64 * 1024  # bytes of a profile whose transform is kept for the next picture
GAMMA_SLACK = 0.05  # of what gAMA says: libpng's, below which there is nothing to correct
DISPLAY = 2.2  # gamma that a PNG's gAMA is meant for
MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}  # colour space of a profile -> pixels
SHARED = ImageCms.Flags.NOCACHE  # of a transform that threads use at once
D50, D65 = (0.96422, 1.0, 0.82521), (0.3127, 0.3290)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
PRIMARIES = {  # of H.273, table 2: x and y of red, green and blue
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
UNKNOWN = 2  # code point of H.273 for "not said"
CURVE_POINTS = 1024
Curve = Callable[[np.ndarray], np.ndarray]


def _srgb_curve(level: np.ndarray) -> np.ndarray:
    """Light of a level of sRGB, both from 0 to 1 (IEC 61966-2-1)."""
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def _power(gamma: float) -> Curve:
    return lambda level: level**gamma


# of H.273, table 3; video of BT.709 and BT.2020 is shown as sRGB is
CURVES: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 13, 14, 15), _srgb_curve),
    **{4: _power(2.2), 5: _power(2.8), 8: _power(1.0)},
}


@dataclass(frozen=True)
class Colours:
    """What the pixels of a picture mean.

    Attributes:
        profile: that of ICC which brings them to sRGB; empty where nothing is to be done.
        remark: what was done or could not be done, in words; "" for nothing.
    """

    profile: bytes = b""
    remark: str = ""


PLAIN = Colours()


def colours_of(image: Image.Image, data: bytes, said: Mapping[bytes, bytes]) -> Colours:
    """The colours of an open picture.

    Args:
        data: what it was opened from.
        said: the chunks of a PNG that say something about its colours.
    """
    try:
        profile = _profile(image, data, said)
        if not profile or not _moves(profile, image.mode):
            return PLAIN
        return Colours(profile, RECOLOURED)
    except _Unread as error:
        return Colours(remark=f"{COLOURS_UNREAD}: {error}")


def in_srgb(image: Image.Image, colours: Colours) -> Image.Image:
    """A loaded picture of 8 bits, with its colours in sRGB; its own pixels may be changed."""
    if not colours.profile:
        return image
    mode = MODES[colours.profile[16:20]]
    if mode == "CMYK":
        return _transform(colours.profile, mode).apply(image)
    if mode == "L":
        image = image.convert("L") if image.mode == "1" else image
        table = _greys(colours.profile)
        return image.point(table + list(range(256)) if image.mode == "LA" else table)
    if image.mode not in ("RGB", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return _transform(colours.profile, image.mode).apply_in_place(image)


class _Unread(Exception):
    """Colours that are said in a way that is not understood."""


def _profile(image: Image.Image, data: bytes, said: Mapping[bytes, bytes]) -> bytes | None:
    """An ICC profile of what a picture says about its colours; None if it says nothing, or sRGB."""
    if image.format == "PNG":
        return _of_png(said)
    profile = image.info.get("icc_profile")
    if profile and len(profile) > MOST_PROFILE:
        raise _Unread(f"a profile of more than {MOST_PROFILE:,} bytes")
    if profile or image.format != "AVIF":
        return profile or None
    at = data.find(b"colrnclx", 0, 64 * 1024)
    return _of_points(*struct.unpack(">HH", data[at + 8 : at + 12])) if at > 0 else None


def _of_png(said: Mapping[bytes, bytes]) -> bytes | None:
    """The first of what the PNG standard ranks (3rd edition, 4.3)."""
    if b"cICP" in said:
        return _of_points(said[b"cICP"][0], said[b"cICP"][1])
    if b"iCCP" in said:
        _, _, packed = said[b"iCCP"].partition(b"\0")
        profile = unpacked(packed[1:], MOST_PROFILE) if packed[:1] == b"\0" else None
        if not profile:
            raise _Unread("a profile that cannot be unpacked")
        return profile
    gamma = int.from_bytes(said.get(b"gAMA", b"")[:4], "big") / 100_000
    if b"sRGB" in said or not gamma:  # Chromium passes over a cHRM alone
        return None
    points = struct.unpack(">8I", said[b"cHRM"][:32]) if b"cHRM" in said else None
    curve: Curve = _srgb_curve
    if abs(gamma * DISPLAY - 1) > GAMMA_SLACK:
        curve = _power(1 / gamma)
    elif points is None:
        return None
    if points is None:
        return matrix_profile(curve, PRIMARIES[1], D65)
    pairs = np.reshape(points, (4, 2)) / 100_000  # white, red, green, blue
    return matrix_profile(curve, pairs[1:], pairs[0])


def _of_points(primaries: int, curve: int) -> bytes | None:
    """A profile of code points; None for sRGB, and for what is not said."""
    primaries = 1 if primaries == UNKNOWN else primaries
    curve = 13 if curve == UNKNOWN else curve
    if primaries not in PRIMARIES or curve not in CURVES:
        raise _Unread(f"primaries {primaries} and curve {curve} of H.273 are not known here")
    if primaries == 1 and CURVES[curve] is _srgb_curve:
        return None
    return matrix_profile(CURVES[curve], PRIMARIES[primaries], D65)


def matrix_profile(curve: Curve, primaries: Any, white: Any) -> bytes:
    """A profile of three primaries, a white and one curve (ICC.1:2001, 6.3.1.2)."""
    try:
        with np.errstate(all="raise"):
            matrix = _adapted(primaries, white)
    except (ZeroDivisionError, FloatingPointError, np.linalg.LinAlgError):
        raise _Unread("primaries that are none") from None
    if not (np.abs(matrix) < 8).all():
        raise _Unread("primaries that are none")
    levels = np.linspace(0, 1, CURVE_POINTS)
    points = (curve(levels) * 65535).round().clip(0, 65535).astype(">u2").tobytes()
    curves = b"curv" + bytes(4) + struct.pack(">I", CURVE_POINTS) + points
    tags = {b"wtpt": _xyz(D50)}
    for letter, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
        tags[letter + b"XYZ"] = _xyz(column)
        tags[letter + b"TRC"] = curves
    at, table, body = 132 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s", at + len(body), bytes(4), 0x02200000, b"mntr", b"RGB ", b"XYZ "
    )
    head += bytes(12) + b"acsp" + bytes(28) + _xyz(D50)[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def _adapted(primaries: Any, white: Any) -> np.ndarray:
    """XYZ of the three primaries under D50, in columns: [3, 3]."""
    of_white = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    matrix = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    matrix = matrix * np.linalg.solve(matrix, of_white)
    scale = np.diag((BRADFORD @ D50) / (BRADFORD @ of_white))
    return np.asarray(np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ matrix)


def _xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(one * 65536)) for one in values)


def _moves(profile: bytes, mode: str) -> bool:
    """Whether a profile moves a colour of pixels of a mode."""
    space = profile[16:20]
    if space not in MODES:
        raise _Unread("a profile that is none")
    grey, ink = mode in ("1", "L", "LA") or mode.startswith("I;16"), mode == "CMYK"
    if (space == b"CMYK") != ink or (space == b"GRAY" and not grey):
        raise _Unread(f"a profile of {space.decode().strip()} on pixels of {mode}")
    return bool(_moved(profile) > SAME)


def _remembered(function: Any) -> Any:
    """The last results of a function of a profile, unless it is so large that few would fit."""
    last = lru_cache(maxsize=32)(function)

    def of(profile: bytes, *rest: str) -> Any:
        return (last if len(profile) <= REMEMBERED else function)(profile, *rest)

    return of


@_remembered
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """From a profile to sRGB, of alpha or not."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        return ImageCms.ImageCmsTransform(
            source, target, mode, "RGBA" if mode == "RGBA" else "RGB", flags=SHARED
        )
    except Exception as error:  # a profile is as hostile as any file
        raise _Unread(f"a profile that is broken ({type(error).__name__})") from None


@_remembered
def _moved(profile: bytes) -> int:
    """Levels by which a profile moves a colour, at most."""
    mode = MODES[profile[16:20]]
    transform = _transform(profile, mode)
    if mode == "CMYK":
        return 255
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
    if mode == "L":
        return int(np.abs(np.array(_greys(profile)) - np.arange(256)).max())
    shown = np.asarray(transform.apply(Image.fromarray(grid)))
    return int(np.abs(shown.astype(int) - grid).max())


@_remembered
def _greys(profile: bytes) -> list[int]:
    """Where a profile of grey takes each of the 256 levels."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    shown = np.asarray(_transform(profile, "L").apply(ramp))
    return [int(level) for level in shown[0, :, 1]]
