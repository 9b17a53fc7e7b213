"""Frames: how a picture becomes the square that a network sees."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

Fit = Literal["crop", "squash"]


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
