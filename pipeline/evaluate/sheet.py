"""Contact sheet of test images that a student was trained on: a self-contained HTML page."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from kd3_pipeline.evaluate.contamination import Contamination
from kd3_pipeline.pixelstore import Pixels
from kd3_pipeline.templates import environment

MOST = 200  # pairs shown
LARGEST = 256  # pixels a side of a picture in the page
SMALL = 64  # up to which a PNG is as small as anything else


def contact_sheet(
    found: Contamination, test: Pixels, trained: Pixels, ids: Sequence[str], test_set: str
) -> str:
    """The page: each web image beside the test image that it is, the nearest pairs first.

    Names may come from elsewhere: they are shown as they are, and never obeyed.

    Args:
        test, trained: uint8 [N, S, S, 3]; of them those pairs are shown.
        ids: of the web images.
        test_set: its name.
    """
    order = np.argsort(found.distance, kind="stable")[:MOST]
    pairs = [
        {
            "web": _picture(trained[found.web[at]]),
            "test": _picture(test[found.test[at]]),
            "id": ids[found.web[at]],
            "row": int(found.test[at]),
            "distance": float(found.distance[at]),
        }
        for at in order.tolist()
    ]
    page = environment("kd3_pipeline.evaluate").get_template("sheet.html.j2")
    return page.render(pairs=pairs, total=len(found), tests=len(test), test_set=test_set)


def _picture(pixels: np.ndarray) -> str:
    """Pixels as a data URI: a PNG, or of large ones a WebP, so that the page stays small."""
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    kind = "PNG" if max(image.size) <= SMALL else "WEBP"
    out = io.BytesIO()
    image.save(out, kind)
    code = base64.b64encode(out.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{code}"
