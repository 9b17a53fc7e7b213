"""Near-duplicates: images whose hashes differ in few bits, grouped around the best of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCK = 256  # rows compared at once: 256 × 50,000 differences of 64 bits are 100 MB


@dataclass(frozen=True)
class Grouping:
    """For each image: its group, its representative's index, and its distance to it (bits)."""

    group: np.ndarray  # int64 [N]
    representative: np.ndarray  # int64 [N]; an image that stands for itself has its own index
    distance: np.ndarray  # int32 [N]


def pairs_within(hashes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs i < j at Hamming distance ≤ `radius`, exactly.

    Args:
        hashes: uint64 [N].

    Returns:
        i [P], j [P] and their distance [P], sorted by i, then j.
    """
    found = [np.empty((0, 3), np.int64)]
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        distances = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        i, j = np.nonzero(distances <= radius)
        later = j > i
        i, j = i[later], j[later]
        found.append(np.stack([i + start, j + start, distances[i, j]], axis=1))
    pairs = np.concatenate(found)
    return pairs[:, 0], pairs[:, 1], pairs[:, 2]


def group_near(
    hashes: np.ndarray, radius: int, areas: Sequence[int], sizes: Sequence[int], ids: Sequence[str]
) -> Grouping:
    """Groups near-duplicates in stars: every member is within `radius` of its representative.

    The representative is the largest image (pixels, then bytes, then id), so a chain of
    neighbours does not pull unlike images together and the order of the input does not matter.

    Args:
        hashes: uint64 [N]; `areas` in pixels and `sizes` in bytes, [N] each.
    """
    total = len(hashes)
    # images with one hash go together: thousands of blank ones would be millions of pairs
    values, value = np.unique(hashes, return_inverse=True)
    i, j, between = pairs_within(values, radius)
    order = np.argsort(np.concatenate([i, j]), kind="stable")
    source = np.concatenate([i, j])[order]
    target = np.concatenate([j, i])[order]
    apart = np.concatenate([between, between])[order]
    first = np.searchsorted(source, np.arange(len(values) + 1))

    best_of = np.full(len(values), -1, np.int64)
    distance_of = np.zeros(len(values), np.int32)
    for best in sorted(range(total), key=lambda k: (-areas[k], -sizes[k], ids[k])):
        own = value[best]
        if best_of[own] >= 0:
            continue
        best_of[own] = best
        near = target[first[own] : first[own + 1]]
        free = best_of[near] < 0
        best_of[near[free]] = best
        distance_of[near[free]] = apart[first[own] : first[own + 1]][free]
    representative, distance = best_of[value], distance_of[value]
    # number the groups by the first image that is in each
    _, first_seen, group = np.unique(representative, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first_seen))
    return Grouping(rank[group].astype(np.int64), representative, distance)
