"""Nearest embedded images to one, in the teacher's eyes, and where they are from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from kd3_pipeline.embed.index import search
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Fit, framed
from kd3_pipeline.images import decode
from kd3_pipeline.manifest import STORED, read_manifest
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.pixels import normalise

ORIGIN = ("class", "title", "url", "page_url", "licence", "licence_url")


@dataclass(frozen=True)
class Neighbours:
    """Images near to one.

    Attributes:
        image: the file that was asked about, or the whole id.
        predicted: the class that the teacher sees in it.
        rows: nearest first; each has id, cosine, class (asked for), predicted, title, url,
            page_url, licence and licence_url.
    """

    image: str
    predicted: str
    rows: list[dict[str, Any]]


def nearest(
    image: str,
    k: int,
    fit: Fit,
    resize: int,
    embeddings: Embeddings,
    teacher: Path,
    manifest: Path,
) -> Neighbours:
    """The `k` embedded images nearest to one.

    Args:
        image: an image file, or an id (or its beginning) of an embedded image.
        fit, resize: how a file is framed, as `embed` did with its images.
        teacher: folder of the model that made the embeddings.
        manifest: of the crawl, for where the images are from.

    Raises:
        UserError: no such file or id; teacher, index or manifest is missing or broken.
    """
    ids = embeddings.ids
    asked = Path(image).is_file()
    row = -1 if asked else _row_of(image, ids)
    network, config = load_model(teacher, torch.device("cpu"))
    logits = embeddings.logits
    if asked:
        features, seen = _passed(Path(image), fit, resize, network, config)
    else:
        features, seen = embeddings.features[row], logits[row]
    rows, cosines = search(embeddings.index, features[None], k)
    names = config.class_names
    found: list[dict[str, Any]] = [
        {
            "id": ids[near],
            "cosine": round(cosine, 4),
            "predicted": names[int(logits[near].argmax())],
        }
        for near, cosine in zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
        if near >= 0
    ]
    origins = _origins(manifest, [one["id"] for one in found])
    for one in found:
        origin = origins.get(one["id"], {})
        one |= {name: origin.get(name) or "" for name in ORIGIN}
    return Neighbours(image if asked else ids[row], names[int(seen.argmax())], found)


def _row_of(image: str, ids: list[str]) -> int:
    rows = [row for row, name in enumerate(ids) if name.startswith(image.lower())]
    if len(rows) != 1 or not image:
        raise UserError(f"'{image}' is no file, and {len(rows)} embedded ids begin with it")
    return rows[0]


def _passed(
    path: Path, fit: Fit, resize: int, network: Network, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [D] and logits float32 [C] of an image file."""
    try:
        pixels = framed(decode(path.read_bytes()), config.input_size, fit, resize)
    except ImageError as error:
        raise UserError(f"{path} is not a whole image: {error}") from None
    shown = normalise(torch.from_numpy(pixels.copy())[None], config.mean, config.std)
    with torch.inference_mode():
        pooled = pool(network.features(shown))
        logits = network.classify(pooled)
    if not (pooled.isfinite().all() and logits.isfinite().all()):
        raise UserError(f"the teacher's answer to {path} is not finite", "see its weights")
    return pooled[0].numpy(), logits[0].numpy()


def _origins(manifest: Path, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Of each image the candidate that it was stored from."""
    wanted = (pc.field("outcome") == STORED) & pc.field("id").isin(pa.array(ids, pa.string()))
    return {row["id"]: row for row in read_manifest(manifest, ("id", *ORIGIN), wanted).to_pylist()}
