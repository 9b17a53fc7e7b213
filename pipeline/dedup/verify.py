"""Similarity of two pictures by their pixels: normalised correlation of aligned gradient fields.

A hash says which pictures may be copies, this says which are. Brightness, contrast, colour and
compression leave the direction of edges as it is, so the pictures are compared by that: fields of
gradient vectors of about unit length, one cut smaller and slid over the other by Fourier
correlation, normalised as in Lewis, Fast Normalized Cross-Correlation (1995).
"""

import math
from functools import lru_cache

import numpy as np
import scipy.fft

GRID = 32  # pixels a side at which edges are compared: at 64 a crop by 2% already misses them
BLUR = 0.75  # standard deviation of the Gaussian, in pixels of the grid
NOISE = 4.0  # differences of grey levels that are well below this count for little
FAINT = 0.05  # length of the field of one pixel that is one grey level off: rounding has 1e-4
MARGIN = 1  # pixels cut off all round, so that a picture of full size can be shifted too
# height and width of the smaller picture: crops of up to 19% of a side, and of one side alone,
# which is what a caption below the picture comes to
SIZES = (
    *((side, side) for side in range(32, 25, -1)),
    *((32, 29), (32, 26), (29, 32), (26, 32)),
)
BLOCK = 256  # pairs at once: 60 MB
WHOLE = np.array([0, 0, 1, 1], np.float32)  # the box that leaves nothing out
Fields = np.ndarray  # complex64 [P, H, W]: the gradient to the right, and down as imaginary part


def similarity(
    grey_a: np.ndarray,
    trim_a: np.ndarray,
    grey_b: np.ndarray,
    trim_b: np.ndarray,
    mirrored: bool = True,
) -> np.ndarray:
    """How well the edges of P pairs of pictures agree, at the best alignment.

    The best of: the whole pictures, their trimmed parts where one has a border, and, if
    `mirrored`, one whole picture mirrored. Either may be a crop of the other, down to 81% of its
    height and width. The same picture gives 1, others mostly under 0.6, and one without any
    edges 0 with all.

    Args:
        grey_a, grey_b: uint8 [P, 64, 64], whole pictures squashed to a square.
        trim_a, trim_b: float [P, 4], left, top, right and bottom of the parts without a border,
            as shares of width and height.

    Returns:
        float32 [P] in -1..1, the same within 1e-4 when a and b change places.
    """
    return alignment(grey_a, trim_a, grey_b, trim_b, mirrored)[0]


def alignment(
    grey_a: np.ndarray,
    trim_a: np.ndarray,
    grey_b: np.ndarray,
    trim_b: np.ndarray,
    mirrored: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """As `similarity`, and the place of a's pixels in b at which the edges agree so well.

    Returns:
        float32 [P], and float32 [P, 2, 3]: (x, y, 1) of a, in shares of width and height, to
        (x, y) of b.
    """
    best = np.empty(len(grey_a), np.float32)
    places = np.empty((len(grey_a), 2, 3), np.float32)
    for start in range(0, len(best), BLOCK):
        block = slice(start, start + BLOCK)
        a, b = grey_a[block].astype(np.float32), grey_b[block].astype(np.float32)
        best[block], places[block] = _aligned(a, b, mirrored)
        boxes = np.stack([trim_a[block], trim_b[block]])
        bordered = np.flatnonzero((boxes != WHOLE).any(axis=(0, 2)))
        if len(bordered):
            a, b = (
                resample(grey[bordered], box[bordered], grey.shape[1])
                for grey, box in zip((a, b), boxes, strict=True)
            )
            found, inner = _aligned(a, b, mirrored=False)
            better = found > best[start + bordered]
            rows = start + bordered[better]
            best[rows] = found[better]
            places[rows] = _outside(inner[better], trim_a[rows], trim_b[rows])
    return best.clip(-1, 1), places


def _outside(places: np.ndarray, box_a: np.ndarray, box_b: np.ndarray) -> np.ndarray:
    """Places between two boxes as places between the pictures that they are cut from."""
    size_a, size_b = (box[:, 2:] - box[:, :2] for box in (box_a, box_b))
    moved = places.copy()
    moved[:, :, :2] *= size_b[:, :, None] / size_a[:, None, :]
    shifts = box_b[:, :2] + size_b * places[:, :, 2]
    moved[:, :, 2] = shifts - np.einsum("pij,pj->pi", moved[:, :, :2], box_a[:, :2])
    return moved


def resample(pictures: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """Parts of pictures at another size, antialiased by a triangular filter.

    Args:
        pictures: uint8 or float32 [P, H, W] or [P, H, W, C].
        boxes: float [P, 4], left, top, right and bottom as shares of width and height.

    Returns:
        float32 [P, side, side] or [P, side, side, C].
    """
    count, height, width, *channels = pictures.shape
    depth = math.prod(channels)
    rows = _triangles(boxes[:, 1], boxes[:, 3], height, side)
    columns = _triangles(boxes[:, 0], boxes[:, 2], width, side)
    scaled = rows @ pictures.reshape(count, height, width * depth).astype(np.float32)
    scaled = scaled.reshape(count, side, width, depth).swapaxes(1, 2)
    scaled = columns @ scaled.reshape(count, width, side * depth)
    scaled = scaled.reshape(count, side, side, depth).swapaxes(1, 2)
    return scaled.reshape(count, side, side, *channels)


def _triangles(first: np.ndarray, last: np.ndarray, pixels: int, side: int) -> np.ndarray:
    """float32 [P, side, pixels]: the weights that scale first..last (shares) to `side` pixels."""
    step = (last - first)[:, None] * pixels / side
    centre = first[:, None] * pixels + step * (np.arange(side) + 0.5)
    away = np.abs(np.arange(pixels) + 0.5 - centre[:, :, None])
    weights = np.clip(1 - away / np.maximum(step, 1)[:, :, None], 0, None).astype(np.float32)
    return weights / weights.sum(axis=2, keepdims=True)


def _aligned(a: np.ndarray, b: np.ndarray, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """The best normalised correlation of float32 [P, 64, 64] pairs over all `SIZES` and shifts.

    Returns:
        float32 [P], and the places of a's pixels in b: float32 [P, 2, 3].
    """
    whole_a, whole_b = (_fields(picture, GRID, GRID) for picture in (a, b))
    best = np.full(len(a), -1, np.float32)
    places = np.zeros((len(a), 2, 3), np.float32)
    places[:, 0, 0] = places[:, 1, 1] = 1
    for picture, other, swapped in ((a, whole_b, False), (b, whole_a, True)):
        targets = [_spectrum(other), _spectrum(_mirror(other))][: 1 + mirrored]
        for height, width in SIZES:
            part = _fields(picture, height, width)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
            transformed = scipy.fft.fft2(part, s=(GRID, GRID)).conj()
            length = np.sqrt(_power(part).sum(axis=(1, 2)))
            for flipped, (spectrum, power) in enumerate(targets):
                found, down, right = _correlate(
                    transformed, length, part.shape[1:], spectrum, power
                )
                better = np.flatnonzero(found > best)
                best[better] = found[better]
                shifts = right[better], down[better]
                places[better] = _place((width, height), shifts, bool(flipped), swapped)
    return best, places


def _place(
    size: tuple[int, int], shifts: tuple[np.ndarray, np.ndarray], flipped: bool, swapped: bool
) -> np.ndarray:
    """Places float32 [P, 2, 3] of a's pixels in b, of which one was scaled and slid.

    Args:
        size: width and height of the smaller picture, b's if `swapped`, else a's.
        shifts: int64 [P] across and down.
        flipped: the larger one was mirrored.
    """
    places = np.zeros((len(shifts[0]), 2, 3), np.float32)
    for axis, (side, shift) in enumerate(zip(size, shifts, strict=True)):
        # pixel p of the smaller picture lies on pixel p - MARGIN + shift of the larger one
        scale, offset = side / GRID, (shift - MARGIN) / GRID
        if flipped and axis == 0:
            scale, offset = -scale, 1 - offset
        if swapped:
            scale, offset = 1 / scale, -offset / scale
        places[:, axis, axis], places[:, axis, 2] = scale, offset
    return places


def _correlate(
    transformed: np.ndarray,
    length: np.ndarray,
    shape: tuple[int, ...],
    spectrum: np.ndarray,
    power: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best over all places where a part of this `shape` lies inside.

    Returns:
        float32 [P], and how far down and right that is: int64 [P].
    """
    height, width = shape
    down, right = power.shape[1] - height, power.shape[2] - width
    # only these few shifts of the inverse transform are wanted: two thin products make them
    product = (transformed * spectrum).reshape(-1, GRID) @ _waves(right).T
    product = product.reshape(-1, GRID, right)
    waves = _waves(down)
    inner = waves.real @ product.real - waves.imag @ product.imag
    inside = power[:, height:, width:] - power[:, :-height, width:]
    inside += power[:, :-height, :-width] - power[:, height:, :-width]
    lengths = np.sqrt(inside.clip(FAINT**2)) * length.clip(FAINT)[:, None, None]
    seen = (inside > FAINT**2) & (length > FAINT)[:, None, None]
    values = np.where(seen, inner / lengths, 0).reshape(len(inner), down * right)
    place = values.argmax(axis=1)
    return np.take_along_axis(values, place[:, None], 1)[:, 0], *np.divmod(place, right)


def _fields(pictures: np.ndarray, height: int, width: int) -> Fields:
    """Gradients [P, height - 2, width - 2] of pictures scaled to this size."""
    side = pictures.shape[1]
    scaled = _gaussians(height, side) @ pictures @ _gaussians(width, side).T
    across = scaled[:, 1:-1, 2:] - scaled[:, 1:-1, :-2]
    down = scaled[:, 2:, 1:-1] - scaled[:, :-2, 1:-1]
    fields = np.empty(across.shape, np.complex64)
    unit = 1 / np.sqrt(across**2 + down**2 + np.float32(NOISE**2))
    fields.real, fields.imag = across * unit, down * unit
    return fields


def _mirror(fields: Fields) -> Fields:
    """The fields of the mirrored pictures."""
    return -fields[:, :, ::-1].conj()


def _spectrum(fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """The Fourier transform, and the power summed over all above and left of each corner."""
    count, height, width = fields.shape
    power = np.zeros((count, height + 1, width + 1))
    _power(fields).cumsum(axis=1).cumsum(axis=2, out=power[:, 1:, 1:])
    return scipy.fft.fft2(fields, s=(GRID, GRID)), power


def _power(fields: Fields) -> np.ndarray:
    return fields.real.astype(np.float64) ** 2 + fields.imag.astype(np.float64) ** 2


@lru_cache
def _gaussians(size: int, pixels: int) -> np.ndarray:
    """float32 [size, pixels]: the weights that blur and scale `pixels` to `size`."""
    step = pixels / size
    centre = step * (np.arange(size)[:, None] + 0.5)
    weights = np.exp(-0.5 * ((np.arange(pixels) + 0.5 - centre) / (BLUR * step)) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache
def _waves(shifts: int) -> np.ndarray:
    """complex64 [shifts, GRID]: the first rows of the inverse Fourier transform."""
    turns = np.outer(np.arange(shifts), np.arange(GRID)) / GRID
    return (np.exp(2j * np.pi * turns) / GRID).astype(np.complex64)
