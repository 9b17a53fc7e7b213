"""Quality of copies: which image of a group that shows one picture is worth keeping.

Pixels alone say little: a frame, a thumbnail blown up and a grey copy have as many as anyone likes.
What counts is how many pixels the picture itself needs, as far as the copies of a group differ in
that. Their spectra are compared at equal frequencies, in cycles a picture: a copy that was small
once lacks what was above its limit then, however large it is now.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from PIL import Image

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.dedup.compression import earlier_step, table_step
from kd3_pipeline.dedup.inside import inner_boxes
from kd3_pipeline.dedup.spectra import needed_pixels, spectrum
from kd3_pipeline.images import decode
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.strips import levels_of, strips

THUMB = 24  # side of the pictures that tell which part of one copy is the whole of another
LIKE = 0.9  # correlation from which two of them are one
ROUNDS = 3  # in which the best copy is compared with all others, until none is better
MODELS = 64  # copies of a group, at most, of which one is what the others are compared with
WHOLE_FIRST = 0.001  # correlation that a cut has to gain


SIDE = 64  # of the picture whose colours are measured
RIM = 6  # pixels of it left out: what is left of a border has colours of its own
GREY = 0.35  # of the most colourful copy's colour: less is a grey or a tinted one
COLOURED = 2.5  # levels; below it the picture itself has no colour

# what things are worth, in doublings of the number of pixels
GREY_COSTS = 2.0
BLOWN_UP = 0.85  # a doubling of empty pixels
BLOWN_UP_MOST = 0.6  # so that a small copy of a soft picture is not better than the picture
STEPS = 0.3  # a doubling of the steps of compression
FINE = 3.0  # levels: finer steps show nowhere
BORDER = 1.0  # a border over all of the area


@dataclass(frozen=True)
class View:
    """A part of a copy that may be the picture: all of it, or what is inside its border."""

    width: int
    height: int
    share: float  # of the copy's area
    thumb: np.ndarray  # float32 [THUMB * THUMB], of mean 0 and length 1
    spectra: np.ndarray  # float32 [2, bands], across and down: decibels, NaN above its limit
    colour: float  # levels of colour that its brightness does not explain


@dataclass(frozen=True)
class Measures:
    """What is measured of one copy alone."""

    views: tuple[View, ...]  # the whole first
    size: int  # bytes
    step: float  # levels of the coarsest compression that it has been through; 0 for none
    content: bytes  # the same for copies whose pixels are all equal


@dataclass(frozen=True)
class Score:
    """How good the copies of a group are, in doublings of the number of pixels: float64 [M]."""

    total: np.ndarray
    pixels: np.ndarray  # that the picture needs, as far as the copies differ in that
    used: np.ndarray  # share of a copy's pixels
    grey: np.ndarray  # bool [M]


def best_copies(
    rows: np.ndarray,
    groups: np.ndarray,
    read: Callable[[np.ndarray], Iterable[bytes]],
    facts: Sequence[int] | np.ndarray,
    ids: Sequence[str] | np.ndarray,
    advance: Advance = no_progress,
) -> np.ndarray:
    """Places of images in the order in which those of their group are worth keeping, int64 [M].

    0 is the best of its group. A file that cannot be decoded comes last.

    Args:
        rows: int64 [M], the images.
        groups: int64 [M], equal for images that show one picture.
        read: the encoded images of some rows, in their order.
        facts: of each of the M how many are known of where it is from.
        ids: of each of the M, all different: so that the order of the input does not matter.
        advance: called with a number of images that are measured.
    """
    facts, ids = np.asarray(facts), np.asarray(ids, np.str_)
    measured: list[Measures | None] = []
    for data in read(rows):  # in one go: files lie together whose images do not look alike
        measured.append(_measured(data))
        advance(1)
    place = np.empty(len(rows), np.int64)
    order = np.lexsort((ids, groups))
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        best = best_first([measured[row] for row in members], facts[members], ids[members])
        place[members[best]] = np.arange(len(members))
    return place


def best_first(
    copies: Sequence[Measures | None],
    facts: Sequence[int] | np.ndarray,
    ids: Sequence[str] | np.ndarray,
) -> np.ndarray:
    """The copies of one group from the best to the worst, int64 [M].

    By their `score`; of equal ones the smaller file if all pixels are equal, else the larger one,
    which is compressed less; then by the facts known of where they are from; then by id.
    """
    known = [copy for copy in copies if copy is not None]
    total = np.full(len(copies), -np.inf)
    total[[copy is not None for copy in copies]] = score(known).total
    size = np.array([copy.size if copy else 0 for copy in copies], np.int64)
    contents = [copy.content if copy else b"" for copy in copies]
    equal = np.array([copy is not None and contents.count(copy.content) > 1 for copy in copies])
    size[equal] *= -1
    keys = np.asarray(ids, np.str_), -np.asarray(facts, np.int64), -size
    order = np.lexsort((*keys, -total))
    # Two copies say more of each other than many do, which may have the same faults
    place = np.argsort(np.lexsort(keys))  # where the scores are equal
    best = int(order[0])
    for _ in range(ROUNDS):
        before = best
        for other in order.tolist():
            one, two = copies[best], copies[other]
            if other != best and one is not None and two is not None:
                scores = score([one, two]).total
                if (scores[1], -place[other]) > (scores[0], -place[best]):
                    best = other
        if best == before:
            break
    return np.array([best, *order[order != best]], np.int64)


def _measured(data: bytes) -> Measures | None:
    try:
        return measure(data)
    except ImageError:
        return None


def measure(data: bytes) -> Measures:
    """The measures of an encoded image, decoded in full.

    Raises:
        ImageError: as `kd3_pipeline.images.decode`.
    """
    image = decode(data)
    levels = levels_of(image, lambda strip: strip.convert("L"))
    grey = Image.fromarray(levels)
    boxes = [(0, 0, *image.size)]
    for box in inner_boxes(grey):
        if box not in boxes:
            boxes.append(box)
    return Measures(
        tuple(_view(image, levels, box) for box in boxes),
        len(data),
        max(table_step(data), earlier_step(levels)),
        _digest(image),
    )


def _digest(image: Image.Image) -> bytes:
    """Equal for pictures of equal pixels."""
    found = blake2b(digest_size=16, key=repr(image.size).encode())
    for _, strip in strips(image):
        found.update(strip.tobytes())
    return found.digest()


# measures of a view


def _view(image: Image.Image, levels: np.ndarray, box: tuple[int, int, int, int]) -> View:
    left, top, right, bottom = box
    part = levels[top:bottom, left:right]
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, box=box).convert("YCbCr")
    thumb = np.asarray(
        small.getchannel(0).resize((THUMB, THUMB), Image.Resampling.BOX), np.float32
    ).ravel()
    thumb = thumb - thumb.mean()
    spectra = [spectrum(part), spectrum(part.T)]
    area = image.width * image.height
    return View(
        right - left,
        bottom - top,
        (right - left) * (bottom - top) / area,
        thumb / max(float(np.linalg.norm(thumb)), 1e-6),
        np.array(spectra, np.float32),
        _colour(np.asarray(small, np.float32)[RIM:-RIM, RIM:-RIM].reshape(-1, 3)),
    )


def _colour(pixels: np.ndarray) -> float:
    """Deviation of Cb and Cr, float32 [P, 3] of YCbCr, from a curve over brightness.

    A grey copy has none, and neither has one in sepia or any other tint.
    """
    bright = pixels[:, 0] / 255
    terms = np.stack([np.ones_like(bright), bright, bright**2], axis=1)
    curve, *_ = np.linalg.lstsq(terms, pixels[:, 1:], rcond=None)
    return float(np.sqrt(np.mean(np.sum((pixels[:, 1:] - terms @ curve) ** 2, axis=1))))


# copies of one picture


def score(copies: Sequence[Measures]) -> Score:
    """Scores of copies that show one picture; those of two groups are not to be compared."""
    if not copies:
        nothing = np.empty(0)
        return Score(nothing, nothing, nothing, np.empty(0, bool))
    views = _same_parts(copies)
    sides = np.array([(view.width, view.height) for view in views], np.float64)
    spectra = np.array([view.spectra for view in views])
    needed = np.stack([needed_pixels(spectra[:, axis], sides[:, axis]) for axis in (0, 1)], axis=1)
    pixels, used = np.log2(needed).sum(axis=1), (needed / sides).prod(axis=1)
    colour = np.array([view.colour for view in views])
    grey = (colour.max() > COLOURED) & (colour < GREY * colour.max())
    total = (
        pixels
        - np.minimum(-BLOWN_UP * np.log2(used), BLOWN_UP_MOST)
        - GREY_COSTS * grey
        - STEPS * np.log2(np.maximum([copy.step / FINE for copy in copies], 1))
        - BORDER * (1 - np.array([view.share for view in views]))
    )
    return Score(total, 2**pixels, used, grey)


def _same_parts(copies: Sequence[Measures]) -> list[View]:
    """Of each copy the part that shows what the others show: the whole where none is like them."""
    candidates = [view for copy in copies[:MODELS] for view in copy.views]
    thumbs = np.stack([view.thumb for view in candidates])
    thumbs = np.stack([thumbs, _mirrored(thumbs)])
    likeness = []  # of each copy's views to each candidate, mirrored or not
    for copy in copies:
        own = np.stack([view.thumb for view in copy.views])
        cost = WHOLE_FIRST * np.arange(len(own))[:, None]
        likeness.append((own @ thumbs.swapaxes(1, 2)).max(axis=0) - cost)
    best = np.mean([like.max(axis=0) for like in likeness], axis=0)
    model = int(np.argmax(best))
    chosen = [int(np.argmax(like[:, model])) for like in likeness]
    return [
        copy.views[view] if like[view, model] > LIKE - WHOLE_FIRST * view else copy.views[0]
        for copy, view, like in zip(copies, chosen, likeness, strict=True)
    ]


def _mirrored(thumbs: np.ndarray) -> np.ndarray:
    return thumbs.reshape(-1, THUMB, THUMB)[:, :, ::-1].reshape(thumbs.shape)
