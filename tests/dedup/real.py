"""Real pictures, encoded: crops of two photographs everywhere, larger sets where they are.

The photographs come with scikit-learn (by danielbuechele and vultilion, CC BY 2.0). The larger sets
lie beside this checkout, in ../shared/data.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

PHOTOGRAPHS = "photographs"
PACS = "pacs-dog-horse/train.parquet"
TINY_IMAGENET = "tiny-imagenet-32/train-00000-of-00002.parquet"
CIFAR10 = "cifar10/test.parquet"
DATA = Path(__file__).parents[3] / "shared" / "data"
SIDE, GAP = 180, 7  # pixels of a crop, and between two
SKY = 60  # pixels at the top of a photograph that show little


def real_images(source: str, total: int) -> list[bytes]:
    """`total` encoded images of a source; skips where its file is absent.

    Of `PHOTOGRAPHS` the first 12 have no part in common, all others are crops at random.
    """
    if source == PHOTOGRAPHS:
        return [_encoded(crop) for crop in _crops(total)]
    path = DATA / source
    if not path.is_file():
        pytest.skip(f"needs the real images {source}")
    images = pq.read_table(path, columns=["image"])["image"].combine_chunks().field("bytes")
    step = len(images) // total
    return [images[row * step].as_py() for row in range(total)]


def other_images(source: str, total: int) -> list[np.ndarray]:
    """`total` pictures of something else than those of `source`, uint8 [32, 32, 3]."""
    if source == PHOTOGRAPHS:  # handwritten digits, 8 x 8 pixels of 17 levels
        digits = (load_digits().images[:total] * 15.9).astype(np.uint8)
        return [
            np.repeat(np.kron(one, np.ones((4, 4), np.uint8))[..., None], 3, 2) for one in digits
        ]
    data = real_images(CIFAR10, total)
    return [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in data]


def _crops(total: int) -> list[Image.Image]:
    photographs = [Image.fromarray(pixels) for pixels in _photographs()]
    corners = [
        (photograph, column * (SIDE + GAP), SKY + row * (SIDE + GAP))
        for row in range(2)
        for column in range(3)
        for photograph in photographs
    ]
    draws = np.random.default_rng(0)
    while len(corners) < total:
        photograph = photographs[len(corners) % 2]
        left, top = draws.integers((0, SKY), np.array(photograph.size) - SIDE).tolist()
        corners.append((photograph, left, top))
    return [
        photograph.crop((left, top, left + SIDE, top + SIDE))
        for photograph, left, top in corners[:total]
    ]


@cache
def _photographs() -> list[np.ndarray]:
    return load_sample_images().images


def _encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()
