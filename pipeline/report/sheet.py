"""Sheet of small pictures: many tiles in one image, which a style sheet shows one at a time."""

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kd3_pipeline.pixelstore import Pixels

SIDE = 40  # pixels of a tile
QUALITY = 60
BLOCK = 256  # pictures in memory at a time


@dataclass(frozen=True)
class Sheet:
    """Tiles in rows from the top left, as a data URI; `columns` are in a row."""

    uri: str
    columns: int
    rows: int

    def place(self, tile: int) -> tuple[int, int]:
        """Where the left and upper edges of a tile are, in tiles."""
        return tile % self.columns, tile // self.columns


def make_sheet(pixels: Pixels, rows: np.ndarray) -> Sheet:
    """The pictures of some rows, scaled to `SIDE`, in the order of `rows`.

    Args:
        pixels: uint8 [N, S, S, 3], as the network sees them.
        rows: int64 [M], at least one.
    """
    columns = math.ceil(math.sqrt(len(rows)))
    height = math.ceil(len(rows) / columns)
    sheet = Image.new("RGB", (columns * SIDE, height * SIDE))
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        for at, picture in enumerate(pixels[some], start=start):
            tile = Image.fromarray(np.asarray(picture)).resize((SIDE, SIDE))
            sheet.paste(tile, (at % columns * SIDE, at // columns * SIDE))
    out = io.BytesIO()
    sheet.save(out, "WEBP", quality=QUALITY, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Sheet(uri, columns, height)
