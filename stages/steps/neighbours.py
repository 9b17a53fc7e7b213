"""Step of `pipeline neighbours`: the crawled images nearest to one, in the teacher's eyes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.console import Console, printable
from pipeline.embed.index import neighbours
from pipeline.errors import UserError
from pipeline.images import Fit, ImageError, decode, to_square
from pipeline.models.checkpoint import load_model
from pipeline.models.network import pool
from pipeline.paramfile import read_params
from pipeline.pixels import normalise
from pipeline.report.neighbours.page import build_neighbours_page
from pipeline.report.thumbnails import encode_thumbnail, read_thumbnails
from pipeline.store import open_parquet, read_table, write_text
from stages import paths

ORIGIN = ("class", "title", "url", "page_url", "licence", "licence_url")


@dataclass(frozen=True)
class Found:
    """What is near to an image.

    Attributes:
        image: the file that was asked about, or the whole id.
        predicted: the class that the teacher sees in it.
        rows: nearest first; each has id, cosine, class (asked for), predicted, title, url,
            page_url, licence and licence_url.
    """

    image: str
    predicted: str
    rows: list[dict[str, Any]]


def run(image: str, k: int, html: Path | None, as_json: bool) -> None:
    """Prints the `k` images nearest to one, and writes them as a page to `html`."""
    found = nearest(image, k, read_params(paths.PARAMS).embed.fit)
    console = Console(as_json=as_json)
    if html:
        try:
            write_text(html, sheet(found))
        except OSError as error:
            raise UserError(f"{html} cannot be written: {error.strerror or error}") from None
        console.note(f"contact sheet: {html}")
    lines = [
        "  ".join(
            [
                f"{row['cosine']:.3f}",
                row["id"][:16],
                f"{row['class']}, seen as {row['predicted']}",
                row["licence"] or "licence not stated",
                row["url"],
            ]
        )
        for row in found.rows
    ]
    values = {"image": found.image, "predicted": found.predicted, "neighbours": found.rows}
    console.result("\n".join(map(printable, lines)), values)


def nearest(image: str, k: int, fit: Fit = "crop") -> Found:
    """The `k` embedded images nearest to one.

    Args:
        image: an image file, or an id (or its beginning) from data/embed/images.parquet.
        fit: how a file is made square, as `embed` did with its images.

    Raises:
        UserError: no such file or id, or data/embed is not there.
    """
    ids = read_table(paths.EMBED / "images.parquet", ["id"])["id"].to_pylist()
    asked = Path(image).is_file()
    row = -1 if asked else _row_of(image, ids)
    network, config = load_model(paths.TEACHER, torch.device("cpu"))
    logits = _array("logits.npy")
    if asked:
        pixels = _square(Path(image), config.input_size, fit)
        with torch.inference_mode():
            pooled = pool(network.features(normalise(pixels[None], config.mean, config.std)))
            features, seen = pooled[0].numpy(), network.classify(pooled)[0].numpy()
    else:
        features, seen = _array("features.npy")[row], logits[row]
    rows, cosines = neighbours(paths.EMBED / "index.faiss", features[None], k)
    found = [
        {
            "id": ids[near],
            "cosine": round(cosine, 4),
            "predicted": config.class_names[int(logits[near].argmax())],
        }
        for near, cosine in zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
        if near >= 0
    ]
    origins = _origins([one["id"] for one in found])
    for one in found:
        origin = origins.get(one["id"], {})
        one |= {name: origin.get(name) or "" for name in ORIGIN}
    name = image if asked else ids[row]
    return Found(name, config.class_names[int(seen.argmax())], found)


def sheet(found: Found) -> str:
    """The same as a page of HTML.

    Raises:
        UserError: data/crawl or data/dedup is not that of data/embed.
    """
    wanted = {row["id"] for row in found.rows}
    asked = Path(found.image)
    if not asked.is_file():
        wanted.add(found.image)
    stored = read_table(paths.DEDUP, ["id", "shard", "row"])
    places = stored.filter(pc.is_in(stored["id"], pa.array(sorted(wanted), pa.string())))
    where = {place["id"]: (place["shard"], place["row"]) for place in places.to_pylist()}
    pictures = read_thumbnails(paths.CRAWL, where)
    pictures["query"] = (
        encode_thumbnail(asked.read_bytes()) if asked.is_file() else pictures.get(found.image)
    )
    name = asked.name if asked.is_file() else found.image[:16]
    return build_neighbours_page(name, found.predicted, found.rows, pictures)


def _row_of(image: str, ids: list[str]) -> int:
    rows = [row for row, name in enumerate(ids) if name.startswith(image.lower())]
    if len(rows) != 1 or not image:
        raise UserError(f"'{image}' is no file, and {len(rows)} embedded ids begin with it")
    return rows[0]


def _square(path: Path, side: int, fit: Fit) -> torch.Tensor:
    try:
        return torch.from_numpy(to_square(decode(path.read_bytes()), side, fit).copy())
    except ImageError as error:
        raise UserError(f"{path} is not a whole image: {error}") from None


def _origins(ids: list[str]) -> dict[str, dict[str, Any]]:
    """The manifest's rows of images, by id: those that they were stored from."""
    with open_parquet(paths.MANIFEST) as file:
        # a crawl is never repeated for newer code, and early ones have no addresses of licences
        later = [name for name in ("licence_url",) if name not in file.schema_arrow.names]
    columns = [name for name in ("id", "outcome", *ORIGIN) if name not in later]
    table = read_table(paths.MANIFEST, columns)
    stored = pc.equal(table["outcome"], "stored")
    wanted = pc.is_in(table["id"], pa.array(ids, pa.string()))
    return {row["id"]: row for row in table.filter(pc.and_(stored, wanted)).to_pylist()}


def _array(name: str) -> np.ndarray:
    path = paths.EMBED / name
    if not path.is_file():
        raise UserError(f"{path} not found", "run `dvc repro embed`")
    return np.load(path, mmap_mode="r")
