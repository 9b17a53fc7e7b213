"""Encoded real images, where this checkout has them beside it."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


def real_images(name, total):
    """`total` encoded images, evenly spread over a file; skips where the file is absent."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"needs {name} of the real images, in ../shared/data")
    images = pq.read_table(path, columns=["image"])["image"].combine_chunks().field("bytes")
    step = len(images) // total
    return [images[row * step].as_py() for row in range(total)]
