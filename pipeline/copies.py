"""Copies of test images: one rule for `dedup` and `evaluate`, made of the test set's own spread.

How alike two different pictures are depends on what they show: two photographs share nothing, two
written digits nearly everything. So no fixed threshold tells a copy. A web image is taken for a
test image if it is much nearer to it than the nearest *other* test image is: a ratio of distances,
as Lowe asks of keypoints (2004), whose second distance is the test set's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import faiss
import numpy as np
from PIL import Image

from kd3_pipeline.dedup.verify import WHOLE, resample, similarity
from kd3_pipeline.pixelstore import Pixels

SIDE = 32  # pixels a side at which pictures are laid over each other
COARSE = 16  # and at which it is found out where
GREY = 64  # pixels a side of the grey pictures that `similarity` takes
THUMBNAIL = 16  # pixels a side
BLANK = 1.0  # length of a thumbnail that shows nothing: 0.04 grey levels for each value
FAINT = 0.01  # length of a thumbnail in grey, of one in colour, that shows nothing
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow
COLOURLESS = 3.0  # levels between a pixel's channels, on average, below which a picture is grey
NEIGHBOURS = 6  # test images that are tried for the nearest other one
BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16
TWINS = 2  # copies of one picture that a test set may have besides it
SAME = 0.03  # distance: as far as encoding and resampling alone take a picture
FARTHEST = 0.35  # distance beyond which nothing is a copy, however lonely the test image
EDGES = 0.6  # of the ratio: edges tell less of drawings than pixels do, so more is asked
OVERLAP = 0.6  # of a picture that the other has to cover
LEAST, MOST = 0.75, 1.34  # scale of one picture to the other
STEPS = 6  # of Gauss and Newton
BLOCK = 256
BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Judged:
    """P pairs of a web and a test image: whether it is a copy, and what was compared."""

    copy: np.ndarray  # bool [P]
    distance: np.ndarray  # float32 [P], of the pixels
    limit: np.ndarray  # float32 [P], of the distance; where edges are alike it may be over it


class Spread:
    """M test images, and how near the different ones of them are to each other."""

    def __init__(self, pixels: Pixels) -> None:
        """Takes uint8 [M, S, S, 3], of any size S."""
        self.colour = np.empty((len(pixels), SIDE, SIDE, 3), np.uint8)
        self.grey = np.empty((len(pixels), GREY, GREY), np.uint8)
        for start in range(0, len(pixels), BLOCK):
            block = slice(start, start + BLOCK)
            self.colour[block] = squeezed(pixels[block], SIDE)
            self.grey[block] = squeezed(luma(pixels[block]), GREY)
        self._pixels = pixels
        self._nearest = np.full((2, len(pixels), 2), np.nan, np.float32)  # in colour, in grey

    def __len__(self) -> int:
        return len(self.colour)

    def search(
        self, pixels: np.ndarray, boxes: np.ndarray, grey: np.ndarray, cosine: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Test images whose thumbnails are like those of parts of pictures.

        Coloured pictures are compared with all of them by colour, and with the grey ones by grey;
        grey pictures with all of them by grey.

        Args:
            pixels: uint8 [P, H, W, 3], of which those that are `grey` (bool [P]) have no colours.
            boxes: float [P, 4], as `resample` takes them.

        Yields:
            Places of some of the pictures, where the test images of each begin and end (int64),
            the rows of the index, and their cosines.
        """
        if not len(self) or not len(pixels):
            return  # FAISS would answer with arrays of another type
        asked = thumbnails(pixels, boxes)
        some, names = self._colourless
        for chosen, in_colour, index in (
            (np.flatnonzero(~grey), True, lambda: self.index),
            (np.flatnonzero(grey), False, lambda: self._grey_index),
            (np.flatnonzero(~grey)[: len(pixels) * (len(names) > 0)], False, lambda: some),
        ):
            if not len(chosen):
                continue
            wanted = asked[chosen] if in_colour else _in_grey(asked[chosen])
            limits, near, label = index().range_search(wanted, cosine)
            label = names[label] if index() is some else label
            yield chosen, limits.astype(np.int64), label, near

    @cached_property
    def index(self) -> faiss.IndexFlatIP:
        """Thumbnails of all test images; row M + m is m mirrored."""
        index = faiss.IndexFlatIP(3 * THUMBNAIL**2)
        for step in (1, -1):
            for start in range(0, len(self), BLOCK):
                index.add(thumbnails(self._pixels[start : start + BLOCK, :, ::step]))
        return index

    @cached_property
    def _grey_index(self) -> faiss.IndexFlatIP:
        return self._indexed(np.arange(2 * len(self)))

    @cached_property
    def _colourless(self) -> tuple[faiss.IndexFlatIP, np.ndarray]:
        """An index of the grey test images alone, and their rows in the whole index."""
        rows = np.flatnonzero(colourless(self.colour))
        rows = np.concatenate([rows, rows + len(self)])
        return self._indexed(rows), rows

    def _indexed(self, rows: np.ndarray) -> faiss.IndexFlatIP:
        """Some of the thumbnails, in grey."""
        index = faiss.IndexFlatIP(THUMBNAIL**2)
        for start in range(0, len(rows), BLOCK):
            index.add(_in_grey(self.index.reconstruct_batch(rows[start : start + BLOCK])))
        return index

    def shown(self, rows: np.ndarray, flipped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Test images in colour and in grey, some of them mirrored."""
        colour, grey = self.colour[rows], self.grey[rows]
        colour[flipped], grey[flipped] = colour[flipped, :, ::-1], grey[flipped, :, ::-1]
        return colour, grey

    def edges(self, pixels: np.ndarray, rows: np.ndarray, flipped: np.ndarray) -> np.ndarray:
        """How alike the edges of web images (uint8 [P, S, S, 3]) and test images are: [P]."""
        whole = np.tile(WHOLE, (len(rows), 1))
        grey = squeezed(luma(pixels), GREY)
        return similarity(grey, whole, self.shown(rows, flipped)[1], whole, mirrored=False)

    def judge(
        self,
        web: np.ndarray,
        edges: np.ndarray,
        rows: np.ndarray,
        flipped: np.ndarray,
        ratio: float,
    ) -> Judged:
        """Which pairs of a web and a test image are one picture.

        Args:
            web: uint8 [P, 32, 32, 3].
            edges: float [P], their `similarity` by `edges`.
            rows: int64 [P], the test images.
            flipped: bool [P], where the test image is to be mirrored.
            ratio: of the distance to the test image's nearest other one, up to which a web image
                is a copy.
        """
        apart = distance(web, self.shown(rows, flipped)[0])
        pixels, unlike = self.nearest(rows[apart > SAME], ratio, colourless(web[apart > SAME])).T
        limit = np.full(len(rows), SAME, np.float32)
        limit[apart > SAME] = np.clip(ratio * pixels, SAME, FARTHEST)
        copy = apart <= limit
        # light that was cut off changes pixels and leaves the edges
        like = (1 - edges[apart > SAME] <= EDGES * ratio * unlike) & (apart[apart > SAME] <= pixels)
        copy[apart > SAME] |= like
        return Judged(copy, apart, limit)

    def nearest(self, rows: np.ndarray, ratio: float, grey: np.ndarray) -> np.ndarray:
        """How far each test image is from the nearest other one: float32 [P, 2].

        Of the pixels, and of the edges (1 - `similarity`). A test set may have a picture
        twice: what this same rule takes for a copy is passed over.

        Args:
            grey: bool [P], where colours are not to count: beside a grey web image they tell
                nothing apart.
        """
        found = np.empty((len(rows), 2), np.float32)
        for kind, chosen in enumerate((~grey, grey)):
            known, wanted = self._nearest[kind], rows[chosen]
            new = np.unique(wanted[np.isnan(known[wanted, 0])])
            for start in range(0, len(new), BLOCK):
                block = new[start : start + BLOCK]
                known[block] = self._measure(block, ratio, bool(kind))
            found[chosen] = known[wanted]
        return found

    def _measure(self, rows: np.ndarray, ratio: float, grey: bool) -> np.ndarray:
        """float32 [P, 2], as `nearest` gives it; 1 where there is no other test image."""
        tests = len(self)
        asked = thumbnails(self._pixels[rows])
        index, asked = (self._grey_index, _in_grey(asked)) if grey else (self.index, asked)
        found = index.search(asked, min(2 * NEIGHBOURS + 2, 2 * tests))[1]
        near = np.ones((len(rows), found.shape[1], 2), np.float32)
        other = (found >= 0) & (found % tests != rows[:, None])
        other &= other.cumsum(axis=1) <= NEIGHBOURS
        at, place = np.nonzero(other)
        colour, edges = self.shown(found[at, place] % tests, found[at, place] >= tests)
        own = self.colour[rows[at]]
        own = np.repeat(luma(own)[..., None], 3, axis=3) if grey else own
        near[at, place, 0] = distance(own, colour)
        whole = np.tile(WHOLE, (len(at), 1))
        near[at, place, 1] = 1 - similarity(
            self.grey[rows[at]], whole, edges, whole, mirrored=False
        )
        near.sort(axis=1)
        # the first that is no copy: after the last one that is much nearer than what follows it
        copies = (near[:, :-1] <= ratio * near[:, 1:]) | (near[:, :-1] <= SAME)
        copies[:, TWINS:] = False
        looked = other.sum(axis=1, keepdims=True)
        # of the last one nothing can be said
        copies &= (np.arange(copies.shape[1]) < looked - 1)[:, :, None]
        last = copies.shape[1] - copies[:, ::-1].argmax(axis=1)
        first = np.where(copies.any(axis=1), last, 0)
        return np.take_along_axis(near, first[:, None], axis=1)[:, 0]


def colourless(pixels: np.ndarray) -> np.ndarray:
    """Which pictures, uint8 [P, H, W, 3], are grey: bool [P]."""
    red, green, blue = np.moveaxis(pixels, 3, 0)  # numpy's max over three values takes ten times it
    levels = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return levels.mean(axis=(1, 2)) < COLOURLESS


def thumbnails(pixels: np.ndarray, boxes: np.ndarray | None = None) -> np.ndarray:
    """Parts of pictures as float32 [P, D] of zero mean and unit length; zeros where blank.

    Args:
        pixels: [P, H, W, 3], or [P, H, W] for grey ones.
        boxes: float [P, 4], as `resample` takes them; without them whole pictures.
    """
    boxes = np.tile(WHOLE, (len(pixels), 1)) if boxes is None else boxes
    values = resample(pixels, boxes, THUMBNAIL).reshape(len(pixels), -1)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > BLANK, values / length.clip(BLANK), 0).astype(np.float32)


def _in_grey(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails [P, 768] without their colours: float32 [P, 256] of zero mean and unit length."""
    values = thumbnails.reshape(len(thumbnails), -1, 3) @ LUMA
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > FAINT, values / length.clip(FAINT), 0).astype(np.float32)


def squeezed(pixels: np.ndarray, side: int) -> np.ndarray:
    """Whole pictures, uint8 [P, H, W, 3] or [P, H, W], at another size: uint8."""
    if pixels.shape[1:3] == (side, side) or not len(pixels):
        return pixels.reshape(len(pixels), side, side, *pixels.shape[3:])
    # by the filter that makes the small pictures of a crawl: what another leaves would count
    sizes = (Image.fromarray(one).resize((side, side), BICUBIC) for one in pixels)
    return np.stack([np.asarray(image) for image in sizes])


def luma(pixels: np.ndarray) -> np.ndarray:
    """Pictures, uint8 [P, H, W, 3], in grey: uint8 [P, H, W]."""
    return (pixels @ LUMA).round().astype(np.uint8)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What is left of the difference of P pairs of pictures, laid over each other: float32 [P].

    One picture may be a part of the other, lighter or of another contrast, and without its
    colours. 0 is the same picture, 1 nothing in common: the root of the share of the second one's
    variance that the first one does not explain, where they overlap.

    Args:
        a, b: uint8 [P, 32, 32, 3].
    """
    found = np.empty(len(a), np.float32)
    for start in range(0, len(a), BLOCK):
        block = slice(start, start + BLOCK)
        grey = colourless(a[block]) | colourless(b[block])
        one, other = (_softened(pixels[block].astype(np.float32)) for pixels in (a, b))
        lumas = one @ LUMA, other @ LUMA
        where = _aligned(*lumas)
        in_grey = _unexplained(lumas[0][..., None], lumas[1][..., None], where)
        found[block] = np.where(grey, in_grey, _unexplained(one, other, where))
    return found


def _softened(pixels: np.ndarray) -> np.ndarray:
    """Pictures blurred by a binomial filter of five: their sizes may have been changed by any."""
    for axis in (1, 2):
        size = pixels.shape[axis]
        padded = np.pad(pixels, [(2 * (a == axis),) * 2 for a in range(4)], "edge")
        shifted = (padded.take(range(at, at + size), axis) for at in range(5))
        pixels = sum(w * one for w, one in zip(BINOMIAL, shifted, strict=True))
    return pixels


def _aligned(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where each b lies in a, grey pictures [P, 32, 32]: float64 [P, 4], scales then shifts.

    The coordinates of a picture go from -1 to 1. The two best of some dozens of places are refined
    by the method of Gauss and Newton, and the better one counts.
    """
    small_a, small_b = (
        picture.reshape(-1, COARSE, 2, COARSE, 2).mean(axis=(2, 4)) for picture in (a, b)
    )
    fits = np.stack([_fit(small_a, small_b, place[None]) for place in _places()])
    order = np.argsort(-fits, axis=0)
    refined = [_refined(a, b, _places()[order[rank]]) for rank in (0, 1)]
    better = refined[0][1] >= refined[1][1]
    return np.where(better[:, None], refined[0][0], refined[1][0])


@lru_cache
def _places() -> np.ndarray:
    """Where a picture may lie in another, or the other in it: float64 [N, 4]."""
    inside = [
        (size, size, across * (1 - size), down * (1 - size))
        for size in (0.93, 0.86, 0.8)
        for across in (-1, 0, 1)
        for down in (-1, 0, 1)
    ]
    for at in (-0.13, 0.13):  # a caption, which is cut off on one side alone
        inside += [(0.87, 1, at, 0), (1, 0.87, 0, at)]
    around = [(1 / wide, 1 / high, -x / wide, -y / high) for wide, high, x, y in inside]
    return np.array([(1, 1, 0, 0), *inside, *around], np.float64)


def _axes(place: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear weights [P, side, side] of rows and columns, and which of them lie inside."""
    own = (np.arange(side) + 0.5) / side * 2 - 1
    axes = []
    for scale, shift in ((place[:, 1], place[:, 3]), (place[:, 0], place[:, 2])):
        at = (scale[:, None] * own + shift[:, None] + 1) / 2 * side - 0.5
        inside = (at >= -0.5) & (at <= side - 0.5)
        away = np.abs(at.clip(0, side - 1)[:, :, None] - np.arange(side))
        axes += [np.clip(1 - away, 0, None).astype(np.float32), inside.astype(np.float32)]
    return axes[0], axes[1], axes[2], axes[3]


def _centred(pictures: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pictures [P, H, W, …] less the mean of what the mask [P, H, W, …] shows, and 0 elsewhere."""
    shown = mask.sum(axis=(1, 2), keepdims=True).clip(1)
    mean = (pictures * mask).sum(axis=(1, 2), keepdims=True) / shown
    return (pictures - mean) * mask


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of centred pictures [P, …]: float32 [P]; 0 where one of them shows nothing."""
    a, b = (picture.reshape(len(picture), -1) for picture in (a, b))
    inner, of_a, of_b = (np.einsum("pn,pn->p", *pair) for pair in ((a, b), (a, a), (b, b)))
    return inner / np.sqrt((of_a * of_b).clip(1))


def _fit(a: np.ndarray, b: np.ndarray, place: np.ndarray) -> np.ndarray:
    """How well grey pictures [P, S, S] agree at one place [1, 4]: float32 [P]."""
    rows, down, columns, across = _axes(place, a.shape[1])
    mask = down[:, :, None] * across[:, None, :]
    return _correlation(_centred(rows @ a @ columns.swapaxes(1, 2), mask), _centred(b, mask))


def _refined(a: np.ndarray, b: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best place near this one, and how well the pictures agree there."""
    side = a.shape[1]
    own = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    slope_x, slope_y = np.zeros_like(a), np.zeros_like(a)
    slope_x[:, :, 1:-1] = (a[:, :, 2:] - a[:, :, :-2]) * (side / 4)
    slope_y[:, 1:-1] = (a[:, 2:] - a[:, :-2]) * (side / 4)
    best, agree = place, np.full(len(a), -2, np.float32)
    for _ in range(STEPS + 1):
        rows, down, columns, across = _axes(place, side)
        mask = down[:, :, None] * across[:, None, :]
        columns = columns.swapaxes(1, 2)
        shown, wanted = _centred(rows @ a @ columns, mask), _centred(b, mask)
        found = _correlation(shown, wanted)
        found[mask.sum(axis=(1, 2)) < OVERLAP * side**2] = -2
        better = found > agree
        best, agree = np.where(better[:, None], place, best), np.maximum(found, agree)
        power = np.einsum("pij,pij->p", shown, shown).clip(1)
        gain = (np.einsum("pij,pij->p", shown, wanted) / power).clip(0.2, 5)[:, None, None]
        by_x, by_y = rows @ slope_x @ columns * gain, rows @ slope_y @ columns * gain
        parts = np.stack([by_x * own, by_y * own[:, None], by_x, by_y], axis=3)
        parts = _centred(parts, mask[..., None]).reshape(len(a), -1, 4)
        left = (wanted - gain * shown).reshape(len(a), -1, 1)
        normal = parts.swapaxes(1, 2) @ parts
        damping = 1e-3 * (1 + np.trace(normal, axis1=1, axis2=2))
        normal += damping[:, None, None] * np.eye(4, dtype=np.float32)
        step = np.linalg.solve(normal, parts.swapaxes(1, 2) @ left)[:, :, 0]
        place = place + step.clip(-0.1, 0.1)
        place[:, :2] = place[:, :2].clip(LEAST, MOST)
    return best, agree


def _unexplained(a: np.ndarray, b: np.ndarray, place: np.ndarray) -> np.ndarray:
    """float32 [P] of pictures [P, S, S, C]: what one gain, and a shift a channel, leave of b."""
    rows, down, columns, across = _axes(place, a.shape[1])
    mask = (down[:, :, None] * across[:, None, :])[..., None]
    shown = np.moveaxis(
        rows[:, None] @ np.moveaxis(a, 3, 1) @ columns.swapaxes(1, 2)[:, None], 1, 3
    )
    agree = _correlation(_centred(shown, mask), _centred(b, mask)).clip(0, 1)
    return np.sqrt(1 - agree**2)
