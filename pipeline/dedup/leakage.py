"""Leakage of test images into a crawl: each stored image against a whole test set, by pixels.

A teacher's embedding is a poor judge of copies, so candidates come from small thumbnails of several
crops, `verify.similarity` says which may be copies, and `kd3_pipeline.copies` which are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.copies import SIDE, Spread, colourless
from kd3_pipeline.dedup import verify
from kd3_pipeline.dedup.fingerprints import Fingerprints
from kd3_pipeline.dedup.verify import WHOLE, resample
from kd3_pipeline.pixelstore import Pixels

CROPS = (0.0, 0.1, 0.2)  # shares of width and height that are cut off all round
COSINE = 0.80  # of thumbnails, from which pictures are compared by their edges
MOST = 32  # test images that one web image is compared with by edges: the nearest
ALIKE = 4  # of them that it is laid over, pixel by pixel: those of the most similar edges
SQUARE = 1.02  # a ratio of the sides up to this is a square
BLOCK = 256  # web images at once; if 10,000 test images are near to all of them, 400 MB


@dataclass(frozen=True)
class Leaks:
    """The web images that show a test image, each with the one that it is most like."""

    image: np.ndarray  # int64 [L], rows of the fingerprints, rising
    test: np.ndarray  # int64 [L], rows of the test pixels
    cosine: np.ndarray  # float32 [L], of the thumbnails
    similarity: np.ndarray  # float32 [L], of the edges
    distance: np.ndarray  # float32 [L], of the pixels


def leaks(
    fingerprints: Fingerprints,
    test_pixels: Pixels,
    similarity: float,
    ratio: float,
    advance: Advance = no_progress,
) -> Leaks:
    """Finds the web images that are copies of test images, of another size, cut or mirrored.

    A test image may show the whole web image squashed, its centre square, or what is inside its
    border; of that it may leave out a tenth of each side anywhere, or a fifth all round. Either
    may be grey.

    Args:
        test_pixels: uint8 [M, S, S, 3], of any size S.
        similarity: of the edges, from which an image may be a copy.
        ratio: of the distance to a test image's nearest other one, up to which it is one.
        advance: called with the number of web images done.
    """
    spread = Spread(test_pixels)
    readable = np.flatnonzero([not error for error in fingerprints.images["error"].to_pylist()])
    advance(len(fingerprints.grey) - len(readable))
    found = [np.empty((0, 5))]
    for start in range(0, len(readable), BLOCK):
        images = readable[start : start + BLOCK]
        found.append(_leaked(fingerprints, images, spread, similarity, ratio))
        advance(len(images))
    image, test, cosine, alike, apart = np.concatenate(found).T
    return Leaks(
        image.astype(np.int64),
        test.astype(np.int64),
        cosine.astype(np.float32),
        alike.astype(np.float32),
        apart.astype(np.float32),
    )


def _leaked(
    fingerprints: Fingerprints,
    images: np.ndarray,
    spread: Spread,
    similarity: float,
    ratio: float,
) -> np.ndarray:
    """Those of the images that are copies, each once: float64 [L, 5], in the order of `Leaks`."""
    image, box, near, cosine = _candidates(fingerprints, images, spread)
    test, flipped = near % max(len(spread), 1), near >= len(spread)
    # the part of the web image that was near is given as if the rest were its border
    alike = verify.similarity(
        fingerprints.grey[image],
        box,
        spread.shown(test, flipped)[1],
        np.tile(WHOLE, (len(image), 1)),
        mirrored=False,
    )
    order = np.lexsort((test, -alike, image))
    place = np.arange(len(order)) - np.searchsorted(image[order], image[order])
    chosen = order[(alike[order] >= similarity) & (place < ALIKE)]
    image, box, test, flipped = (of[chosen] for of in (image, box, test, flipped))
    parts = resample(fingerprints.colour[image], box, SIDE).round().astype(np.uint8)
    judged = spread.judge(parts, alike[chosen], test, flipped, ratio)
    table = np.stack([image, test, cosine[chosen], alike[chosen], judged.distance], axis=1)
    table = table[judged.copy]
    return table[np.unique(table[:, 0], return_index=True)[1]]


def _candidates(
    fingerprints: Fingerprints, images: np.ndarray, spread: Spread
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At most `MOST` test images for each web image: the nearest, each once.

    Returns:
        The web image (int64 [P]), which part of it (float32 [P, 4]), the test image (int64 [P],
        with M added where it is mirrored), and their cosine (float32 [P]).
    """
    found = [(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0, np.int64), np.empty(0))]
    for part_of, boxes in _parts(fingerprints, images):
        colour = fingerprints.colour[part_of]
        size = boxes[:, 2:] - boxes[:, :2]
        grey = colourless(colour)
        for crop in CROPS:
            inset = np.concatenate([size, -size], axis=1) * (crop / 2)
            for chosen, limits, label, near in spread.search(colour, boxes + inset, grey, COSINE):
                times = limits[1:] - limits[:-1]
                row, part = (np.repeat(of[chosen], times, axis=0) for of in (part_of, boxes))
                found.append((row, part, label, near))
    row, part, label, cosine = (np.concatenate(of) for of in zip(*found, strict=True))
    nearest_first = np.argsort(-cosine, kind="stable")
    _, once = np.unique((row * 2 * len(spread) + label)[nearest_first], return_index=True)
    order = nearest_first[np.sort(once)]
    order = order[np.argsort(row[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    order = order[place < MOST]
    return row[order], part[order], label[order], cosine[order]


def _parts(
    fingerprints: Fingerprints, images: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some of the images, and the part of each that a test image may show: float32 [P, 4]."""
    yield images, np.tile(WHOLE, (len(images), 1))
    width, height = (fingerprints.images[side].to_numpy()[images] for side in ("width", "height"))
    shorter = np.minimum(width, height)
    margin = np.stack([1 - shorter / width, 1 - shorter / height], axis=1).astype(np.float32) / 2
    oblong = np.maximum(width, height) > SQUARE * shorter
    yield images[oblong], np.concatenate([margin, 1 - margin], axis=1)[oblong]
    trim = fingerprints.trim[images]
    bordered = (trim != WHOLE).any(axis=1)
    yield images[bordered], trim[bordered]
