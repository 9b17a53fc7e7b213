"""Common corruptions: the 15 of Hendrycks and Dietterich (ICLR 2019), drawn on the fly.

Kinds, definitions and the constants of the five severities are those of CIFAR-10-C, made for 32
pixels; on larger images lengths in pixels grow with the side. The pixels are not those of the
published files, which depend on the random numbers and the libraries of their day. Known
departures: `frost` is laid over from a procedural texture, where the original takes photographs;
values are rounded, not cut off. In `glass_blur` a pixel takes the value of a near one, as in the
published images: their code means to swap the two, but swaps views of one array.

Random numbers come from Philox (Salmon et al., SC 2011), a counter-based generator, by seed, kind,
severity and number of the image, so that they depend neither on the batch nor on the order.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import correlate, gaussian_filter

from kd3_pipeline.evaluate.warp import lengths, motion, sampled, zoomed
from kd3_pipeline.evaluate.weather import fog, frost, snow

SEVERITIES = (1, 2, 3, 4, 5)
Rngs = Sequence[np.random.Generator]


def corrupted(
    pixels: np.ndarray, kind: str, severity: int, seed: int = 0, first: int = 0
) -> np.ndarray:
    """Corrupted copies of images: uint8 [N, S, S, 3] → uint8 [N, S, S, 3].

    Args:
        kind: a key of `KINDS`.
        severity: 1 to 5.
        first: number of the first of these images in its test set.

    Raises:
        KeyError: no such kind.
    """
    make, constants = KINDS[kind]
    place = list(KINDS).index(kind)
    rngs = [
        np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, image, place, severity]))
        for image in range(first, first + len(pixels))
    ]
    found = make(pixels.astype(np.float32) / 255, constants[severity - 1], rngs)
    return (255 * found.clip(0, 1)).round().astype(np.uint8)


def corruption_error(
    rows: Sequence[tuple[str, int, float, float]],
) -> dict[str, float | None] | None:
    """Mean error of both networks under corruption, from (kind, severity, teacher, student).

    Args:
        rows: the last two are accuracies, 0 to 1.

    Returns:
        teacher and student: mean error over kinds and severities; relative: the student's mCE as
        Hendrycks and Dietterich define it, with the teacher in the place of AlexNet, which is 100
        times the mean over kinds of the ratio of errors summed over severities. Kinds in which the
        teacher never errs have no ratio; None where that is all. None without rows.
    """
    if not rows:
        return None
    errors = {kind: np.zeros(2) for kind, *_ in rows}
    for kind, _, *accuracies in rows:
        errors[kind] += 1 - np.array(accuracies)
    teacher, student = np.array(list(errors.values())).T
    ratios = student[teacher > 0] / teacher[teacher > 0]
    return {
        "teacher": round(float(teacher.sum()) / len(rows), 4),
        "student": round(float(student.sum()) / len(rows), 4),
        "relative": round(100 * float(ratios.mean()), 1) if len(ratios) else None,
    }


def _gaussian_noise(images: np.ndarray, deviation: float, rngs: Rngs) -> np.ndarray:
    return images + np.stack([rng.normal(0, deviation, images.shape[1:]) for rng in rngs])


def _shot_noise(images: np.ndarray, photons: float, rngs: Rngs) -> np.ndarray:
    pairs = zip(images, rngs, strict=True)
    return np.stack([rng.poisson(image * photons) for image, rng in pairs]) / photons


def _impulse_noise(images: np.ndarray, share: float, rngs: Rngs) -> np.ndarray:
    draws = np.stack([rng.random(images.shape[1:]) for rng in rngs])
    return np.where(draws < share, draws < share / 2, images)


def _defocus_blur(images: np.ndarray, optics: tuple[float, float], rngs: Rngs) -> np.ndarray:
    radius, alias = optics
    radius = lengths(images, radius)
    reach = int(radius) + 1
    away = np.arange(-reach, reach + 1)
    disk = (away[:, None] ** 2 + away**2 <= radius**2).astype(np.float32)
    disk = gaussian_filter(disk / disk.sum(), alias, radius=1, mode="constant")
    return correlate(images, (disk / disk.sum())[None, :, :, None], mode="mirror")


def _glass_blur(images: np.ndarray, glass: tuple[float, int, int], rngs: Rngs) -> np.ndarray:
    sigma, reach, times = glass
    sigma, reach = lengths(images, sigma), max(1, round(lengths(images, reach)))
    side = images.shape[1]
    moves = np.stack([rng.integers(-reach, reach, (2, times, side, side)) for rng in rngs], axis=1)
    moves[..., : reach + 1, :] = moves[..., : reach + 1] = 0
    image, place = np.arange(len(images))[:, None, None], np.arange(side)
    seen = gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    for time in range(times):
        rows = (place[:, None] + moves[0, :, time]).clip(max=side - 1)
        columns = (place + moves[1, :, time]).clip(max=side - 1)
        seen = seen[image, rows, columns]
    return gaussian_filter(seen, (0, sigma, sigma, 0), mode="nearest")


def _motion_blur(images: np.ndarray, lens: tuple[float, float], rngs: Rngs) -> np.ndarray:
    radius, sigma = (lengths(images, value) for value in lens)
    return motion(images, radius, sigma, np.array([rng.uniform(-45, 45) for rng in rngs]))


def _zoom_blur(images: np.ndarray, steps: int, rngs: Rngs) -> np.ndarray:
    factors = [1 + 0.01 * step for step in range(steps)]
    return (images + sum(zoomed(images, factor) for factor in factors)) / (steps + 1)


def _brightness(images: np.ndarray, more: float, rngs: Rngs) -> np.ndarray:
    # more of the value of HSV at the same hue and saturation is a factor for red, green and blue
    value = images.max(axis=3, keepdims=True)
    wanted = (value + more).clip(0, 1)
    return np.where(value > 0, images * (wanted / np.maximum(value, 1e-9)), wanted)


def _contrast(images: np.ndarray, share: float, rngs: Rngs) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (images - mean) * share + mean


def _elastic(images: np.ndarray, cloth: tuple[float, float, float], rngs: Rngs) -> np.ndarray:
    push, sigma, tilt = (value * images.shape[1] for value in cloth)
    side = images.shape[1]
    centre, arm = side // 2, side // 3
    corners = np.array([(arm, arm), (arm, -arm), (-arm, -arm)]) + centre
    moved, across, down = [], [], []
    for rng in rngs:
        moved.append(corners + rng.uniform(-tilt, tilt, corners.shape))
        across.append(rng.uniform(-1, 1, (side, side)))
        down.append(rng.uniform(-1, 1, (side, side)))
    ones = np.ones((len(images), 3, 1))
    affine = np.linalg.solve(np.concatenate([moved, ones], axis=2), corners[None])
    rows, columns = np.mgrid[:side, :side]
    grid = np.stack([columns, rows, np.ones_like(rows)], axis=2).reshape(1, -1, 3)
    x, y = (grid @ affine).reshape(-1, side, side, 2).transpose(3, 0, 1, 2)
    tilted = sampled(images, y, x, "mirror")
    smooth = {"sigma": (0, sigma, sigma), "mode": "reflect", "truncate": 3}
    x, y = (push * gaussian_filter(np.stack(by), **smooth) for by in (across, down))
    return sampled(tilted, rows + y, columns + x, "reflect")


def _pixelate(images: np.ndarray, share: float, rngs: Rngs) -> np.ndarray:
    side = images.shape[1]
    small = (int(side * share),) * 2
    box = Image.Resampling.BOX
    return _by_pillow(images, lambda image: image.resize(small, box).resize((side, side), box))


def _jpeg(images: np.ndarray, quality: int, rngs: Rngs) -> np.ndarray:
    def through(image: Image.Image) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Image.open(out)

    return _by_pillow(images, through)


def _by_pillow(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    pixels = (255 * images).round().astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(one))) for one in pixels]) / np.float32(255)


# what a kind does to float32 images [N, S, S, 3] from 0 to 1, and its constants by severity
KINDS: dict[str, tuple[Callable[..., np.ndarray], tuple]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    # radius, and the deviation that smooths the disk's edge
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    # deviation of the blur, reach, rounds
    "glass_blur": (
        _glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, (6, 11, 16, 21, 26)),  # steps of 1%
    # mean and deviation of the flakes, zoom, threshold, radius, deviation, share of the image
    "snow": (
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    # shares of the image and of the frost
    "frost": (frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    # thickness, and how fast it gets smooth
    "fog": (fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    # push and its smoothing, tilt: shares of the side
    "elastic_transform": (
        _elastic,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg, (80, 65, 58, 50, 40)),
}
