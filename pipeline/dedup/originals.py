"""Originals of fingerprinted images: their files out of the shards, and close-ups of them."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.dedup.fingerprints import Fingerprints, part, squashed
from pipeline.dedup.look import SIDE
from pipeline.images import ImageError, decode, decode_reduced
from pipeline.store import ROW_GROUP, open_parquet

KEPT = 4096  # close-ups: 113 MB


class Originals:
    """The encoded images of rows of fingerprints.

    Args:
        paths: the shards, in the order of the fingerprints.
    """

    def __init__(self, paths: Sequence[Path], fingerprints: Fingerprints) -> None:
        self.paths = paths
        self.shard, self.row = (
            fingerprints.images[name].to_numpy().astype(np.int64) for name in ("shard", "row")
        )

    def __call__(self, rows: np.ndarray) -> Iterator[bytes]:
        """In the order of `rows` (int64 [N]), which is cheapest if it is a rising one.

        Raises:
            UserError: a shard is missing or is no Parquet file.
        """
        at, held = (-1, -1), []
        for row in rows.tolist():
            place = int(self.shard[row]), int(self.row[row]) // ROW_GROUP
            if place != at:
                with open_parquet(self.paths[place[0]]) as file:
                    table = file.read_row_group(place[1], columns=["image"])
                at, held = place, table["image"].combine_chunks().field("bytes")
            yield held[int(self.row[row]) % ROW_GROUP].as_py() or b""


class CloseUps:
    """Pictures at SIDE x SIDE pixels of what the fingerprints are of, the last ones kept."""

    def __init__(self, originals: Originals, cut: np.ndarray, workers: int = 1) -> None:
        self.originals, self.cut, self.workers = originals, cut, workers
        self.kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [N, SIDE, SIDE, 3], RGB, of rows int64 [N]."""
        wanted, place = np.unique(rows, return_inverse=True)
        missing = np.array([row for row in wanted.tolist() if row not in self.kept], np.int64)
        made: dict[int, np.ndarray] = {}
        if len(missing):
            with ThreadPoolExecutor(self.workers) as pool:  # Pillow decodes without the GIL
                for start in range(0, len(missing), ROW_GROUP):
                    some = missing[start : start + ROW_GROUP]
                    found = pool.map(close_up, self.originals(some), self.cut[some])
                    made |= zip(some.tolist(), found, strict=True)
        pictures = [made[row] if row in made else self.kept[row] for row in wanted.tolist()]
        for row in wanted.tolist():
            self.kept[row] = made[row] if row in made else self.kept[row]
            self.kept.move_to_end(row)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return np.array(pictures, np.uint8).reshape(-1, SIDE, SIDE, 3)[place]


def close_up(data: bytes, cut: np.ndarray) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3] of a part of an encoded image; black where it cannot be decoded."""
    try:
        if (cut[2:] - cut[:2]).min() < 1:
            there = part(decode(data), cut)
            return np.asarray(squashed(there, SIDE, (0, 0, *there.size)))
        small, box, _ = decode_reduced(data, SIDE)
        return np.asarray(squashed(small, SIDE, box).convert("RGB"))
    except ImageError:
        return np.zeros((SIDE, SIDE, 3), np.uint8)
