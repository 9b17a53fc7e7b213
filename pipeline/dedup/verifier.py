"""Verifier of candidates: whether two images, near by their hashes, are of one picture."""

from collections.abc import Callable

import numpy as np

from pipeline.dedup import verify
from pipeline.dedup.fingerprints import Fingerprints

GATE = 0.5  # correlation from which a pair gets the second look: unlike ones mostly have less
CLOSER = 0.7  # similarity from which a pair on plain ground gets a closer one
DETAIL = 0.75  # of the pixels of a closer look, that both pictures must have

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]  # i, j: int64 [P] -> float32 [P]


def verifier(
    fingerprints: Fingerprints,
    close_ups: Callable[[np.ndarray, int], np.ndarray] | None,
) -> Verify:
    """The similarity of images by row: of all their edges, and then of the worst part.

    Args:
        close_ups: of rows at a number of pixels a side, uint8 [N, side, side, 3]; without it,
            edges alone decide.

    Returns:
        A function of rows i and j, int64 [P], to float32 [P] in -1..1; the same when i and j
        change places.
    """
    grey, trim = fingerprints.grey, fingerprints.trim

    def similarity(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        i, j = np.minimum(i, j), np.maximum(i, j)
        alike, places = verify.alignment(grey[i], trim[i], grey[j], trim[j])
        rows = np.flatnonzero(alike >= GATE)
        if close_ups is not None and len(rows):
            alike[rows] = _looked(fingerprints, close_ups, i[rows], j[rows], places[rows])
        return alike

    return similarity


def _looked(
    fingerprints: Fingerprints,
    close_ups: Callable[[np.ndarray, int], np.ndarray],
    i: np.ndarray,
    j: np.ndarray,
    places: np.ndarray,
) -> np.ndarray:
    from pipeline.dedup.look import FINE, SIDE, look, look_closer  # imports torch

    trim = fingerprints.trim
    a, b = np.split(close_ups(np.concatenate([i, j]), SIDE), 2)
    seen = look(a, trim[i], b, trim[j], places)
    # blown up to it, a small picture has no detail to be told apart by
    sides = _least_side(fingerprints)
    detailed = np.minimum(sides[i], sides[j]) >= DETAIL * FINE
    rows = np.flatnonzero(seen.plain & detailed & (seen.similarity >= CLOSER))
    if len(rows):
        i, j = i[rows], j[rows]
        a, b = np.split(close_ups(np.concatenate([i, j]), FINE), 2)
        closer = look_closer(a, trim[i], b, trim[j], seen.maps[rows])
        seen.similarity[rows] = np.minimum(seen.similarity[rows], closer)
    return seen.similarity


def _least_side(fingerprints: Fingerprints) -> np.ndarray:
    """Pixels of the shorter side of what is compared of each image, float64 [N]."""
    width, height = (fingerprints.images[side].to_numpy() for side in ("width", "height"))
    cut = fingerprints.cut
    return np.minimum(width * (cut[:, 2] - cut[:, 0]), height * (cut[:, 3] - cut[:, 1]))
