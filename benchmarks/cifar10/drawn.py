"""Images that a smoke run draws: originals, web images in other styles, and a test set."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from kd3_pipeline.demo import shapes
from kd3_pipeline.demo.domains import WEB_STYLES, draw_web, original_images
from kd3_pipeline.store import StoredImage, replacing, write_shards

SIDE = 32
COUNTS = {"originals": 400, "web": 400, "test": 200}


def draw_data(folder: Path) -> None:
    """Draws what is not there yet, each set as Parquet shards with labels and class names."""
    drawn = {
        "originals": lambda: original_images("train", COUNTS["originals"], SIDE)[0],
        "web": lambda: _web(COUNTS["web"]),
        "test": lambda: original_images("test", COUNTS["test"], SIDE)[0],
    }
    for name, draw in drawn.items():
        if not (folder / name).exists():
            with replacing(folder / name) as moved:
                write_shards(moved, _stored(draw()), shapes.CLASS_NAMES)


def _web(count: int) -> Iterator[np.ndarray]:
    """Web images uint8 [SIDE, SIDE, 3], of class i mod 10 at i."""
    for index in range(count):
        rng = np.random.default_rng([13, index])
        style = WEB_STYLES[index // len(shapes.CLASS_NAMES) % len(WEB_STYLES)]
        yield np.asarray(draw_web(index % len(shapes.CLASS_NAMES), style, SIDE, rng))


def _stored(images: Iterable[np.ndarray]) -> Iterator[StoredImage]:
    for index, pixels in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        data = file.getvalue()
        label = index % len(shapes.CLASS_NAMES)
        yield StoredImage(hashlib.sha256(data).hexdigest(), data, label, SIDE, SIDE, "PNG")
