"""Strips of pictures: parts of their full width, so that no second picture of their size is held.

Pillow makes bytes of a picture by two copies of it, and arrays from those.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

PIXELS = 2**20  # of a strip, about


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, strip) of a picture, from its top to its bottom; first rows are even."""
    rows = max(2, PIXELS // image.width // 2 * 2)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def levels_of(image: Image.Image, channel: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """One channel of a picture, uint8 [H, W].

    Args:
        channel: gives it of a strip.
    """
    levels = np.empty((image.height, image.width), np.uint8)
    for top, strip in strips(image):
        levels[top : top + strip.height] = np.asarray(channel(strip))
    return levels
