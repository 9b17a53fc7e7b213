"""Verifier of candidates: whether two images, near by their hashes, are of one picture."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from kd3_pipeline.dedup import verify
from kd3_pipeline.dedup.fingerprints import Fingerprints
from kd3_pipeline.dedup.near import HALF, PAIRED, QUARTER, WHOLE, bits_apart
from kd3_pipeline.engine import Engine

if TYPE_CHECKING:  # torch is imported where it is needed
    from kd3_pipeline.dedup.look import Look

LOOKED_AT_ONCE = 1024  # pairs whose close-ups are in memory
GATE = 0.5  # correlation from which a pair gets the second look: unlike ones mostly have less
CLOSER = 0.6  # similarity from which a pair on plain ground gets a closer one
SMALL = 64  # pixels of a side, less than which have no detail at all
# what is on plain ground and small is told apart by little: similarity that it costs, for 1 that
# it costs a larger picture
SMALL_COSTS, SMALL_EDGES = 7.0, 3.0
BARE = 0.2  # texture, below which a quarter turn makes another picture
DETAIL = 0.75  # of the pixels of a closer look, that both pictures must have

Edges = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # the arguments of `alignment`
# of rows (int64 [N]) at some pixels a side: uint8 [N, side, side, 3]
CloseUps = Callable[[np.ndarray, int], np.ndarray]
Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]  # i, j: int64 [P] -> float32 [P]


def verifier(
    fingerprints: Fingerprints, close_ups: CloseUps | None, engine: Engine | None = None
) -> Verify:
    """The similarity of images by row: of all their edges, and then of the worst part.

    Args:
        close_ups: of rows at a number of pixels a side, uint8 [N, side, side, 3]; without it,
            edges alone decide.
        engine: its workers compare edges, which is all that most pairs need; the second look is the
            caller's. The result does not depend on it.

    Returns:
        A function of rows i and j, int64 [P], to float32 [P] in -1..1; the same when i and j
        change places.
    """

    def similarity(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        i, j = np.minimum(i, j), np.maximum(i, j)
        trim = fingerprints.trim
        turns = _turns(fingerprints.hashes[i], fingerprints.hashes[j])
        every = Pairs(i, j, turns, _turned_boxes(trim[i], turns), trim[j])
        alike = np.empty(len(i), np.float32)
        with closing(_edges_compared(fingerprints, every, engine)) as compared:
            for start in range(0, len(i), LOOKED_AT_ONCE):
                block = np.arange(start, min(start + LOOKED_AT_ONCE, len(i)))
                parts = islice(compared, LOOKED_AT_ONCE // verify.BLOCK)
                alike[block], places = map(np.concatenate, zip(*parts, strict=True))
                rows = np.flatnonzero(alike[block] >= GATE)
                if close_ups is not None and len(rows):
                    pairs, edges = every.some(block[rows]), alike[block[rows]]
                    seen = _looked(fingerprints, close_ups, pairs, places[rows])
                    on_plain = _on_plain_ground(seen, edges, pairs, fingerprints)
                    alike[block[rows]] = np.where(seen.plain, on_plain, seen.similarity)
        return alike

    return similarity


@dataclass(frozen=True)
class Pairs:
    """Pairs of images by row, the first of each turned."""

    i: np.ndarray  # int64 [P]
    j: np.ndarray  # int64 [P]
    turns: np.ndarray  # int64 [P], by 90° to the left
    trim_i: np.ndarray  # float32 [P, 4], of the turned picture
    trim_j: np.ndarray

    def some(self, rows: np.ndarray) -> "Pairs":
        """Those of rows, int64 [M]."""
        parts = (self.i, self.j, self.turns, self.trim_i, self.trim_j)
        return Pairs(*(part[rows] for part in parts))

    def seen(self, close_ups: CloseUps, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Their close-ups, twice uint8 [P, side, side, 3]."""
        a, b = np.split(close_ups(np.concatenate([self.i, self.j]), side), 2)
        return _turned(a, self.turns), b


def _edges_compared(
    fingerprints: Fingerprints, pairs: Pairs, engine: Engine | None
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """What `alignment` tells of each block of pairs, in their order.

    The blocks are its own, so that it does the same on a worker as here, to the last bit.
    """

    def block(start: int) -> Edges:
        some = pairs.some(np.arange(start, min(start + verify.BLOCK, len(pairs.i))))
        grey = fingerprints.grey
        return _turned(grey[some.i], some.turns), some.trim_i, grey[some.j], some.trim_j

    starts = range(0, len(pairs.i), verify.BLOCK)
    if engine is None or len(starts) < 2:  # not worth a way to another process
        return (_aligned(block(start)) for start in starts)
    return engine.map(_aligned, map(block, starts), named=lambda _: "comparing pairs of images")


def _aligned(edges: Edges) -> tuple[np.ndarray, np.ndarray]:
    return verify.alignment(*edges)


def _looked(
    fingerprints: Fingerprints,
    close_ups: CloseUps,
    pairs: Pairs,
    places: np.ndarray,
) -> "Look":
    from kd3_pipeline.dedup.look import FINE, SIDE, look, look_closer  # imports torch

    a, b = pairs.seen(close_ups, SIDE)
    sides = _least_side(fingerprints)
    sides = np.minimum(sides[pairs.i], sides[pairs.j])
    seen = look(a, pairs.trim_i, b, pairs.trim_j, places, sides < SMALL)
    # blown up to it, a small picture has no detail to be told apart by
    detailed = sides >= DETAIL * FINE
    rows = np.flatnonzero(seen.plain & detailed & (seen.similarity >= CLOSER))
    if len(rows):
        some = pairs.some(rows)
        a, b = some.seen(close_ups, FINE)
        closer = look_closer(a, some.trim_i, b, some.trim_j, seen.maps[rows])
        seen.similarity[rows] = np.minimum(seen.similarity[rows], closer)
    return seen


def _on_plain_ground(
    seen: "Look", edges: np.ndarray, pairs: Pairs, fingerprints: Fingerprints
) -> np.ndarray:
    """Similarity of pairs that have few edges, float32 [P]: all of them count.

    A flag of three stripes is another one if it is turned; digits of a few pixels differ in little.
    """
    sides = _least_side(fingerprints)
    small = np.minimum(sides[pairs.i], sides[pairs.j]) < SMALL
    cost = np.where(small, SMALL_COSTS, 1)
    least = np.minimum(
        1 - cost * (1 - seen.similarity), 1 - np.where(small, SMALL_EDGES, 1) * (1 - edges)
    )
    bare = (pairs.turns % 2 == 1) & (seen.texture < BARE)
    return np.where(bare, np.minimum(least, GATE), least)


def _turns(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """By how many quarters, to the left, the first of each pair is to be turned: int64 [P].

    Args:
        one, other: uint64 [P, K], keys of both.
    """
    ways = [bits_apart(one[:, :QUARTER], other[:, :QUARTER], PAIRED)]
    if one.shape[1] > QUARTER:
        whole, quarter, half = WHOLE, QUARTER, HALF
        turned = (
            (one, quarter, other, whole),
            (one, half, other, whole),
            (one, whole, other, quarter),
        )
        ways += [np.bitwise_count(a[:, of_a] ^ b[:, of_b]) for a, of_a, b, of_b in turned]
    return np.argmin(ways, axis=0)  # the first of equals: not turned


def _turned(pictures: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Pictures [P, S, S] or [P, S, S, C], each turned by some quarters to the left."""
    for quarters in range(1, 4):
        rows = np.flatnonzero(turns == quarters)
        pictures[rows] = np.rot90(pictures[rows], quarters, axes=(1, 2))
    return pictures


def _turned_boxes(boxes: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Boxes [P, 4] in shares, left, top, right and bottom, each turned likewise."""
    boxes = boxes.copy()
    for quarter in range(1, 4):
        rows = np.flatnonzero(turns >= quarter)
        left, top, right, bottom = boxes[rows].T
        boxes[rows] = np.stack([top, 1 - right, bottom, 1 - left], axis=1)
    return boxes


def _least_side(fingerprints: Fingerprints) -> np.ndarray:
    """Pixels of the shorter side of what is compared of each image, float64 [N]."""
    width, height = (fingerprints.images[side].to_numpy() for side in ("width", "height"))
    cut = fingerprints.cut
    return np.minimum(width * (cut[:, 2] - cut[:, 0]), height * (cut[:, 3] - cut[:, 1]))
