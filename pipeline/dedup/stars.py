"""Stars of look-alikes, found while they are verified: images are compared with centres only.

Each image in turn, from the best to the worst, is compared on pixels with the images near it that
stand for themselves, the nearest first. It joins the first that shows its picture; if none does, it
stands for itself. This is the star clustering of Aslam, Pelekhov and Rus, "The star clustering
algorithm for static and dynamic information organization" (JGAA 2004), by rank instead of by degree
and without overlap: no chain pulls its ends together, and N copies of one picture are N
comparisons.

What follows gives exactly this, but asks for many comparisons at once: an image whose nearer and
better neighbours are not settled waits, and all that do not wait ask in one call.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.dedup.near import (
    DISTANCE_BITS,
    MOST_PAIRS,
    PLACE_BITS,
    Crowded,
    candidate_pairs,
    nearest,
)
from kd3_pipeline.dedup.verifier import Verify

CROWD = 32  # pairs for each image, on average: from so many on they are not held all at once
FIRST_BATCH, BATCH = 64, 512  # images that are settled together, at first and of a crowd
VERIFIED_AT_ONCE = 2**16  # pairs: 20 MB of numbers about them
WAITS, STANDS, JOINED = range(3)


@dataclass(frozen=True)
class Terms:
    """What makes two images one picture."""

    radius: int  # bits between hashes up to which images are compared on pixels
    similarity: float  # of pixels, from which two images are one
    compared: int = 0  # centres that an image is compared with, the nearest; 0 is all
    # rows i and j of images -> the similarity that these pairs need, where it is more than that
    needed: Verify | None = None

    @property
    def looked(self) -> int:
        """Centres to look for, 0 for all: one more tells that there are more."""
        return self.compared and self.compared + 1


@dataclass(frozen=True)
class Stars:
    """For each of N images the one that stands for it, its own where it stands for itself."""

    centre: np.ndarray  # int64 [N]
    distance: np.ndarray  # int32 [N], bits to the centre
    similarity: np.ndarray  # float32 [N], to the centre
    # int64 [N]: for a centre another one that is as similar as any two need be, but not as much as
    # these two need; -1 where there is none
    resembles: np.ndarray
    capped: np.ndarray  # bool [N]: of more centres near it only the nearest were looked at
    verified: int = 0  # pairs

    @classmethod
    def single(cls, total: int) -> "Stars":
        """Each image by itself."""
        return cls(
            np.arange(total),
            np.zeros(total, np.int32),
            np.ones(total, np.float32),
            np.full(total, -1),
            np.zeros(total, bool),
        )


def verified(verify: Verify, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Similarity of pairs of images by row, float32 [P], of some thousands at a time."""
    alike = np.empty(len(i), np.float32)
    for start in range(0, len(i), VERIFIED_AT_ONCE):
        some = slice(start, start + VERIFIED_AT_ONCE)
        alike[some] = verify(i[some], j[some])
    return alike


def find_stars(
    hashes: np.ndarray,
    ordered: np.ndarray,
    terms: Terms,
    verify: Verify,
    advance: Advance = no_progress,
) -> Stars:
    """The stars of some images.

    Args:
        hashes: uint64 [N, K], of all images.
        ordered: int64 [M], rows of the images that take part, all different, the best first.
        verify: takes the rows of the lesser image of each pair and of the better one.
        advance: called with the number of images that are settled.
    """
    search = _Search(len(hashes), ordered, terms, verify, advance)
    keys, total = hashes[ordered], len(ordered)
    try:
        most = min(CROWD * total, MOST_PAIRS)
        better, image, distance = candidate_pairs(
            keys, terms.radius, np.ones(total, bool), most=most
        )
        pairs = _Pairs(image, better, distance)
        for batch in _batches(total, total):
            search.settle(batch, pairs)
    except Crowded:
        for batch in _batches(total, BATCH):
            start, some = batch[0], keys[batch]
            centres = np.flatnonzero(search.state[:start] == STANDS)
            image, near, distance = nearest(some, keys[centres], terms.radius, terms.looked)
            one, other, apart = nearest(some, some, terms.radius)
            within = other < one
            pairs = _Pairs(
                start + np.concatenate([image, one[within]]),
                np.concatenate([centres[near], start + other[within]]),
                np.concatenate([distance, apart[within]]),
            )
            search.settle(batch, pairs)
    return search.found()


def _batches(total: int, most: int) -> Iterator[np.ndarray]:
    """Places in order, int64 [B], in batches of at most `most`.

    The more are settled before a batch, the fewer of its images are compared with a centre that
    turns out not to be among the nearest.
    """
    start = 0
    while start < total:
        stop = min(start + min(max(start // 4, FIRST_BATCH), most), total)
        yield np.arange(start, stop)
        start = stop


def find_members(
    hashes: np.ndarray,
    centres: np.ndarray,
    images: np.ndarray,
    terms: Terms,
    verify: Verify,
    advance: Advance = no_progress,
) -> Stars:
    """The members that given centres have among some images; the others stand for themselves.

    Args:
        hashes: uint64 [N, K], of all images.
        centres: rows, int64; of those at one distance the first come first.
        images: rows of other images, int64.
        verify: takes the rows of images and of centres.
        advance: called with the number of images that are settled.
    """
    ordered = np.concatenate([centres, images])
    search = _Search(len(hashes), ordered, terms, verify, advance)
    search.state[: len(centres)] = STANDS
    for start in range(len(centres), len(ordered), BATCH):
        batch = np.arange(start, min(start + BATCH, len(ordered)))
        keys = hashes[ordered[batch]]
        image, centre, distance = nearest(keys, hashes[centres], terms.radius, terms.looked)
        search.settle(batch, _Pairs(start + image, centre, distance))
    return search.found()


class _Pairs:
    """Pairs of an image and a better one near it, by image, distance and better one."""

    def __init__(self, image: np.ndarray, better: np.ndarray, distance: np.ndarray) -> None:
        packed = image.astype(np.uint64) << DISTANCE_BITS | distance.astype(np.uint64)
        packed = packed << PLACE_BITS | better.astype(np.uint64)
        packed.sort()
        self.better = (packed & (2**PLACE_BITS - 1)).astype(np.int64)
        packed >>= PLACE_BITS
        self.distance = (packed & (2**DISTANCE_BITS - 1)).astype(np.uint8)
        self.image = (packed >> DISTANCE_BITS).astype(np.int64)
        self.similarity = np.full(len(packed), np.nan, np.float32)  # until they are asked for
        self.enough = np.zeros(len(packed), bool)


class _Search:
    """Images, by their place among those that take part (0 the best), and what is settled."""

    def __init__(
        self, total: int, ordered: np.ndarray, terms: Terms, verify: Verify, advance: Advance
    ) -> None:
        self.ordered, self.terms, self.verify, self.advance = ordered, terms, verify, advance
        self.stars = Stars.single(total)
        self.state = np.full(len(ordered), WAITS, np.int8)
        self.verified = 0

    def found(self) -> Stars:
        return replace(self.stars, verified=self.verified)

    def settle(self, batch: np.ndarray, pairs: _Pairs) -> None:
        """Settles some images.

        Args:
            batch: int64 [B], their places, rising.
            pairs: all of one of them with a better one that is near it, and does not wait or is
                one of them too. Of those that stand, the nearest may do.
        """
        begins, ends = (np.searchsorted(pairs.image, batch, side) for side in ("left", "right"))
        alone = begins == ends
        self.state[batch[alone]] = STANDS
        self.advance(int(alone.sum()))
        ranges = zip(begins[~alone].tolist(), ends[~alone].tolist(), strict=True)
        of = dict(zip(batch[~alone].tolist(), ranges, strict=True))
        looking, settled = deque(of), 0
        behind: dict[int, list[int]] = {}  # images that wait for an image
        while looking:
            asked = []
            while looking:
                image = looking.popleft()
                question, better = self._look(pairs, image, *of[image])
                if question is not None:
                    asked.append(question)
                elif better is not None:
                    behind.setdefault(better, []).append(image)
                else:
                    settled += 1
                    looking.extend(behind.pop(image, ()))
            self._ask(pairs, np.array(asked, np.int64))
            looking.extend(pairs.image[asked].tolist())
            self.advance(settled)
            settled = 0

    def _look(
        self, pairs: _Pairs, image: int, begin: int, end: int
    ) -> tuple[int | None, int | None]:
        """Settles an image if its pairs, begin to end, tell enough.

        Returns:
            Else a pair that is to be verified first, or a better image that is to be settled first.
        """
        state = self.state[pairs.better[begin:end]]
        centres = begin + np.flatnonzero(state == STANDS)
        more = 0 < self.terms.compared < len(centres)
        if more:
            centres = centres[: self.terms.compared]
        joins = np.flatnonzero(pairs.enough[centres])
        if len(joins):
            centres = centres[: joins[0] + 1]
        unknown = np.isnan(pairs.similarity[centres])
        if unknown.any():
            return int(centres[unknown.argmax()]), None
        last = centres[-1] if more or len(joins) else end
        unsettled = np.flatnonzero(state[: last - begin] == WAITS)
        if len(unsettled):
            return None, int(pairs.better[begin + unsettled[0]])
        self._settled(pairs, image, centres, more, joined=len(joins) > 0)
        return None, None

    def _settled(
        self, pairs: _Pairs, image: int, centres: np.ndarray, more: bool, joined: bool
    ) -> None:
        stars, row = self.stars, self.ordered[image]
        self.state[image] = JOINED if joined else STANDS
        alike = pairs.similarity[centres]
        if joined:
            stars.centre[row] = self.ordered[pairs.better[centres[-1]]]
            stars.distance[row] = pairs.distance[centres[-1]]
            stars.similarity[row] = alike[-1]
            return
        stars.capped[row] = more
        if len(centres) and alike.max() >= self.terms.similarity:
            stars.resembles[row] = self.ordered[pairs.better[centres[alike.argmax()]]]

    def _ask(self, pairs: _Pairs, asked: np.ndarray) -> None:
        i, j = self.ordered[pairs.image[asked]], self.ordered[pairs.better[asked]]
        pairs.similarity[asked] = verified(self.verify, i, j)
        needed = np.full(len(asked), self.terms.similarity, np.float32)
        if self.terms.needed is not None:
            np.maximum(needed, self.terms.needed(i, j), out=needed, casting="same_kind")
        pairs.enough[asked] = pairs.similarity[asked] >= needed
        self.verified += len(asked)
