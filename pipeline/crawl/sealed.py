"""The images of the last crawl, in the shards that it wrote, by a second link to each shard."""

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.store import IMAGE_COLUMNS, ROW_GROUP, replacing, shard_path, shard_paths


class Sealed:
    """A folder of image shards that is read by id. A shard that is damaged has no images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        self._places: dict[str, tuple[Path, int]] = {}  # id -> shard, row
        self._first: dict[str, list[Path]] = {}  # id -> shards that begin with it
        self._group: tuple[Path, int, pa.ChunkedArray] | None = None  # the last one that was read
        paths = sorted(self.folder.glob("images-*.parquet"))
        self._next = len(paths)  # number of a shard more
        for path in paths:
            with suppress(pa.ArrowException, OSError, KeyError):
                self._index(path)

    def _index(self, path: Path) -> list[str]:
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        self._places |= {id: (path, row) for row, id in enumerate(ids)}
        for id in ids[:1]:
            self._first.setdefault(id, []).append(path)
        return ids

    def __contains__(self, id: object) -> bool:
        return id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def read(self, id: str) -> bytes:
        """The bytes of an image; quick for images in the order of the shards."""
        path, row = self._places[id]
        group, place = divmod(row, ROW_GROUP)
        if self._group is None or self._group[:2] != (path, group):
            table = pq.ParquetFile(path).read_row_group(group, columns=["image"])
            self._group = path, group, table["image"]
        return self._group[2][place]["bytes"].as_py()

    def same(self, rows: pa.Table, schema: pa.Schema) -> Path | None:
        """A shard with this schema that says the same of the same images; None if there is none.

        Args:
            rows: what a shard says of its images, without their bytes, which their ids stand for.
        """
        for path in self._first.get(rows["id"][0].as_py(), []):
            with suppress(pa.ArrowException, OSError), pq.ParquetFile(path) as file:
                if file.schema_arrow.equals(schema, check_metadata=True) and file.read(
                    columns=rows.column_names
                ).equals(rows):
                    return path
        return None

    def add(self, shard: Path) -> list[str]:
        """Has one more shard; its ids, or none where files cannot have a second link."""
        try:
            self.folder.mkdir(exist_ok=True)
            path = shard_path(self.folder, self._next)
            while path.exists():
                self._next += 1
                path = shard_path(self.folder, self._next)
            os.link(shard, path)
        except OSError:
            return []
        return self._index(path)

    def link(self, shards: Path) -> bool:
        """Makes these shards the sealed ones; False where files cannot have a second link."""
        try:
            with replacing(self.folder) as folder:
                folder.mkdir()
                for path in sorted(shards.glob("images-*.parquet")):
                    os.link(path, folder / path.name)
        except OSError:
            return False
        self._open()
        return True

    def drop(self, ids: Collection[str]) -> None:
        """Rewrites the shards that have these images without them."""
        if any(id in self._places for id in ids):
            with replacing(self.folder) as folder:
                rewrite_shards(self.folder, folder, ids, {})
            self._open()


def rewrite_shards(
    source: Path,
    target: Path,
    without: Collection[str],
    labels: Mapping[str, int],
    advance: Advance = no_progress,
) -> None:
    """Shards without some images. Those that stay as they are become links, or copies.

    Args:
        labels: id -> class that the image counts for now; others keep theirs.
        advance: called for each shard.
    """
    target.mkdir()
    schema, number = None, 0
    gone = pa.array(sorted(without), pa.string())
    for path in shard_paths(source):
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            head = file.read(columns=["id", "label"])
            kept = pc.invert(pc.is_in(head["id"], gone))
            old = head["label"].to_pylist()
            now = [labels.get(id, was) for id, was in zip(head["id"].to_pylist(), old, strict=True)]
            advance(1)
            if not pc.any(kept).as_py():
                continue
            if pc.all(kept).as_py() and now == old:
                _link(path, shard_path(target, number))
            else:
                table = file.read()
                table = with_column(table, "label", pa.array(now, pa.int64()))
                _write(shard_path(target, number), table.filter(kept))
        number += 1
    if not number:
        empty = (schema or pa.schema(IMAGE_COLUMNS.items())).empty_table()
        _write(shard_path(target, 0), empty)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)  # of a link the file, which DVC keeps elsewhere
    except OSError:
        shutil.copyfile(source, target)


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(
        table.combine_chunks(), path, compression="none", row_group_size=ROW_GROUP, version="2.6"
    )


def with_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """A table with other values in a column."""
    return table.set_column(table.schema.get_field_index(name), table.field(name), values)
