"""Groups of near-duplicates, and the image that is kept of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.dedup.fingerprints import Fingerprints
from kd3_pipeline.dedup.near import bits_apart
from kd3_pipeline.dedup.stars import Stars, verified
from kd3_pipeline.dedup.verifier import Verify


@dataclass(frozen=True)
class Grouping:
    """For each of N images its group, the image that is kept of it, and how like that it is."""

    group: np.ndarray  # int64 [N], numbered by the first image of each
    kept: np.ndarray  # int64 [N], an image of the group
    distance: np.ndarray  # int32 [N], bits to the one that is kept
    similarity: np.ndarray  # float32 [N], to the one that is kept; 1 to itself
    # int64 [N]: for one that is kept another such that resembles it but is found for other classes,
    # with distance and similarity to that; -1 where there is none
    resembles: np.ndarray


def best_first(
    areas: Sequence[int] | np.ndarray,
    sizes: Sequence[int] | np.ndarray,
    provenance: Sequence[int] | np.ndarray,
    ids: Sequence[str] | pa.Array | pa.ChunkedArray,
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
    names = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(ids, pa.string())
    place = np.empty(len(names), np.int64)  # NumPy's own texts take four bytes a letter
    place[pc.sort_indices(names).to_numpy()] = np.arange(len(names))
    order = np.lexsort(
        (
            place,
            -np.asarray(provenance, np.int64),
            -np.asarray(sizes, np.int64),
            -np.asarray(areas, np.int64),
        )
    )
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def twins(fingerprints: Fingerprints, ordered: np.ndarray) -> np.ndarray:
    """For each image the first one that has the very same fingerprint, int64 [N].

    Args:
        ordered: rows of the images that take part, int64 [M]; the others get themselves.
    """
    first = np.arange(len(fingerprints.hashes), dtype=np.int64)
    _, of, count = np.unique(
        fingerprints.hashes[ordered, 0], return_inverse=True, return_counts=True
    )
    seen: dict[bytes, int] = {}
    for row in ordered[count[of] > 1].tolist():
        content = blake2b(digest_size=32)
        for values in (fingerprints.hashes, fingerprints.trim, fingerprints.grey):
            content.update(values[row].tobytes())
        content.update(fingerprints.colour[row].tobytes())
        first[row] = seen.setdefault(content.digest(), row)
    return first


def with_twins(stars: Stars, first: np.ndarray) -> Stars:
    """Stars in which twins are members of the first one's star: `first` as `twins` returns it."""
    own = first == np.arange(len(first))
    return Stars(
        stars.centre[first],
        stars.distance[first],
        stars.similarity[first],
        np.where(own, stars.resembles, -1),
        stars.capped & own,
        stars.verified,
    )


def members(stars: Stars) -> np.ndarray:
    """Rows of the images in groups of several, int64, rising."""
    return np.flatnonzero(np.bincount(stars.centre, minlength=len(stars.centre))[stars.centre] > 1)


def elect(stars: Stars, rank: np.ndarray, hashes: np.ndarray, verify: Verify) -> Grouping:
    """Groups of which the best is kept, be it the centre of its star or another.

    Args:
        rank: int64 [N], lower is better; what counts is the order within each group.
        hashes: uint64 [N, K], the keys of each image.
        verify: takes rows i and j of images; asked about pairs of which not all is known yet.
    """
    centre = stars.centre
    order = np.lexsort((rank, centre))
    starts = np.flatnonzero(np.diff(centre[order], prepend=-1))
    kept = np.empty_like(centre)
    kept[centre[order[starts]]] = order[starts]
    kept = kept[centre]
    rows = np.arange(len(centre))

    distance, similarity = stars.distance.copy(), stars.similarity.copy()
    was = np.flatnonzero((rows == centre) & (kept != centre))  # a centre that is not kept
    distance[was], similarity[was] = stars.distance[kept[was]], stars.similarity[kept[was]]
    distance[kept], similarity[kept] = 0, 1
    resembles = np.full(len(centre), -1)
    alike = np.flatnonzero(stars.resembles >= 0)
    resembles[kept[alike]] = kept[stars.resembles[alike]]

    i = np.flatnonzero((kept != centre) & (rows != kept) & (rows != centre))
    i, j = np.concatenate([i, kept[alike]]), np.concatenate([kept[i], resembles[kept[alike]]])
    distance[i] = bits_apart(hashes[i], hashes[j])
    similarity[i] = verified(verify, i, j)
    _, seen, group = np.unique(centre, return_index=True, return_inverse=True)
    number = np.empty(len(seen), np.int64)
    number[np.argsort(seen)] = np.arange(len(seen))
    return Grouping(number[group], kept, distance, similarity, resembles)
