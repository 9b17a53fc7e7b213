"""The images of the last crawl, in the shards that it wrote, by a second link to each shard."""

import os
import shutil
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.store import IMAGE_COLUMNS, ROW_GROUP, replacing, shard_path, shard_paths

KEY = np.dtype("S32")  # a SHA-256


class Sealed:
    """A folder of image shards that is read by id. A shard that is damaged has no images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        self._paths: list[Path] = []
        self._first: dict[str, list[Path]] = {}  # id -> shards that begin with it
        self._group: tuple[Path, int, pa.ChunkedArray] | None = None  # the last one that was read
        self._behind = False  # a shard was added that is not among the rows yet
        paths = sorted(self.folder.glob("images-*.parquet"))
        self._next = len(paths)  # number of a shard more
        keys = [np.empty(0, KEY)]
        for path in paths:
            with suppress(pa.ArrowException, OSError, KeyError, ValueError):
                ids = _ids(path)
                keys.append(np.frombuffer(bytes.fromhex("".join(ids)), KEY))
                self._begins(path, ids)
                self._paths.append(path)
        # 40 bytes an image: the ids in the order of the shards, and that order's rows by id
        self._ends = list(accumulate(map(len, keys[1:])))
        self._keys = np.concatenate(keys)
        self._by_id = np.argsort(self._keys, kind="stable")

    def _begins(self, path: Path, ids: Sequence[str]) -> None:
        for id in ids[:1]:
            self._first.setdefault(id, []).append(path)

    def _row(self, id: object) -> int | None:
        """The row of an image, counted through all shards; None if there is none."""
        try:
            key = np.frombuffer(bytes.fromhex(str(id)), KEY)
        except ValueError:
            return None  # no SHA-256
        if len(key) == 1:
            at = int(np.searchsorted(self._keys, key, sorter=self._by_id)[0])
            if at < len(self._keys) and self._keys[row := int(self._by_id[at])] == key[0]:
                return row
        if not self._behind:
            return None
        self._open()
        return self._row(id)

    def __contains__(self, id: object) -> bool:
        return self._row(id) is not None

    def __iter__(self) -> Iterator[str]:
        if self._behind:
            self._open()
        # not by element: NumPy gives texts without the zeros at their end
        return (key.tobytes().hex() for key in self._keys.view(np.uint8).reshape(-1, KEY.itemsize))

    def read(self, id: str) -> bytes:
        """The bytes of an image; quick for images in the order of the shards."""
        row = self._row(id)
        if row is None:
            raise KeyError(id)
        shard = bisect_right(self._ends, row)
        path = self._paths[shard]
        group, place = divmod(row - (self._ends[shard - 1] if shard else 0), ROW_GROUP)
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
        ids = _ids(path)
        self._begins(path, ids)
        self._behind = True  # to sort all anew for each shard would take longer than writing it
        return ids

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
        if any(id in self for id in ids):
            with replacing(self.folder) as folder:
                rewrite_shards(self.folder, folder, ids, {})
            self._open()


def _ids(path: Path) -> list[str]:
    return pq.read_table(path, columns=["id"])["id"].to_pylist()


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
