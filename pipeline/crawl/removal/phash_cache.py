"""Perceptual hashes of stored images, remembered, since each costs a decode."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kd3_pipeline.content import open_cache
from kd3_pipeline.crawl.blocklist import picture_hashes
from kd3_pipeline.images import decode
from kd3_pipeline.picturefile import ImageError

EVERY = 1000  # images after which what is known is written


class PhashCache:
    """Hashes by id in an SQLite file; a context. A file that is none of ours is begun anew."""

    def __init__(self, file: Path) -> None:
        self._database = open_cache(file, "id BLOB PRIMARY KEY, hashes BLOB")
        self._added = 0

    def __enter__(self) -> "PhashCache":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.commit()  # an interrupted run keeps what it has seen
        self._database.close()

    def of(self, id: str, read: Callable[[], bytes]) -> np.ndarray:
        """The hashes of an image, uint64 [8], or of none where it cannot be decoded, [0].

        Args:
            read: gives its bytes, where it has not been looked at before.
        """
        key = bytes.fromhex(id)
        row = self._database.execute("SELECT hashes FROM hashes WHERE id = ?", (key,)).fetchone()
        if row is not None:
            return np.frombuffer(row[0], "<u8").astype(np.uint64)
        try:
            hashes = picture_hashes(decode(read()))
        except ImageError:  # older crawls kept what is refused now
            hashes = np.zeros(0, np.uint64)
        row = (key, hashes.astype("<u8").tobytes())
        self._database.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?)", row)
        self._added += 1
        if self._added % EVERY == 0:
            self._database.commit()
        return hashes
