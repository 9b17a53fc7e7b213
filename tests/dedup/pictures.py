"""Drawn pictures, and what dedup's tests do with them."""

import io

import numpy as np
from PIL import Image, ImageDraw


def picture(index, width=70, height=50):
    """A smooth random picture."""
    coarse = np.random.default_rng(index).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def scene(index, width=400, height=300):
    """A smooth picture with edges, like none of its neighbours."""
    image = picture(index, width, height)
    drawn = ImageDraw.Draw(image)
    for x, y in np.random.default_rng([7, index]).uniform(0.1, 0.8, (5, 2)):
        spot = (x * width, y * height, x * width + width / 8, y * height + height / 8)
        drawn.ellipse(spot, fill=tuple(np.random.default_rng(index).integers(0, 256, 3).tolist()))
    return image


def encoded(image, form="PNG", **how):
    out = io.BytesIO()
    image.save(out, form, **({"compress_level": 0} if form == "PNG" else {}), **how)
    return out.getvalue()


def jpeg(image, quality=90, **how):
    return encoded(image, "JPEG", quality=quality, **how)


def bits_apart(a, b):
    return np.bitwise_count(np.asarray(a, np.uint64) ^ np.asarray(b, np.uint64))
