"""Small pictures of stored images, decoded from untrusted bytes and encoded anew."""

import base64
import io
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from pipeline.report.inputs import malformed, require

SIDE = 96
MAX_PIXELS = 50_000_000
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP"]


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def encode_thumbnail(data: bytes | None, side: int = SIDE) -> Thumbnail | None:
    """Decode one image and encode it as WebP of at most `side` pixels, without its metadata.

    Returns:
        The thumbnail, or None when the bytes are not one of the formats of web images, are
        broken, or hold more than 50 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data or b""), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                image.draft("RGB", (2 * side, 2 * side))
                image.load()
                # Alpha is kept until after the resize, so that edges do not get a dark fringe.
                small = image.convert("RGBA")
                small.thumbnail((side, side), Image.Resampling.LANCZOS)
                small.info["exif"] = image.info.get("exif", b"")
        small = ImageOps.exif_transpose(small)
        flat = Image.new("RGB", small.size, "white")
        flat.paste(small, mask=small.getchannel("A"))
        out = io.BytesIO()
        flat.save(out, "WEBP", quality=75, method=4)
    except Exception:
        # Pillow's decoders raise almost anything on hostile bytes; the page shows a placeholder.
        return None
    uri = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Thumbnail(uri, *flat.size)


def _rows(path: Path, wanted: set[int]) -> Iterator[tuple[int, str, bytes | None]]:
    """Yield (row, id, bytes) of the wanted rows, reading only the row groups that hold them."""
    with pq.ParquetFile(path) as file:
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


def read_thumbnails(crawl: Path, wanted: dict[str, tuple[int, int]]) -> dict[str, Thumbnail | None]:
    """Thumbnails of the images `wanted`, given as id -> (shard, row).

    Raises:
        UserError: a shard is missing, unreadable, or holds another image in that row.
    """
    shards: dict[int, dict[int, str]] = defaultdict(dict)
    for image_id, (shard, row) in wanted.items():
        shards[shard][row] = image_id
    found: dict[str, Thumbnail | None] = {}
    for shard, rows in sorted(shards.items()):
        path = require(crawl / f"images-{shard:05d}.parquet", "crawl")
        try:
            for row, image_id, data in _rows(path, set(rows)):
                if image_id != rows[row]:
                    raise malformed(path, f"row {row} is not the image the dedup file names")
                found[image_id] = encode_thumbnail(data)
        except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
            raise malformed(path, error) from error
        if absent := set(rows.values()) - set(found):
            raise malformed(path, f"has fewer rows than the dedup file names ({len(absent)} gone)")
    return found
