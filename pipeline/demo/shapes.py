"""The ten shapes of the demo world: outlines, placement in a frame, and anti-aliased masks."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

CLASS_NAMES: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "heart",
    "moon",
    "arrow",
    "hexagon",
    "ring",
)

EXTENT_RANGE = (0.52, 0.85)  # longest side of the shape over the shorter side of the frame
STRETCH = 0.08  # relative width change of a drawn shape, either way
SHEAR = 0.08
OUTLINE_POINTS = 72  # of a curve
# Half-width of the rotation range in degrees; beyond it some shapes turn into their neighbours.
ROTATION_LIMITS: tuple[float, ...] = (180, 28, 32, 180, 24, 32, 180, 180, 30, 180)

Contour = np.ndarray  # float64 [n, 2], x to the right and y down, closed


def outline(label: int, rng: np.random.Generator) -> list[Contour]:
    """One instance of a class: its outer contour and then its holes, centred in the unit square.

    Contours are float64 [n, 2] with the longest side of their box equal to 1.
    """
    return _fitted(_OUTLINES[CLASS_NAMES[label]](rng))


def placed(
    label: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    extent: tuple[float, float] = EXTENT_RANGE,
) -> list[Contour]:
    """An instance of a class, rotated, sheared, scaled and moved inside a frame.

    `size` is (width, height) in pixels, `extent` the range of the longest side over the shorter
    side of the frame. Returns contours in pixels, float64 [n, 2], all inside the frame.
    """
    angle = np.deg2rad(rng.uniform(-1, 1) * ROTATION_LIMITS[label])
    cos, sin = np.cos(angle), np.sin(angle)
    stretch = 1 + rng.uniform(-STRETCH, STRETCH)
    skew = np.array([[stretch, rng.uniform(-SHEAR, SHEAR)], [0.0, 1.0]])
    matrix = skew @ np.array([[cos, -sin], [sin, cos]])
    contours = _fitted([contour @ matrix.T for contour in outline(label, rng)])
    side = rng.uniform(*extent) * min(size)
    slack = np.array(size) - side
    centre = np.array(size) / 2 + rng.uniform(-0.5, 0.5, 2) * slack * 0.8
    return [(contour - 0.5) * side + centre for contour in contours]


def wobbled(contours: list[Contour], amount: float, rng: np.random.Generator) -> list[Contour]:
    """The contours as an unsteady hand draws them; `amount` is the deviation in pixels."""
    return [_wobbled(contour, amount, rng) for contour in contours]


def filled(contours: list[Contour], size: tuple[int, int]) -> np.ndarray:
    """Coverage of the shape, float32 [height, width] in 0..1, anti-aliased."""
    scale = _supersampling(size)
    canvas = Image.new("L", (size[0] * scale, size[1] * scale))
    draw = ImageDraw.Draw(canvas)
    for index, contour in enumerate(contours):
        draw.polygon((contour * scale).ravel().tolist(), fill=0 if index else 255)
    return _reduced(canvas, scale)


def stroked(contours: list[Contour], size: tuple[int, int], width: float) -> np.ndarray:
    """Coverage of a pen of `width` pixels along the contours, float32 [height, width] in 0..1."""
    scale = _supersampling(size)
    canvas = Image.new("L", (size[0] * scale, size[1] * scale))
    draw = ImageDraw.Draw(canvas)
    pen = max(1, round(width * scale))
    for contour in contours:
        # The second point again, so that the joint at the closing point is rounded as well.
        path = np.concatenate([contour, contour[:2]]) * scale
        draw.line(path.ravel().tolist(), fill=255, width=pen, joint="curve")
    return _reduced(canvas, scale)


def _supersampling(size: tuple[int, int]) -> int:
    return 4 if max(size) <= 64 else 2


def _reduced(canvas: Image.Image, scale: int) -> np.ndarray:
    return np.asarray(canvas.reduce(scale), dtype=np.float32) / 255


def _fitted(contours: list[Contour]) -> list[Contour]:
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    side = (high - low).max()
    return [(contour - (low + high) / 2) / side + 0.5 for contour in contours]


def _wobbled(contour: Contour, amount: float, rng: np.random.Generator) -> Contour:
    closed = np.concatenate([contour, contour[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    # The corners stay in the path, or the shape would lose its points.
    at = np.unique(np.concatenate([np.linspace(0, along[-1], OUTLINE_POINTS + 1), along]))[:-1]
    points = np.stack([np.interp(at, along, closed[:, axis]) for axis in (0, 1)], axis=1)
    phase = 2 * np.pi * at / along[-1]
    for wave in (2, 3, 5, 9):
        shift = rng.uniform(0, 2 * np.pi, 2)
        points += amount / np.sqrt(wave) * np.sin(wave * phase[:, None] + shift)
    return points


def _arc(start: float, stop: float, points: int = OUTLINE_POINTS) -> np.ndarray:
    angles = np.linspace(start, stop, points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(corners: int) -> Contour:
    return _arc(-np.pi / 2, 1.5 * np.pi, corners + 1)[:-1]


def _circle(rng: np.random.Generator) -> list[Contour]:
    return [_regular(OUTLINE_POINTS)]


def _square(rng: np.random.Generator) -> list[Contour]:
    side = rng.uniform(0.88, 1.0)
    return [np.array([[-1, -side], [1, -side], [1, side], [-1, side]])]


def _triangle(rng: np.random.Generator) -> list[Contour]:
    apex, height = rng.uniform(-0.4, 0.4), rng.uniform(1.3, 2.1)
    return [np.array([[apex, -height / 2], [1, height / 2], [-1, height / 2]])]


def _star(rng: np.random.Generator) -> list[Contour]:
    points = (4, 5, 5, 5, 5, 5, 5, 6, 6)[rng.integers(9)]
    inner = rng.uniform(*{4: (0.32, 0.42), 5: (0.36, 0.5), 6: (0.45, 0.56)}[points])
    corners = _regular(2 * points)
    corners[1::2] *= inner
    return [corners]


def _cross(rng: np.random.Generator) -> list[Contour]:
    arm = rng.uniform(0.2, 0.38)
    lift = rng.choice((0.0, 0.0, rng.uniform(0.1, 0.35)))  # a third of them are Latin crosses
    top, bottom = -arm - lift, arm - lift
    half = 1 - 0.5 * lift
    points = [(-arm, -1), (arm, -1), (arm, top), (half, top), (half, bottom), (arm, bottom)]
    points += [(arm, 1), (-arm, 1), (-arm, bottom), (-half, bottom), (-half, top), (-arm, top)]
    return [np.array(points)]


def _heart(rng: np.random.Generator) -> list[Contour]:
    t = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([x * rng.uniform(0.85, 1.1), -y], axis=1)]


def _moon(rng: np.random.Generator) -> list[Contour]:
    radius, offset = rng.uniform(0.72, 0.92), rng.uniform(0.4, 0.6)
    tip_x = (1 - radius**2 + offset**2) / (2 * offset)  # where the two circles cross
    tip_y = np.sqrt(1 - tip_x**2)
    outer = np.arctan2(tip_y, tip_x)
    inner = np.arctan2(tip_y, tip_x - offset)
    back = _arc(2 * np.pi - inner, inner, OUTLINE_POINTS // 2) * radius + (offset, 0)
    return [np.concatenate([_arc(outer, 2 * np.pi - outer), back[1:-1]])]


def _arrow(rng: np.random.Generator) -> list[Contour]:
    shaft, head, wing = rng.uniform(0.14, 0.26), rng.uniform(0.0, 0.35), rng.uniform(0.5, 0.75)
    notch = rng.uniform(0, 0.15)
    points = [(-1, -shaft), (head, -shaft), (head - notch, -wing), (1, 0)]
    points += [(head - notch, wing), (head, shaft), (-1, shaft)]
    return [np.array(points)]


def _hexagon(rng: np.random.Generator) -> list[Contour]:
    return [_regular(6)]


def _ring(rng: np.random.Generator) -> list[Contour]:
    return [_regular(OUTLINE_POINTS), _regular(OUTLINE_POINTS) * rng.uniform(0.45, 0.72)]


_OUTLINES: dict[str, Callable[[np.random.Generator], list[Contour]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "moon": _moon,
    "arrow": _arrow,
    "hexagon": _hexagon,
    "ring": _ring,
}
