"""Groups of near-duplicates: stars around the best image, over verified pairs only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grouping:
    """For each of N images its group, the image that stands for it, and how like that it is."""

    group: np.ndarray  # int64 [N], numbered by the first image of each
    representative: np.ndarray  # int64 [N], an index; its own where the image stands for itself
    similarity: np.ndarray  # float32 [N], to the representative; 1 to itself


def best_first(
    areas: Sequence[int] | np.ndarray,
    sizes: Sequence[int] | np.ndarray,
    provenance: Sequence[int] | np.ndarray,
    ids: Sequence[str] | np.ndarray,
) -> np.ndarray:
    """Each image's place in the order in which images are worth keeping, int64 [N], 0 the best.

    The largest first; of those the one with most bytes, which is compressed least; then the most
    complete provenance; then the smallest id, so that the order of the input does not matter.

    Args:
        areas: pixels.
        sizes: bytes.
        provenance: how many facts are known of where the image is from.
        ids: all different.
    """
    order = np.lexsort(
        (
            np.asarray(ids, np.str_),
            -np.asarray(provenance, np.int64),
            -np.asarray(sizes, np.int64),
            -np.asarray(areas, np.int64),
        )
    )
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def groups(
    total: int, i: np.ndarray, j: np.ndarray, similarity: np.ndarray, rank: np.ndarray
) -> Grouping:
    """Stars: the best image that is in no group yet takes all its neighbours that are in none.

    Every member is a neighbour of its representative, and no two representatives are neighbours,
    so a chain does not pull its ends together: an image that is only like a dropped one stays.
    This is the star clustering of Aslam, Pelekhov and Rus, "The star clustering algorithm for
    static and dynamic information organization" (JGAA 2004), by rank instead of by degree and
    without overlap.

    Args:
        total: N, the number of images.
        i, j: int64 [P], the verified pairs, each once and of two different images.
        similarity: float32 [P].
        rank: int64 [N], all different, 0 the best (`best_first`).
    """
    order = np.argsort(np.concatenate([i, j]), kind="stable")
    source = np.concatenate([i, j])[order]
    target = np.concatenate([j, i])[order]
    alike = np.concatenate([similarity, similarity])[order]
    first = np.searchsorted(source, np.arange(total + 1))

    representative = np.arange(total, dtype=np.int64)
    closeness = np.ones(total, np.float32)
    free = np.ones(total, bool)
    paired = np.flatnonzero(np.diff(first))
    for best in paired[np.argsort(rank[paired])]:
        if free[best]:
            free[best] = False
            edges = slice(first[best], first[best + 1])
            taken = free[target[edges]]
            members = target[edges][taken]
            free[members] = False
            representative[members] = best
            closeness[members] = alike[edges][taken]
    _, seen, group = np.unique(representative, return_index=True, return_inverse=True)
    number = np.empty(len(seen), np.int64)
    number[np.argsort(seen)] = np.arange(len(seen))
    return Grouping(number[group], representative, closeness)
