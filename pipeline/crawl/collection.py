"""A collection of images that is already here, in place of a search engine."""

import random
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.console import Advance
from pipeline.crawl.journal import Journal
from pipeline.errors import ExternalError, UserError
from pipeline.images import ImageError, inspect
from pipeline.manifest import Candidate, Fetched
from pipeline.store import open_parquet

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
NamedImage = tuple[str, bytes]  # a name, the encoded image


def collect(
    entries: Iterable[NamedImage],
    min_side: int,
    journal: Journal,
    advance: Advance,
    *,
    keep_damaged: bool = False,
) -> tuple[list[Candidate], dict[Candidate, Fetched]]:
    """Checks every image of a collection as if it came from the web, and keeps the good ones."""
    found = {}
    for rank, (name, data) in enumerate(entries):
        candidate = Candidate(-1, "", "files", "", rank, name)
        try:
            info = inspect(data, min_side, keep_damaged=keep_damaged)
        except ImageError as error:
            found[candidate] = Fetched(name, error.outcome, str(error))
        else:
            found[candidate] = Fetched(
                name,
                "ok",
                id=journal.keep(data),
                width=info.width,
                height=info.height,
                format=info.format,
                size=len(data),
                has_gps=info.has_gps,
                detail=info.detail,
            )
        advance(1)
    return list(found), found


def read_collection(source: Path, sample: int, seed: int, max_bytes: int) -> Iterator[NamedImage]:
    """The images of `source` in order, or a `sample` of them drawn by `seed` (0 takes all).

    Args:
        source: a folder of image files, a .tar or .parquet file, or a folder of .parquet files.
            A Parquet file has the encoded image in `image` (bytes, or a struct with `bytes`).
        max_bytes: larger files are left out of folders and archives.

    Raises:
        UserError: no such source, of another kind, or it cannot be read.
        ExternalError: it holds no images.
    """
    if source.is_dir():
        tables = sorted(source.glob("*.parquet"))
        if tables:
            entries = _parquet(tables, sample, seed)
        else:
            entries = _folder(source, sample, seed, max_bytes)
    elif source.suffix == ".parquet":
        entries = _parquet([source], sample, seed)
    elif source.suffix == ".tar" or source.name.endswith((".tar.gz", ".tgz")):
        entries = _tar(source, sample, seed, max_bytes)
    else:
        raise UserError(f"crawl.source: {source} is no folder, .tar or .parquet file")
    found = False
    try:
        for entry in entries:
            found = True
            yield entry
    except (tarfile.TarError, OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise UserError(f"crawl.source: {source} cannot be read: {error}") from None
    if not found:
        raise ExternalError(f"crawl.source: no images in {source}")


def _chosen(total: int, sample: int, seed: int) -> list[int]:
    if not sample or sample >= total:
        return list(range(total))
    return sorted(random.Random(seed).sample(range(total), sample))


def _folder(source: Path, sample: int, seed: int, max_bytes: int) -> Iterator[NamedImage]:
    paths = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.stat().st_size <= max_bytes
    )
    for index in _chosen(len(paths), sample, seed):
        yield paths[index].relative_to(source).as_posix(), paths[index].read_bytes()


def _tar(source: Path, sample: int, seed: int, max_bytes: int) -> Iterator[NamedImage]:
    with tarfile.open(source) as archive:
        members = [
            member
            for member in archive
            if member.isfile()
            and Path(member.name).suffix.lower() in SUFFIXES
            and member.size <= max_bytes
        ]
        for index in _chosen(len(members), sample, seed):
            file = archive.extractfile(members[index])
            yield members[index].name, file.read() if file else b""


def _parquet(paths: list[Path], sample: int, seed: int) -> Iterator[NamedImage]:
    counts = []
    for path in paths:
        with open_parquet(path) as file:
            if not _holds_images(file.schema_arrow):
                raise UserError(
                    f"crawl.source: {path}: expected a column 'image' of bytes, or a struct of them"
                )
            counts.append(file.metadata.num_rows)
    chosen = _chosen(sum(counts), sample, seed)
    start = 0
    for path, count in zip(paths, counts, strict=True):
        rows = [index - start for index in chosen if start <= index < start + count]
        with open_parquet(path) as file:
            yield from ((f"{path.name}#{row}", data) for row, data in _rows(file, rows))
        start += count


def _holds_images(schema: pa.Schema) -> bool:
    index = schema.get_field_index("image")
    kind = schema.field(index).type if index >= 0 else pa.null()
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else pa.null()
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _rows(file: pq.ParquetFile, rows: list[int]) -> Iterator[tuple[int, bytes]]:
    wanted = iter(rows)
    row = next(wanted, None)
    start = 0
    for batch in file.iter_batches(batch_size=512, columns=["image"]):
        column = batch.column(0)
        while row is not None and row < start + len(column):
            value = column[row - start].as_py()
            yield row, (value["bytes"] if isinstance(value, dict) else value) or b""
            row = next(wanted, None)
        start += len(column)
        if row is None:
            return
