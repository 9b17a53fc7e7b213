"""The crawled images nearest to one image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.embed.index import neighbours
from pipeline.errors import UserError
from pipeline.images import Fit, ImageError, decode, to_square
from pipeline.models.checkpoint import load_model
from pipeline.models.network import pool
from pipeline.pixels import normalise
from pipeline.store import read_table
from stages import paths


def nearest(image: str, k: int, fit: Fit = "crop") -> list[dict[str, Any]]:
    """The `k` nearest images with id, cosine, class, URL, page and licence, nearest first.

    Args:
        image: an image file, or an id (or its beginning) from data/embed/images.parquet.
        fit: how a file is made square, as `embed` did with its images.

    Raises:
        UserError: no such file or id, or data/embed is not there.
    """
    ids = read_table(paths.EMBED / "images.parquet", ["id"])["id"].to_pylist()
    query = _features(image, ids, fit)
    rows, cosines = neighbours(paths.EMBED / "index.faiss", query[None], k)
    columns = ["id", "outcome", "class", "url", "page_url", "licence"]
    manifest = read_table(paths.MANIFEST, columns).to_pylist()
    origin = {row["id"]: row for row in manifest if row["outcome"] == "stored"}
    found = []
    for row, cosine in zip(rows[0].tolist(), cosines[0].tolist(), strict=True):
        source = origin.get(ids[row], {})
        found.append(
            {"id": ids[row], "cosine": round(cosine, 4)}
            | {name: source.get(name, "") for name in ("class", "url", "page_url", "licence")}
        )
    return found


def _features(image: str, ids: list[str], fit: Fit) -> np.ndarray:
    path = Path(image)
    if not path.is_file():
        rows = [row for row, name in enumerate(ids) if name.startswith(image.lower())]
        if len(rows) != 1 or not image:
            raise UserError(f"'{image}' is no file, and {len(rows)} embedded ids begin with it")
        return np.load(paths.EMBED / "features.npy", mmap_mode="r")[rows[0]]
    network, config = load_model(paths.TEACHER, torch.device("cpu"))
    try:
        pixels = to_square(decode(path.read_bytes()), config.input_size, fit)
    except ImageError as error:
        raise UserError(f"{path} is not a whole image: {error}") from None
    with torch.inference_mode():
        batch = normalise(torch.from_numpy(pixels[None].copy()), config.mean, config.std)
        return pool(network.features(batch))[0].numpy()
