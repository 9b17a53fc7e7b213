"""Lookup of new images in a set whose fingerprints are known: what of it shows the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.dedup.fingerprints import ARRAYS, COLUMNS, Fingerprints, fingerprint_images, zeros
from kd3_pipeline.dedup.near import BITS, both_ways, pairings
from kd3_pipeline.dedup.verifier import Verify

AT_ONCE = 100  # images decoded in a row, as in a worker of fingerprint_shards
PAIRS_AT_ONCE = 2048
NEW = -1  # shard of an image that is in none; its row counts the new ones

Verifier = Callable[[Fingerprints], Verify]


@dataclass(frozen=True)
class NewImage:
    """One image that is in no shard: its id, bytes, and size as stored (pixels)."""

    id: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Matches:
    """Pairs of a new image and a stored one that shows the same, the most alike first."""

    new: np.ndarray  # int64 [P], rows of the new images, rising
    stored: np.ndarray  # int64 [P], rows of the stored ones
    distance: np.ndarray  # int32 [P], bits
    similarity: np.ndarray  # float32 [P]; 1 for equal bytes


def fingerprints_of(
    images: Sequence[NewImage], kind: str, exact: bool, advance: Advance = no_progress
) -> Fingerprints:
    """The fingerprints of new images.

    Args:
        kind, exact: as those of the set that they are looked up in.
        advance: called with a number of images that are done.
    """
    arrays, errors = zeros(len(images)), [""] * len(images)
    for start in range(0, len(images), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        found, problems = fingerprint_images([one.data for one in images[block]], kind, exact)
        for name in ARRAYS:
            arrays[name][block] = getattr(found, name)
        errors[block] = problems
        advance(len(problems))
    values = {
        "id": [one.id for one in images],
        "shard": [NEW] * len(images),
        "row": range(len(images)),
        "label": [-1] * len(images),
        "width": [one.width for one in images],
        "height": [one.height for one in images],
        "size": [len(one.data) for one in images],
        "error": errors,
    }
    table = pa.table({name: pa.array(values[name], kind) for name, kind in COLUMNS.items()})
    return Fingerprints(table, **arrays)


def matches(
    new: Fingerprints,
    stored: Fingerprints,
    radius: int,
    least: float,
    verifier: Verifier,
    advance: Advance = no_progress,
) -> Matches:
    """The stored images that new ones show, by the rules by which dedup compares the stored ones.

    Args:
        radius: bits up to which hashes nominate a pair.
        least: similarity from which two pictures are one.
        verifier: makes the judge of pairs from the fingerprints of both.
        advance: called with a number of new images that are done.
    """
    i, j, distance = _candidates(new, stored, radius, advance)
    rows, place = np.unique(j, return_inverse=True)
    verify = verifier(_joined(new, stored, rows))
    other = len(new.hashes) + place
    alike = np.empty(len(i), np.float32)
    for start in range(0, len(i), PAIRS_AT_ONCE):
        block = slice(start, start + PAIRS_AT_ONCE)
        alike[block] = verify(i[block], other[block])
    good = alike >= least
    i, j, distance, alike = i[good], j[good], distance[good], alike[good]

    same_i, same_j = _equal_bytes(new, stored)
    fresh = ~np.isin(i * len(stored.hashes) + j, same_i * len(stored.hashes) + same_j)
    i, j = np.concatenate([same_i, i[fresh]]), np.concatenate([same_j, j[fresh]])
    distance = np.concatenate([np.zeros(len(same_i), np.int32), distance[fresh]])
    alike = np.concatenate([np.ones(len(same_i), np.float32), alike[fresh]])
    order = np.lexsort((j, distance, -alike, i))
    return Matches(i[order], j[order], distance[order], alike[order])


def comparable(fingerprints: Fingerprints) -> np.ndarray:
    """Which images can be read, and told from others by hash and edges: bool [N]."""
    errors = fingerprints.images["error"].to_pylist()
    return np.array([not error for error in errors], bool) & fingerprints.comparable


def _candidates(
    new: Fingerprints, stored: Fingerprints, radius: int, advance: Advance
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs near by one of the keys: rows int64 [P] of both, and their distance int32 [P].

    Few images against many: every pair is compared, which takes a millisecond for each new image
    and 100,000 stored ones.
    """
    able, usable = comparable(new), np.flatnonzero(comparable(stored))
    hashes = np.ascontiguousarray(stored.hashes[usable].T)
    found_i, found_j, distances = [], [], []
    for row, keys in enumerate(new.hashes):
        if able[row]:
            least = np.full(len(usable), BITS, np.uint8)
            for one, other in both_ways(pairings(new.hashes)):
                np.minimum(least, np.bitwise_count(hashes[other] ^ keys[one]), out=least)
            near = np.flatnonzero(least <= radius)
            found_i.append(np.full(len(near), row, np.int64))
            found_j.append(usable[near])
            distances.append(least[near].astype(np.int32))
        advance(1)
    if not found_i:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32)
    return np.concatenate(found_i), np.concatenate(found_j), np.concatenate(distances)


def _joined(new: Fingerprints, stored: Fingerprints, rows: np.ndarray) -> Fingerprints:
    """The new images, and behind them some rows of the stored ones."""
    arrays = {
        name: np.concatenate([getattr(new, name), getattr(stored, name)[rows]]) for name in ARRAYS
    }
    return Fingerprints(pa.concat_tables([new.images, stored.images.take(rows)]), **arrays)


def _equal_bytes(new: Fingerprints, stored: Fingerprints) -> tuple[np.ndarray, np.ndarray]:
    place = {id: row for row, id in enumerate(stored.images["id"].to_pylist())}
    pairs = [(row, place[id]) for row, id in enumerate(new.images["id"].to_pylist()) if id in place]
    i, j = np.array(pairs, np.int64).reshape(-1, 2).T
    return i, j
