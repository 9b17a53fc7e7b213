"""Borders of one colour around pictures: letter boxes, frames, the paper around a scan."""

import numpy as np
from PIL import Image

from kd3_pipeline.images import Box

# a line of pixels belongs to the border when all but 2 % of it is within 12 levels of the colour
# of the outermost line, as far as JPEG strays
LEVELS = 12
STRAY = 0.02


def may_have_border(grey: np.ndarray) -> np.ndarray:
    """Mask of the pictures, uint8 [N, S, S], that have an edge of about one colour: bool [N]."""
    edges = np.stack([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    edges = edges.astype(np.int16)
    off = np.abs(edges - np.median(edges, axis=2, keepdims=True)) > LEVELS
    return (off.mean(axis=2) <= 2 * STRAY).any(axis=1)


def inside_border(grey: Image.Image | np.ndarray, box: Box) -> Box:
    """Part inside a picture's border of one colour a side, as shares of `box`.

    Of a picture that is all border nothing is left: right is then not above left, or bottom not
    above top.
    """
    pixels = np.asarray(grey)
    left, top, right, bottom = 0, 0, pixels.shape[1], pixels.shape[0]
    for _ in range(2):  # a pillar box inside a letter box, or the other way round
        rows = pixels[top:bottom, left:right]
        top, bottom = top + _border(rows), bottom - _border(rows[::-1])
        columns = pixels[top:bottom, left:right].T
        left, right = left + _border(columns), right - _border(columns[::-1])
    corner, size = np.array(box[:2]), np.array(box[2:]) - box[:2]
    shares = [(np.array(place) - corner) / size for place in ((left, top), (right, bottom))]
    left, top, right, bottom = np.clip(np.concatenate(shares), 0, 1).tolist()
    return left, top, right, bottom


def _border(lines: np.ndarray) -> int:
    """How many lines, from the first on, are of the first one's colour."""
    if not lines.size:
        return 0
    colour = np.median(lines[0])
    for start in range(0, len(lines), 8):  # a border ends soon, and most pictures have none
        off = np.abs(lines[start : start + 8] - colour) > LEVELS
        inside = np.mean(off, axis=1) > STRAY
        if inside.any():
            return start + int(inside.argmax())
    return len(lines)
