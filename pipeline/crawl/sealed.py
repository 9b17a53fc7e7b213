"""The images of the last crawl, in the shards that it wrote, by a second link to each shard."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store import ROW_GROUP, replacing


class Sealed:
    """A folder of image shards that is read by id. A shard that is damaged has no images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        self._places: dict[str, tuple[Path, int]] = {}  # id -> shard, row
        self._group: tuple[Path, int, pa.ChunkedArray] | None = None  # the last one that was read
        for path in sorted(self.folder.glob("images-*.parquet")):
            with suppress(pa.ArrowException, OSError, KeyError):
                ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
                self._places |= {id: (path, row) for row, id in enumerate(ids)}

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
