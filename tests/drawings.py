"""Pictures that have little in them, all different and all much alike."""

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

BICUBIC = Image.Resampling.BICUBIC


def handwritten(side: int = 32) -> np.ndarray:
    """1,797 handwritten digits of 8 x 8 pixels, scaled up: uint8 [N, side, side, 3]."""
    small = (load_digits().images * 15.9).astype(np.uint8)
    large = [np.asarray(Image.fromarray(one).resize((side, side), BICUBIC)) for one in small]
    return np.repeat(np.stack(large)[..., None], 3, axis=3)


def shirt(index: int, size: int = 128) -> Image.Image:
    """A shirt, the same each time, with a print of its own."""
    rng = np.random.default_rng([5, index])
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    outline = [(4, 2), (6, 3), (10, 3), (12, 2), (15, 5), (13, 7), (12, 6), (12, 15), (4, 15)]
    outline += [(4, 6), (3, 7), (1, 5)]
    draw.polygon([(x * size / 16, y * size / 16) for x, y in outline], (60, 60, 70))
    for _ in range(4):
        x, y = rng.uniform(0.42, 0.58, 2) * size
        half = rng.uniform(0.04, 0.12) * size
        draw.ellipse(
            (x - half, y - half, x + half, y + half), tuple(rng.integers(0, 256, 3).tolist())
        )
    return image
