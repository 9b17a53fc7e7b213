"""Verifier of candidates: whether two images, near by their hashes, are of one picture."""

from collections.abc import Callable

import numpy as np

from pipeline.dedup import verify
from pipeline.dedup.fingerprints import Fingerprints

GATE = 0.5  # correlation from which a pair gets the second look: unlike ones mostly have less

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]  # i, j: int64 [P] -> float32 [P]


def verifier(
    fingerprints: Fingerprints, close_ups: Callable[[np.ndarray], np.ndarray] | None
) -> Verify:
    """The similarity of images by row: of all their edges, and then of the worst part.

    Args:
        close_ups: of rows, uint8 [N, look.SIDE, look.SIDE, 3]; without it, edges alone decide.

    Returns:
        A function of rows i and j, int64 [P], to float32 [P] in -1..1; the same, to 1e-4, when i
        and j change places.
    """
    grey, trim = fingerprints.grey, fingerprints.trim

    def similarity(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        i, j = np.minimum(i, j), np.maximum(i, j)
        alike, places = verify.alignment(grey[i], trim[i], grey[j], trim[j])
        rows = np.flatnonzero(alike >= GATE)
        if close_ups is not None and len(rows):
            from pipeline.dedup.look import look  # imports torch

            one, other = i[rows], j[rows]
            pictures = close_ups(np.concatenate([one, other]))
            a, b = np.split(pictures, 2)
            alike[rows] = look(a, trim[one], b, trim[other], places[rows])
        return alike

    return similarity
