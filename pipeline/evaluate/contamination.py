"""Contamination: test images among the images that a student was trained on."""

import numpy as np
from scipy.spatial import cKDTree

from pipeline.console import Advance, no_progress

# Mean difference of the values of two pictures of one size, in levels of 255. Saved as JPEG at
# four or eight times their size and scaled back, 95 in 100 of CIFAR-10's test images are within it.
# Different pictures are not: the demo's drawings are over 11 apart, and of all 10,000 of these
# test images and 100,000 photographs of Tiny-ImageNet no pair is within 5, and one within 8.
NEAR = 5.0
BLOCK = 1000


def contaminated(
    test: np.ndarray, trained: np.ndarray, rows: np.ndarray, advance: Advance = no_progress
) -> np.ndarray:
    """Rows of the test images among those trained on, as they are or mirrored: int64 [L].

    Pixels alone are compared, at the size that the networks see: a copy that was cut or drawn
    over is not found here. `pipeline.dedup.leakage` finds those, in the images as crawled; at this
    size it would take different drawings of one shape for copies.

    Args:
        test: uint8 [M, S, S, 3].
        trained: uint8 [N, S, S, 3], which may be a memory map.
        rows: int64 [K], of `trained`, those that the student saw.
        advance: called with the number of `rows` that are done.
    """
    tests = len(test)
    # row tests + m is image m mirrored
    tree = cKDTree(np.concatenate([_quarters(test), _quarters(test[:, :, ::-1])]))
    found: set[int] = set()
    for start in range(0, len(rows), BLOCK):
        block = trained[rows[start : start + BLOCK]]
        near = tree.query_ball_point(_quarters(block), NEAR, p=1, workers=-1)
        for pixels, candidates in zip(block, near, strict=True):
            if not candidates:
                continue
            place = np.array(candidates)
            shown = test[place % tests]
            shown[place >= tests] = shown[place >= tests, :, ::-1]
            apart = np.abs(shown - pixels.astype(np.int16)).mean(axis=(1, 2, 3))
            found.update((place[apart <= NEAR] % tests).tolist())
        advance(len(block))
    return np.array(sorted(found), np.int64)


def _quarters(pixels: np.ndarray) -> np.ndarray:
    """float64 [N, 12]: sums of each quarter's colours, as shares of the number of values.

    No pair is missed by them: their L1 distance is at most the mean difference of the pixels.
    """
    half = pixels.shape[1] // 2
    parts = [
        pixels[:, rows, columns].sum(axis=(1, 2), dtype=np.int64)
        for rows in (slice(half), slice(half, None))
        for columns in (slice(half), slice(half, None))
    ]
    return np.concatenate(parts, axis=1) / pixels[0].size
