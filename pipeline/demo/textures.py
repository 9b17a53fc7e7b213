"""Colours, light and textured surfaces, all float32 in 0..1; sizes are (width, height)."""

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
CONTRAST = 0.28  # smallest difference in luminance of a shape and its background
SURFACE_CONTRAST = 0.16  # largest deviation of a background from its own colour

Size = tuple[int, int]


def colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.15, 0.9),
    value: tuple[float, float] = (0.15, 0.95),
) -> np.ndarray:
    """A random colour, float32 [3]."""
    hsv = rng.uniform(0, 1), rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32)


def colour_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours, float32 [3] each, at least `CONTRAST` apart in luminance."""
    first = colour(rng)
    for _ in range(40):
        second = colour(rng)
        if abs(float((first - second) @ LUMINANCE)) >= CONTRAST:
            return first, second
    return first, np.full(3, float(first @ LUMINANCE < 0.5), dtype=np.float32)


def coordinates(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """x as float32 [1, width] and y as float32 [height, 1], both from -1 to 1."""
    x = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :]
    return x, np.linspace(-1, 1, size[1], dtype=np.float32)[:, None]


def ramp(size: Size, rng: np.random.Generator) -> np.ndarray:
    """A linear ramp in a random direction, float32 [height, width] in -1..1."""
    x, y = coordinates(size)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return (x * cos + y * sin) / (abs(cos) + abs(sin))


def smooth_noise(size: Size, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with about `cells` bumps along a side, float32 [height, width] in -1..1."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))


def grain(size: Size, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian grey noise, float32 [height, width, 1]."""
    return rng.standard_normal((size[1], size[0], 1), dtype=np.float32) * np.float32(deviation)


def blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask, float32 [height, width] in 0..1, blurred by `radius` pixels."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def blend(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`above` over `below` where `mask` (float32 [height, width]) says so."""
    return below + (above - below) * mask[..., None]


def to_image(pixels: np.ndarray) -> Image.Image:
    """An RGB image of float32 [height, width, 3]; values outside 0..1 are clipped."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def surface(size: Size, base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A textured surface around one colour, float32 [height, width, 3]."""
    field = _FIELDS[rng.integers(len(_FIELDS))](size, rng)
    direction = rng.uniform(0.3, 1, 3).astype(np.float32)
    amount = np.float32(rng.uniform(0.4, 1) * SURFACE_CONTRAST)
    return base + field[..., None] * (direction * amount)


def _rough(size: Size, rng: np.random.Generator) -> np.ndarray:
    return smooth_noise(size, int(rng.integers(6, 16)), rng)


def _blobs(size: Size, rng: np.random.Generator) -> np.ndarray:
    return np.tanh(6 * smooth_noise(size, int(rng.integers(3, 6)), rng))


def _stripes(size: Size, rng: np.random.Generator) -> np.ndarray:
    return np.sin(ramp(size, rng) * np.float32(np.pi * rng.uniform(3, 8)))


def _checks(size: Size, rng: np.random.Generator) -> np.ndarray:
    x, y = coordinates(size)
    waves = np.float32(np.pi * rng.uniform(2, 5))
    return np.tanh(8 * np.sin(x * waves) * np.sin(y * waves))


_FIELDS: tuple[Callable[[Size, np.random.Generator], np.ndarray], ...] = (
    _rough,
    _blobs,
    _stripes,
    _checks,
    ramp,
)
