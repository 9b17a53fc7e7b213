"""Leakage of test images into a crawl: each stored image against a whole test set, by pixels.

A teacher's embedding is a poor judge of copies, so candidates come from small thumbnails of several
crops, and `verify.similarity` decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np

from pipeline.console import Advance, no_progress
from pipeline.dedup import verify
from pipeline.dedup.fingerprints import Fingerprints
from pipeline.dedup.verify import WHOLE, resample

THUMBNAIL = 16  # pixels a side
BLANK = 1.0  # length of a thumbnail that shows nothing: 0.04 grey levels for each value
CROPS = (0.0, 0.1, 0.2)  # shares of width and height that are cut off all round
COSINE = 0.80  # of thumbnails, from which pictures are compared by their edges
MOST = 32  # test images that one web image is compared with by edges: the nearest
SQUARE = 1.02  # a ratio of the sides up to this is a square
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow
BLOCK = 256  # web images at once; if 10,000 test images are near to all of them, 400 MB


@dataclass(frozen=True)
class Leaks:
    """The web images that show a test image, each with the one that it is most like."""

    image: np.ndarray  # int64 [L], rows of the fingerprints, rising
    test: np.ndarray  # int64 [L], rows of the test pixels
    cosine: np.ndarray  # float32 [L], of the thumbnails
    similarity: np.ndarray  # float32 [L], of the edges


def leaks(
    fingerprints: Fingerprints,
    test_pixels: np.ndarray,
    similarity: float,
    advance: Advance = no_progress,
) -> Leaks:
    """Finds the web images that are copies of test images, of another size, cut or mirrored.

    A test image may show the whole web image squashed, its centre square, or what is inside its
    border; of that it may leave out a tenth of each side anywhere, or a fifth all round. What was
    made grey is missed where the picture is colourful.

    Args:
        test_pixels: uint8 [M, S, S, 3], of any size S.
        similarity: of the edges, from which an image counts as leaked.
        advance: called with the number of web images done.
    """
    tests = len(test_pixels)
    readable = np.flatnonzero([not error for error in fingerprints.images["error"].to_pylist()])
    advance(len(fingerprints.grey) - len(readable))
    grey = np.empty((tests, *fingerprints.grey.shape[1:]), np.uint8)
    index = faiss.IndexFlatIP(3 * THUMBNAIL**2)
    for pixels in (test_pixels, test_pixels[:, :, ::-1]):  # row M + m is m mirrored
        for start in range(0, tests, BLOCK):
            block = pixels[start : start + BLOCK]
            index.add(_thumbnails(block, np.tile(WHOLE, (len(block), 1))))
    for start in range(0, tests, BLOCK):
        block = test_pixels[start : start + BLOCK]
        boxes = np.tile(WHOLE, (len(block), 1))
        grey[start : start + BLOCK] = resample(block @ GREY, boxes, grey.shape[1]).round()

    found = [np.empty((0, 4))]
    for start in range(0, len(readable), BLOCK):
        images = readable[start : start + BLOCK]
        image, box, near, cosine = _candidates(fingerprints, images, index)
        test, flipped = near % max(tests, 1), near >= tests
        shown = grey[test]
        shown[flipped] = shown[flipped, :, ::-1]
        # the part of the web image that was near is given as if the rest were its border
        alike = verify.similarity(
            fingerprints.grey[image], box, shown, np.tile(WHOLE, (len(image), 1)), mirrored=False
        )
        block = np.stack([image, test, cosine, alike], axis=1)[alike >= similarity]
        block = block[np.lexsort((block[:, 1], -block[:, 3], block[:, 0]))]
        found.append(block[np.unique(block[:, 0], return_index=True)[1]])
        advance(len(images))
    image, test, cosine, alike = np.concatenate(found).T
    return Leaks(
        image.astype(np.int64),
        test.astype(np.int64),
        cosine.astype(np.float32),
        alike.astype(np.float32),
    )


def _candidates(
    fingerprints: Fingerprints, images: np.ndarray, index: faiss.IndexFlatIP
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At most `MOST` rows of the index for each web image: the nearest, each once.

    Returns:
        The web image (int64 [P]), which part of it (float32 [P, 4]), the row of the index
        (int64 [P]), and their cosine (float32 [P]).
    """
    rows, parts, labels, cosines = [], [], [], []
    for part_of, boxes in _parts(fingerprints, images):
        if not len(part_of):
            continue  # FAISS would answer with arrays of another type
        colour = fingerprints.colour[part_of]
        size = boxes[:, 2:] - boxes[:, :2]
        for crop in CROPS:
            inset = np.concatenate([size, -size], axis=1) * (crop / 2)
            limits, near, label = index.range_search(_thumbnails(colour, boxes + inset), COSINE)
            limits = limits.astype(np.int64)
            times = limits[1:] - limits[:-1]
            rows.append(np.repeat(part_of, times))
            parts.append(np.repeat(boxes, times, axis=0))
            labels.append(label)
            cosines.append(near)
    row, part, label, cosine = map(np.concatenate, (rows, parts, labels, cosines))
    nearest_first = np.argsort(-cosine, kind="stable")
    _, once = np.unique((row * index.ntotal + label)[nearest_first], return_index=True)
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


def _thumbnails(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Parts of pictures as float32 [P, 768] of zero mean and unit length; zeros where blank.

    Args:
        pixels: uint8 [P, H, W, 3].
        boxes: float [P, 4], as `resample` takes them.
    """
    values = resample(pixels, boxes, THUMBNAIL).reshape(len(pixels), 3 * THUMBNAIL**2)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > BLANK, values / length.clip(BLANK), 0).astype(np.float32)
