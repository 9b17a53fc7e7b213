"""Originals of fingerprinted images: their files out of the shards, and close-ups of them."""

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kd3_pipeline.dedup.fingerprints import Fingerprints, part, squashed
from kd3_pipeline.images import decode, decode_reduced
from kd3_pipeline.picturefile import ImageError, one_large
from kd3_pipeline.store import ROW_GROUP, open_parquet

KEPT = 100_000_000  # bytes of close-ups


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
    """Small squares of what the fingerprints are of, the last ones kept."""

    def __init__(self, originals: Originals, cut: np.ndarray, workers: int = 1) -> None:
        self.originals, self.cut, self.workers = originals, cut, workers
        self.kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self.size = 0  # bytes kept

    def __call__(self, rows: np.ndarray, side: int) -> np.ndarray:
        """uint8 [N, side, side, 3], RGB, of rows int64 [N]."""
        wanted, place = np.unique(rows, return_inverse=True)
        known = {row: self.kept.get((row, side)) for row in wanted.tolist()}
        missing = np.array([row for row, picture in known.items() if picture is None], np.int64)
        if len(missing):
            with ThreadPoolExecutor(self.workers) as pool:  # Pillow decodes without the GIL
                for start in range(0, len(missing), ROW_GROUP):
                    some = missing[start : start + ROW_GROUP]
                    sides = itertools.repeat(side)
                    found = pool.map(close_up, self.originals(some), self.cut[some], sides)
                    known |= zip(some.tolist(), found, strict=False)
        for row, picture in known.items():
            assert picture is not None
            self.size += 0 if (row, side) in self.kept else picture.nbytes
            self.kept[row, side] = picture
            self.kept.move_to_end((row, side))
        while self.size > KEPT:
            _, oldest = self.kept.popitem(last=False)
            self.size -= oldest.nbytes
        pictures = np.array([known[row] for row in wanted.tolist()], np.uint8)
        return pictures.reshape(-1, side, side, 3)[place]


def close_up(data: bytes, cut: np.ndarray, side: int) -> np.ndarray:
    """uint8 [side, side, 3] of a part of an encoded image; black where it cannot be decoded."""
    try:
        with one_large(data):
            if (cut[2:] - cut[:2]).min() < 1:
                there = part(decode(data), cut)
                return np.asarray(squashed(there, side, (0, 0, *there.size)))
            small, box, _ = decode_reduced(data, side)
            return np.asarray(squashed(small, side, box).convert("RGB"))
    except ImageError:
        return np.zeros((side, side, 3), np.uint8)
