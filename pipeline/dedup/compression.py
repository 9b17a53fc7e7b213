"""Steps of the compression that a picture has been through: its own file's, and earlier ones."""

from functools import lru_cache

import numpy as np

from kd3_pipeline.picturefile import open_image

BLOCKS = 1500  # 8 x 8 blocks from which the steps of an earlier compression are found
FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1))  # of a block: row, column
STEP_SIZES = np.arange(3, 101)
LARGEST_VALUE = 1020
COMB, NONZERO = 0.6, 40


def table_step(data: bytes) -> float:
    """Mean step of a JPEG's low frequencies, in levels; 0 for other formats."""
    tables = getattr(open_image(data), "quantization", None)  # in rows of 8
    if not tables:
        return 0.0
    return float(np.mean([tables[0][8 * row + column] for row, column in FREQUENCIES]))


def earlier_step(levels: np.ndarray) -> float:
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
