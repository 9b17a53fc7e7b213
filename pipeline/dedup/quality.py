"""Quality of copies: which image of a group that shows one picture is worth keeping.

Pixels alone say little: a frame, a thumbnail blown up and a grey copy have as many as anyone likes.
What counts is how many pixels the picture itself needs, as far as the copies of a group differ in
that. Their spectra are compared at equal frequencies, in cycles a picture: a copy that was small
once lacks what was above its limit then, however large it is now.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import scipy.fft
from PIL import Image

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.dedup.borders import LEVELS, STRAY, inside_border
from kd3_pipeline.images import Box, decode
from kd3_pipeline.picturefile import ImageError, open_image
from kd3_pipeline.strips import PIXELS, levels_of, strips

TRIMMED = 512  # pixels of the longer side, at most, at which borders are looked for
BAR = 0.3  # share of a line that is of the border's colour, at least, where a caption is on it
MOST_CAPTION = 0.35  # of the height, on a bar of the picture's own ground
LEAST_AREA = 0.25  # of the picture, inside its border: else it is a picture on plain ground
THUMB = 24  # side of the pictures that tell which part of one copy is the whole of another
LIKE = 0.9  # correlation from which two of them are one
ROUNDS = 3  # in which the best copy is compared with all others, until none is better
MODELS = 64  # copies of a group, at most, of which one is what the others are compared with
WHOLE_FIRST = 0.001  # correlation that a cut has to gain

LINES = 128  # rows and columns whose spectra are measured
# of frequency bands, in cycles a picture: an eighth of an octave, and one cycle at least
EDGES = np.unique(np.round(2.0 ** np.arange(1.5, 15.1, 0.125)))
CENTRES = np.sqrt(EDGES[:-1] * EDGES[1:])
COMMON = (CENTRES > 2.8) & (CENTRES < 10)  # what every copy still has, by which it is levelled
SHARP_LINES = 0.7  # quantile of lines: of a portrait the ground is out of focus
SURE = 8.0  # cycles up to which every copy is taken to be complete
SPAN = 6.0  # decibels below the best copy at which a frequency counts as lost altogether
SPAN_BEYOND = 5.0  # the same above what a smaller copy can show: filters leak
DECAY = 1.5  # decibels
LOST = 10.0  # decibels by which a spectrum falls that was cut; sharpening comes to less

LARGEST_GRID = 512  # pixels a side of a thumbnail that was blown up by repeating its pixels
ON_GRID = 0.6  # share of all steps between pixels that are then at the grid's lines, at least
ABOVE_CHANCE = 0.2

SIDE = 64  # of the picture whose colours are measured
RIM = 6  # pixels of it left out: what is left of a border has colours of its own
GREY = 0.35  # of the most colourful copy's colour: less is a grey or a tinted one
COLOURED = 2.5  # levels; below it the picture itself has no colour
BLOCKS = 1500  # 8 x 8 blocks from which the steps of an earlier compression are found
FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1))  # of a block: row, column
STEP_SIZES = np.arange(3, 101)
LARGEST_VALUE = 1020
COMB, NONZERO = 0.6, 40

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
    for box in _inner_boxes(grey):
        if box not in boxes:
            boxes.append(box)
    return Measures(
        tuple(_view(image, levels, box) for box in boxes),
        len(data),
        max(_table_step(data), _earlier_step(levels)),
        _digest(image),
    )


def _digest(image: Image.Image) -> bytes:
    """Equal for pictures of equal pixels."""
    found = blake2b(digest_size=16, key=repr(image.size).encode())
    for _, strip in strips(image):
        found.update(strip.tobytes())
    return found.digest()


# the part that is the picture


def _inner_boxes(grey: Image.Image) -> list[tuple[int, int, int, int]]:
    """Parts inside a border and inside a border that may be written on, in pixels."""
    factor = max(1, -(-max(grey.size) // TRIMMED))
    small = grey.reduce(factor)
    shares = [inside_border(small, (0.0, 0.0, *small.size)), _inside_bars(small)]
    shares += _without_caption(small)
    found = []
    for left, top, right, bottom in shares:
        if (right - left) * (bottom - top) < LEAST_AREA or right <= left or bottom <= top:
            continue
        # a line more on each side that was cut: compression mixes the last one with the border
        box = (
            round(left * grey.width) + (factor if left > 0 else 0),
            round(top * grey.height) + (factor if top > 0 else 0),
            round(right * grey.width) - (factor if right < 1 else 0),
            round(bottom * grey.height) - (factor if bottom < 1 else 0),
        )
        if min(box[2] - box[0], box[3] - box[1]) >= 8:
            found.append(box)
    return found


def _inside_bars(grey: Image.Image) -> Box:
    """Part inside bars of one colour a side that may have writing on them, as shares."""
    levels = np.asarray(grey).astype(np.int16)
    left, top, right, bottom = 0, 0, grey.width, grey.height
    for _ in range(2):
        rows = levels[top:bottom, left:right]
        top, bottom = top + _bar(rows), bottom - _bar(rows[::-1])
        columns = levels[top:bottom, left:right].T
        left, right = left + _bar(columns), right - _bar(columns[::-1])
    width, height = grey.size
    return left / width, top / height, right / width, bottom / height


def _without_caption(grey: Image.Image) -> list[Box]:
    """Parts above and below writing on a plain bar, inside their border, as shares.

    They are for pictures on plain ground, of which a bar of the same colour cannot be told.
    """
    levels = np.asarray(grey).astype(np.int16)
    boxes = []
    for upward in (True, False):
        lines = levels[::-1] if upward else levels
        plain = np.mean(np.abs(lines - np.median(lines[0])) > LEVELS, axis=1) <= STRAY
        if not plain[0] or plain.all():
            continue
        written = int(np.argmin(plain))
        after = written + int(np.argmax(plain[written:]))
        if written < after < MOST_CAPTION * len(lines):
            top, bottom = (0, len(lines) - after) if upward else (after, len(lines))
            part = grey.crop((0, top, grey.width, bottom))
            left, up, right, down = inside_border(part, (0.0, 0.0, *part.size))
            scale = part.height / grey.height
            boxes.append(
                (left, top / grey.height + up * scale, right, top / grey.height + down * scale)
            )
    return boxes


def _bar(lines: np.ndarray) -> int:
    """How many lines from the first on are mostly of its colour, if that one is of one colour."""
    if not lines.size:
        return 0
    colour = np.median(lines[0])
    for start in range(0, len(lines), 8):
        off = np.mean(np.abs(lines[start : start + 8] - colour) > LEVELS, axis=1)
        if not start and off[0] > STRAY:
            return 0
        if (off > 1 - BAR).any():
            return start + int((off > 1 - BAR).argmax())
    return len(lines)


# measures of a view


def _view(image: Image.Image, levels: np.ndarray, box: tuple[int, int, int, int]) -> View:
    left, top, right, bottom = box
    part = levels[top:bottom, left:right]
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, box=box).convert("YCbCr")
    thumb = np.asarray(
        small.getchannel(0).resize((THUMB, THUMB), Image.Resampling.BOX), np.float32
    ).ravel()
    thumb = thumb - thumb.mean()
    spectra = [_spectrum(part), _spectrum(part.T)]
    area = image.width * image.height
    return View(
        right - left,
        bottom - top,
        (right - left) * (bottom - top) / area,
        thumb / max(float(np.linalg.norm(thumb)), 1e-6),
        np.array(spectra, np.float32),
        _colour(np.asarray(small, np.float32)[RIM:-RIM, RIM:-RIM].reshape(-1, 3)),
    )


def _spectrum(levels: np.ndarray) -> np.ndarray:
    """Power of the rows by bands, times frequency squared: of photographs about level. Decibels."""
    height, width = levels.shape
    rows = levels[np.linspace(0, height - 1, min(height, LINES)).round().astype(int)]
    rows = rows - rows.mean(axis=1, keepdims=True, dtype=np.float32)
    cycles = np.arange(width // 2 + 1)
    waves = scipy.fft.rfft(rows * np.hanning(width).astype(np.float32), axis=1)
    power = (waves.real**2 + waves.imag**2) * (cycles / width) ** 2
    first = np.searchsorted(cycles, EDGES)
    bands = np.flatnonzero(EDGES[1:] <= min(_grid(levels), width) / 2 + 1)
    found = np.full(len(CENTRES), np.nan)
    if len(bands):
        ends = np.minimum(first[bands + 1], len(cycles))
        sums = np.add.reduceat(power[:, : ends[-1]], first[bands], axis=1)
        sharp = np.quantile(sums / (ends - first[bands]), SHARP_LINES, axis=0)
        found[bands] = 10 * np.log10(np.maximum(sharp, 1e-9))
    return found


def _grid(levels: np.ndarray) -> int:
    """Pixels across from which these were made by repeating them, or the width."""
    width = levels.shape[1]
    height, rows = len(levels), max(1, PIXELS // width)
    sums = np.zeros(width - 1, np.int64)
    for top in range(0, height, rows):
        strip = levels[top : top + rows].astype(np.int16)
        sums += np.abs(np.diff(strip, axis=1)).sum(axis=0, dtype=np.int64)
    steps = sums / height
    total = steps.sum()
    if not total:
        return width
    share = np.sort(steps)[::-1].cumsum() / total
    even = np.arange(1, len(steps) + 1) / len(steps)
    if (share - even).max() < ABOVE_CHANCE:
        return width  # no choice of places has so many of the steps
    places = np.arange(width) + 0.5
    for pixels in range(16, min(round(0.8 * width), LARGEST_GRID)):
        lines = np.diff(np.floor(places * pixels / width)) > 0
        found = steps[lines].sum() / total
        if found > ON_GRID and found - pixels / width > ABOVE_CHANCE:
            return pixels
    return width


def _colour(pixels: np.ndarray) -> float:
    """Deviation of Cb and Cr, float32 [P, 3] of YCbCr, from a curve over brightness.

    A grey copy has none, and neither has one in sepia or any other tint.
    """
    bright = pixels[:, 0] / 255
    terms = np.stack([np.ones_like(bright), bright, bright**2], axis=1)
    curve, *_ = np.linalg.lstsq(terms, pixels[:, 1:], rcond=None)
    return float(np.sqrt(np.mean(np.sum((pixels[:, 1:] - terms @ curve) ** 2, axis=1))))


# compression


def _table_step(data: bytes) -> float:
    """Mean step of a JPEG's low frequencies, in levels; 0 for other formats."""
    tables = getattr(open_image(data), "quantization", None)  # in rows of 8
    if not tables:
        return 0.0
    return float(np.mean([tables[0][8 * row + column] for row, column in FREQUENCIES]))


def _earlier_step(levels: np.ndarray) -> float:
    """Mean step of low frequencies that a picture shows on the grid of its 8 x 8 blocks.

    A JPEG that was saved anew, as PNG or with finer steps, still has coefficients that are
    multiples of the first ones.
    """
    height, width = (side // 8 for side in levels.shape)
    if height * width < NONZERO:
        return 0.0
    grid = levels[: 8 * height, : 8 * width].reshape(height, 8, width, 8).swapaxes(1, 2)
    some = np.arange(0, height * width, max(1, height * width // BLOCKS))
    blocks = grid[some // width, some % width].astype(np.float64)
    k = np.arange(8)
    waves = np.cos(np.pi * (2 * k + 1) * k[:, None] / 16) / 2
    waves[0] /= np.sqrt(2)
    found = waves @ blocks @ waves.T
    return float(np.mean([_step(found[:, row, column]) for row, column in FREQUENCIES]))


def _step(values: np.ndarray) -> float:
    """Largest step of which all values are about multiples, or 0."""
    counts = np.bincount(np.minimum(np.abs(np.round(values)), LARGEST_VALUE).astype(np.int64))
    counts = np.pad(counts, (0, LARGEST_VALUE + 1 - len(counts)))
    agree, some = _combs() @ counts, np.cumsum(counts[::-1])[::-1][STEP_SIZES // 2 + 1]
    found = np.flatnonzero((some >= NONZERO) & (agree > COMB * some))
    return float(STEP_SIZES[found[-1]]) if len(found) else 0.0


@lru_cache
def _combs() -> np.ndarray:
    """float32 [steps, values]: 1 at multiples of the step, -1 between; 0 up to half the step."""
    values = np.arange(LARGEST_VALUE + 1)
    waves = np.cos(2 * np.pi * values / STEP_SIZES[:, None])
    return np.where(values > STEP_SIZES[:, None] // 2, waves, 0).astype(np.float32)


# copies of one picture


def score(copies: Sequence[Measures]) -> Score:
    """Scores of copies that show one picture; those of two groups are not to be compared."""
    if not copies:
        nothing = np.empty(0)
        return Score(nothing, nothing, nothing, np.empty(0, bool))
    views = _same_parts(copies)
    sides = np.array([(view.width, view.height) for view in views], np.float64)
    spectra = np.array([view.spectra for view in views])
    needed = np.stack([_needed(spectra[:, axis], sides[:, axis]) for axis in (0, 1)], axis=1)
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


def _needed(spectra: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Pixels along an axis that copies need: float64 [M].

    Args:
        spectra: [M, bands], in decibels.
        sides: [M], the pixels that they have.
    """
    levels = spectra - _mean(spectra[:, COMMON], axis=1)[:, None]
    known = np.isfinite(levels)
    best = np.where(known, levels, -np.inf).max(axis=0)
    shown = known.sum(axis=0) > 1  # by two copies, so that it is known what there is to see
    usual = best.copy()
    for band in np.flatnonzero(CENTRES > SURE):
        usual[band] = max(best[band], np.median(usual[max(0, band - 8) : band]) - DECAY)
    # beyond what the smaller copies can show the picture is taken to go on as it did
    best = np.where(shown, best, usual)
    below = np.where(known, levels - best, -np.inf)
    kept = np.clip(1 + below / np.where(shown, SPAN, SPAN_BEYOND), 0, 1)
    worst = np.where(known & shown, below, np.inf)
    worst = np.minimum.accumulate(worst[:, ::-1], axis=1)[:, ::-1]
    kept[known & shown & (worst > -LOST)] = 1  # one is sharpened rather than the other cut
    kept[:, CENTRES < SURE] = 1
    # once lost, what comes above it is noise, or the edges of enlarged pixels
    smooth = np.maximum(kept, np.pad(kept, ((0, 0), (0, 1)))[:, 1:])
    kept = np.minimum(kept, np.minimum.accumulate(smooth, axis=1))
    # the part of a band up to the limit of a copy is as what is below it
    kept = np.where(known, kept, np.pad(kept, ((0, 0), (1, 0)))[:, :-1])
    widths = np.clip(np.minimum(EDGES[1:], sides[:, None] / 2) - EDGES[:-1], 0, None)
    return np.minimum(2 * (EDGES[0] + (kept * widths).sum(axis=1)), sides)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Means of what is no NaN, 0 of nothing."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=axis)
    return total / np.maximum(known.sum(axis=axis), 1)
