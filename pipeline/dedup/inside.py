"""Parts of a copy that may be the picture: what is inside its border, also of one written on."""

import numpy as np
from PIL import Image

from kd3_pipeline.dedup.borders import LEVELS, STRAY, inside_border
from kd3_pipeline.images import Box

TRIMMED = 512  # pixels of the longer side, at most, at which borders are looked for
BAR = 0.3  # share of a line that is of the border's colour, at least, where a caption is on it
MOST_CAPTION = 0.35  # of the height, on a bar of the picture's own ground
LEAST_AREA = 0.25  # of the picture, inside its border: else it is a picture on plain ground


def inner_boxes(grey: Image.Image) -> list[tuple[int, int, int, int]]:
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
