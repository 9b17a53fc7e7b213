"""Contamination: test images among the images that a student was trained on."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.copies import SIDE, Spread, squeezed
from kd3_pipeline.pixelstore import Pixels

# Mean difference of the values of two pictures of one size, in levels of 255, within which
# `kd3_pipeline.copies` is asked. Saved as JPEG at four or eight times their size and scaled back,
# 95 in 100 of CIFAR-10's test images are within it. Different photographs are not: of all 10,000 of
# these and 100,000 of Tiny-ImageNet no pair is within 5, and one within 8. Different digits often
# are.
NEAR = 5.0
CLOSEST = 8  # test images that one web image is judged beside: those of the least difference
BLOCK = 1000  # web images at a time, or fewer where they are large
BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class Contamination:
    """The test images that a student was trained on, each with the web image nearest to it."""

    test: np.ndarray  # int64 [L], rows of the test images, rising
    web: np.ndarray  # int64 [L], rows of the web images
    distance: np.ndarray  # float32 [L], by `kd3_pipeline.copies.distance`

    def __len__(self) -> int:
        return len(self.test)


def contaminated(
    test: Pixels,
    trained: Pixels,
    rows: np.ndarray,
    ratio: float,
    advance: Advance = no_progress,
) -> Contamination:
    """Finds the test images among those trained on, as they are or mirrored.

    Pixels alone are compared, at the size that the networks see: a copy that was cut or drawn
    over is not found here. `kd3_pipeline.dedup.leakage` finds those, in the images as crawled.

    Args:
        test: uint8 [M, S, S, 3].
        trained: uint8 [N, S, S, 3], which are read by block.
        rows: int64 [K], of `trained`, those that the student saw.
        ratio: of the distance to a test image's nearest other one, up to which a web image is it.
        advance: called with the number of `rows` that are done.
    """
    tests = len(test)
    spread: Spread | None = None
    # row tests + m is image m mirrored
    tree = cKDTree(np.concatenate([_all_quarters(test, step) for step in (1, -1)]))
    found = [np.empty((0, 3))]
    step = min(BLOCK, max(1, BLOCK_BYTES // test[0].nbytes)) if tests else BLOCK
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        pixels = np.asarray(trained[block])
        at, place = _near(tree, test, pixels)
        if len(at):
            spread = spread or Spread(test)
            of, flipped = place % tests, place >= tests
            web = squeezed(pixels[at], SIDE)
            judged = spread.judge(web, spread.edges(pixels[at], of, flipped), of, flipped, ratio)
            table = np.stack([of, block[at], judged.distance], axis=1)
            found.append(table[judged.copy])
        advance(len(block))
    table = np.concatenate(found)
    table = table[np.lexsort((table[:, 1], table[:, 2], table[:, 0]))]
    image, web, apart = table[np.unique(table[:, 0], return_index=True)[1]].T
    return Contamination(image.astype(np.int64), web.astype(np.int64), apart.astype(np.float32))


def _near(tree: cKDTree, test: Pixels, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pictures and of the test images, M added for mirrored ones, that are `NEAR`."""
    pairs = [np.empty((2, 0), np.int64)]
    for at, places in enumerate(tree.query_ball_point(_quarters(pixels), NEAR, p=1, workers=-1)):
        if not places:
            continue
        place = np.array(places)
        shown = test[place % len(test)]
        shown[place >= len(test)] = shown[place >= len(test), :, ::-1]
        apart = np.abs(shown - pixels[at].astype(np.int16)).mean(axis=(1, 2, 3))
        order = np.argsort(apart, kind="stable")[:CLOSEST]
        place = place[order[apart[order] <= NEAR]]
        pairs.append(np.stack([np.full(len(place), at), place]))
    at, place = np.concatenate(pairs, axis=1)
    return at, place


def _all_quarters(test: Pixels, step: int) -> np.ndarray:
    """`_quarters` of all test images, mirrored for a step of -1; a block in memory at a time."""
    blocks = range(0, len(test), BLOCK)
    return np.concatenate([_quarters(test[at : at + BLOCK, :, ::step]) for at in blocks])


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
