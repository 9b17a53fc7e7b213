"""Snow, frost and fog of the common corruptions: images float32 [N, S, S, 3] from 0 to 1."""

from collections.abc import Sequence

import numpy as np

from kd3_pipeline.evaluate.warp import lengths, motion, zoomed

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
ICE = np.array([0.80, 0.92, 1.0], np.float32)  # a bluish white
Rngs = Sequence[np.random.Generator]


def snow(images: np.ndarray, flakes: tuple[float, ...], rngs: Rngs) -> np.ndarray:
    """Flakes of thresholded noise, smeared downwards, on a paler image.

    `flakes`: mean and deviation of the noise, zoom, threshold, radius and deviation of the smear,
    and the share of the image that stays as it is.
    """
    mean, deviation, zoom, least, radius, sigma, share = flakes
    noise = np.stack([rng.normal(mean, deviation, images.shape[1:3]) for rng in rngs])
    layer = zoomed(noise[..., None].astype(np.float32), zoom)
    layer = np.where(layer < least, 0, layer).clip(0, 1)
    direction = np.array([rng.uniform(-135, -45) for rng in rngs])
    layer = motion(layer, lengths(images, radius), lengths(images, sigma), direction)
    pale = np.maximum(images, (images @ GREY)[..., None] * 1.5 + 0.5)
    return share * images + (1 - share) * pale + layer + layer[:, ::-1, ::-1]


def frost(images: np.ndarray, shares: tuple[float, float], rngs: Rngs) -> np.ndarray:
    """A texture of ice laid over the image; `shares` of the image and of the ice.

    The original takes its ice from five photographs. This texture is drawn: ridges where two
    fractal landscapes are half high. So errors under frost do not compare with published ones.
    """
    side = images.shape[1]
    ridges = [1 - np.abs(2 * plasma(side, decay, rngs) - 1) for decay in (1.6, 2.2)]
    ice = (ridges[0] * ridges[1])[..., None] * ICE
    return shares[0] * images + shares[1] * ice


def fog(images: np.ndarray, haze: tuple[float, float], rngs: Rngs) -> np.ndarray:
    """A fractal cloud added, then darkened to the brightest value of before.

    `haze`: thickness, and how much smoother the cloud is at half the scale.
    """
    thickness, decay = haze
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    cloud = plasma(images.shape[1], decay, rngs)[..., None]
    return (images + thickness * cloud) * brightest / (brightest + thickness)


def plasma(side: int, decay: float, rngs: Rngs) -> np.ndarray:
    """Fractal landscapes from 0 to 1 by midpoint displacement: float32 [N, side, side].

    Diamond-square (Fournier, Fussell and Carpenter, CACM 1982) on a torus; the displacement falls
    by decay² at half the scale.
    """
    full = 1 << (side - 1).bit_length()
    land = np.zeros((len(rngs), full, full))
    step, height = full, 1.0
    while step > 1:
        half = step // 2

        def bump(height: float = height, points: int = full // step) -> np.ndarray:
            return np.stack([rng.uniform(-height, height, (points, points)) for rng in rngs])

        corners = land[:, ::step, ::step]
        wide = corners + np.roll(corners, -1, axis=2)
        middles = (wide + np.roll(wide, -1, axis=1)) / 4 + bump()
        land[:, half::step, half::step] = middles
        land[:, ::step, half::step] = (wide + middles + np.roll(middles, 1, axis=1)) / 4 + bump()
        tall = corners + np.roll(corners, -1, axis=1)
        land[:, half::step, ::step] = (tall + middles + np.roll(middles, 1, axis=2)) / 4 + bump()
        step, height = half, height / decay**2
    land = land[:, :side, :side]
    low, high = land.min(axis=(1, 2), keepdims=True), land.max(axis=(1, 2), keepdims=True)
    return ((land - low) / (high - low)).astype(np.float32)
