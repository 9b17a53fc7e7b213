"""Motion, zoom and sampling that several corruptions share: images float32 [N, S, S, C]."""

import numpy as np
from scipy.ndimage import map_coordinates

REFERENCE = 32  # pixels of the side for which the constants of CIFAR-10-C were chosen


def lengths(images: np.ndarray, pixels: float) -> float:
    """A length at 32 pixels as a length at the size of these images; no less for smaller ones."""
    return pixels * max(1.0, images.shape[1] / REFERENCE)


def sampled(images: np.ndarray, rows: np.ndarray, columns: np.ndarray, beyond: str) -> np.ndarray:
    """The images between pixels, linearly: rows and columns float [N, S, S] → float32 [N, S, S, C].

    Args:
        beyond: what is outside, a mode of `scipy.ndimage`.
    """
    image = np.broadcast_to(np.arange(len(images))[:, None, None], rows.shape)
    where = np.stack([image, rows, columns])
    channels = [
        map_coordinates(images[..., channel], where, order=1, mode=beyond)
        for channel in range(images.shape[3])
    ]
    return np.stack(channels, axis=3)


def zoomed(images: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the images, enlarged linearly to their own size; `factor` is 1 or more."""
    side = images.shape[1]
    centre = (side - 1) / 2
    source = centre + (np.arange(side) - centre) / factor
    weights = np.clip(1 - np.abs(source[:, None] - np.arange(side)), 0, None).astype(np.float32)
    return np.einsum("ij,njkc,lk->nilc", weights, images, weights, optimize=True)


def motion(images: np.ndarray, radius: float, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """Motion blur as ImageMagick's: half a Gaussian, 2 radius + 1 long, in one direction.

    Whole pixels are moved, and the edge goes on outside.

    Args:
        sigma: deviation of the Gaussian in pixels.
        degrees: float [N], direction of the motion.
    """
    side = images.shape[1]
    steps = np.arange(int(2 * radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    image = np.arange(len(images))[:, None, None]
    down, right = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    found = np.zeros_like(images)
    for step, weight in zip(steps, weights.astype(np.float32), strict=True):
        rows, columns = (
            (np.arange(side) + np.rint(step * part)[:, None]).clip(0, side - 1).astype(np.int64)
            for part in (down, right)
        )
        found += weight * images[image, rows[:, :, None], columns[:, None, :]]
    return found
