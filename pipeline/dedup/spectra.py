"""Spectra of copies of one picture, and the pixels that each of them needs for what it shows."""

import numpy as np
import scipy.fft

from kd3_pipeline.strips import PIXELS

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


def spectrum(levels: np.ndarray) -> np.ndarray:
    """Power of the rows by bands, times frequency squared: of photographs about level. Decibels."""
    height, width = levels.shape
    rows = levels[np.linspace(0, height - 1, min(height, LINES)).round().astype(int)]
    rows = rows - rows.mean(axis=1, keepdims=True, dtype=np.float32)
    cycles = np.arange(width // 2 + 1)
    waves = scipy.fft.rfft(rows * np.hanning(width).astype(np.float32), axis=1)
    power = (waves.real**2 + waves.imag**2) * (cycles / width) ** 2
    first = np.searchsorted(cycles, EDGES)
    bands = np.flatnonzero(EDGES[1:] <= min(grid_of(levels), width) / 2 + 1)
    found = np.full(len(CENTRES), np.nan)
    if len(bands):
        ends = np.minimum(first[bands + 1], len(cycles))
        sums = np.add.reduceat(power[:, : ends[-1]], first[bands], axis=1)
        sharp = np.quantile(sums / (ends - first[bands]), SHARP_LINES, axis=0)
        found[bands] = 10 * np.log10(np.maximum(sharp, 1e-9))
    return found


def grid_of(levels: np.ndarray) -> int:
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


def needed_pixels(spectra: np.ndarray, sides: np.ndarray) -> np.ndarray:
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
