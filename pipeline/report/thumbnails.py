"""Thumbnails of stored images, decoded from untrusted bytes and encoded anew."""

import base64
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from kd3_pipeline.errors import UserError
from kd3_pipeline.images import decode_small
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.store import open_parquet, shard_path

SIDE = 96
HINT = "run `dvc repro crawl dedup`"


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def encode_thumbnail(data: bytes | None, side: int = SIDE) -> Thumbnail | None:
    """One image as WebP of at most `side` pixels, without its metadata.

    Returns:
        The thumbnail, or None when the bytes are no web image, broken or too large.
    """
    try:
        small = decode_small(data or b"", side)
    except ImageError:
        return None  # the page shows a placeholder
    out = io.BytesIO()
    small.save(out, "WEBP", quality=75, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Thumbnail(uri, *small.size)


def pixel_thumbnail(pixels: np.ndarray, side: int = SIDE) -> Thumbnail:
    """Pixels uint8 [S, S, 3] as they are stored, at `side`; those of few are seen one by one."""
    image = Image.fromarray(pixels)
    few = image.width < side
    image = image.resize((side, side), Image.Resampling.NEAREST if few else Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=75, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Thumbnail(uri, *image.size)


def _read_rows(path: Path, wanted: set[int]) -> Iterator[tuple[int, str, bytes | None]]:
    """(row, id, bytes) of the wanted rows; reads only the row groups that hold them."""
    with open_parquet(path, HINT) as file:
        end = 0
        for group in range(file.num_row_groups):
            start, end = end, end + file.metadata.row_group(group).num_rows
            if not any(start <= row < end for row in wanted):
                continue
            # Small batches: one row group may hold hundreds of megabytes.
            for batch in file.iter_batches(64, row_groups=[group], columns=["id", "image.bytes"]):
                for row in sorted(wanted & set(range(start, start + batch.num_rows))):
                    image = batch.column("image")[row - start].as_py() or {}
                    yield row, batch.column("id")[row - start].as_py(), image.get("bytes")
                start += batch.num_rows


def read_thumbnails(
    crawl: Path, wanted: dict[str, tuple[int, int]], side: int = SIDE
) -> dict[str, Thumbnail | None]:
    """Thumbnails of the images `wanted`, given as id -> (shard, row), at most `side` pixels each.

    Raises:
        UserError: a shard is missing, unreadable, or holds another image in that row.
    """
    shards: dict[int, dict[int, str]] = defaultdict(dict)
    for image_id, (shard, row) in wanted.items():
        shards[shard][row] = image_id
    found: dict[str, Thumbnail | None] = {}
    for shard, rows in sorted(shards.items()):
        path = shard_path(crawl, shard)
        try:
            for row, image_id, data in _read_rows(path, set(rows)):
                if image_id != rows[row]:
                    raise UserError(
                        f"{path}: row {row} is not the image the dedup file names", HINT
                    )
                found[image_id] = encode_thumbnail(data, side)
        except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: {error}", HINT) from error
        if absent := set(rows.values()) - set(found):
            said = f"has fewer rows than the dedup file names ({len(absent)} gone)"
            raise UserError(f"{path} {said}", HINT)
    return found
