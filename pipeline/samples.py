"""Samples of 16 bits, and of fewer bits in 16: to the 8 that everything here works with.

Cameras, scanners and microscopes write 10, 12 or 14 bits into PNG files of 16, with values up to
1,023, 4,095 or 16,383. Their upper bytes alone are black. So the whole picture's largest value
says how many bits are used: the least of 8, 10, 12, 14 and 16 that hold it, or the chunk `sBIT`,
if there is one and the values keep to it. A picture that is dark in all 16 bits is brightened by
that, by a power of two: no two values change places, and none is clipped. Alpha is looked at on
its own.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from kd3_pipeline.pngfile import SIGNATURE, chunks

DEPTHS = (8, 10, 12, 14, 16)  # bits of the converters in use
COLOURS = {0: 1, 2: 3, 4: 1, 6: 3}  # PNG's colour type -> samples beside alpha


@dataclass(frozen=True)
class Shown:
    """A picture of 8 bits a sample, and how many bits a sample used of those it had."""

    image: Image.Image
    used: int = 8
    of: int = 8

    @property
    def remark(self) -> str:
        """What was done to its brightness, in words; "" if nothing."""
        if self.used == self.of:
            return ""
        return f"values of {self.used} bits in {self.of}: brightened {2 ** (self.of - self.used)}×"


def eight_bits(image: Image.Image, data: bytes) -> Shown:
    """A loaded image with 8 bits a sample; what has them already is returned as it is.

    Args:
        data: what it was opened from.
    """
    if image.mode.startswith("I"):
        return _grey(image, data)
    if image.format == "PNG" and data[24:25] == b"\x10" and image.mode in ("RGB", "RGBA"):
        return _colour(image, data)
    return Shown(image)


def used_bits(most: int, significant: int = 0) -> int:
    """Bits that values up to `most` are of.

    Args:
        significant: bits that the file says are significant; 0 where it says nothing.
    """
    if 0 < significant <= 16 and most < 2**significant:
        return significant
    return next((bits for bits in DEPTHS if most < 2**bits), 16)


def _grey(image: Image.Image, data: bytes) -> Shown:
    values = np.asarray(image)
    used = used_bits(int(values.max()), _significant(data))
    shown = Image.fromarray(_scaled(values, used))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        seen = np.where(values == hidden, 0, 255).astype(np.uint8)
        shown = Image.merge("LA", (shown, Image.fromarray(seen)))
    return Shown(shown, used, 16)


def _scaled(values: np.ndarray, used: int) -> np.ndarray:
    few = values >> (used - 8) if used >= 8 else values << (8 - used)
    return few.clip(0, 255).astype(np.uint8)


def _colour(image: Image.Image, data: bytes) -> Shown:
    """Pillow keeps the upper bytes alone; where all are small, the lower ones are read too."""
    upper = image.split()
    kind = data[25]
    colours = COLOURS.get(kind, 3)
    bands = upper if kind in (2, 6) else (upper[0], upper[-1])
    if _most(bands[:colours]) >= 2**6 or _significant(data) == 16:
        return Shown(image, 16, 16)  # over 14 bits
    lower = _lower_bytes(data, kind)
    pairs = list(zip(bands, lower, strict=True))
    used = _used_of(pairs[:colours], _significant(data))
    shown = [_joined(*pair, used) for pair in pairs[:colours]]
    alphas = [_joined(*pair, _used_of([pair], 0)) for pair in pairs[colours:]]
    shown = shown * 3 if colours == 1 else shown
    if isinstance(hidden := image.info.get("transparency"), tuple) and not alphas:
        alphas = [_seen(pairs, hidden)]
    made = Image.merge("RGBA" if alphas else "RGB", [*shown, *alphas])
    return Shown(made, used, 16)


def _most(bands: Sequence[Image.Image]) -> int:
    return max(int(band.getextrema()[1]) for band in bands)  # type: ignore[arg-type]


def _used_of(pairs: Sequence[tuple[Image.Image, Image.Image]], significant: int) -> int:
    """Bits that pairs of upper and lower bytes use together."""
    top = _most([upper for upper, _ in pairs])
    # a limit over 8 bits is passed in the upper byte alone, whatever the lower one is
    most = top << 8 | 0xFF if top else _most([lower for _, lower in pairs])
    return used_bits(most, significant)


def _joined(upper: Image.Image, lower: Image.Image, used: int) -> Image.Image:
    """One band of 8 bits, of which the first `used - 8` are the upper byte's."""
    if used < 8:
        return lower.point([min(255, value << (8 - used)) for value in range(256)])
    high = upper.point([value << (16 - used) & 0xFF for value in range(256)])
    low = lower.point([value >> (used - 8) for value in range(256)])
    return ImageChops.add(high, low)


def _seen(pairs: Sequence[tuple[Image.Image, Image.Image]], hidden: Sequence[int]) -> Image.Image:
    """Alpha of a picture of which one colour, given in 16 bits, is transparent."""
    same = None
    for (upper, lower), value in zip(pairs, hidden, strict=True):
        for band, byte in ((upper, value >> 8), (lower, value & 0xFF)):
            here = band.point([255 if one == byte else 0 for one in range(256)])
            same = here if same is None else ImageChops.multiply(same, here)
    assert same is not None
    return ImageChops.invert(same)


def _lower_bytes(data: bytes, kind: int) -> Sequence[Image.Image]:
    """The lower bytes of each band of a PNG of 16 bits that Pillow makes RGB or RGBA.

    To take its big-endian samples for little-endian ones is to take the lower byte of each. For
    grey with alpha there is no such mode: its four bytes are read as four bands.
    """
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    raw = {2: "RGB;16L", 6: "RGBA;16L", 4: "RGBA"}[kind]
    image.tile = [tile._replace(args=raw) for tile in image.tile]
    image.load()
    bands = image.split()
    return (bands[1], bands[3]) if kind == 4 else bands


def _significant(data: bytes) -> int:
    """The most bits of a colour that the chunk sBIT calls significant; 0 without one."""
    if data[:8] != SIGNATURE or data[24:25] != b"\x10":
        return 0
    for kind, start, end in chunks(data):
        if kind == b"sBIT":
            return max(data[start : min(end, start + COLOURS.get(data[25], 3))], default=0)
        if kind == b"IDAT":
            break
    return 0
