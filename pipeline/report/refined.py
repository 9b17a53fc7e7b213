"""Refined images beside the images as they were, and their distances from remembered moments."""

from dataclasses import replace
from typing import Any

import numpy as np

from kd3_pipeline.embeddings import REFINED
from kd3_pipeline.embedsummary import EmbedSummary
from kd3_pipeline.report.catalogue import Catalogue
from kd3_pipeline.report.figures import Series, line_chart
from kd3_pipeline.report.flow import predicted
from kd3_pipeline.report.sampling import spread
from kd3_pipeline.report.thumbnails import pixel_thumbnail
from kd3_pipeline.report.tiles import Gallery, Pair

KEY, HEADING = "refined", "Refined"
MOST = 24  # pairs: each has two pictures of its own, and the page is to stay small


def refined_images(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images beside what they were refined to, the most changed first."""
    embeddings, found = catalogue.embeddings, catalogue.embedded("row")
    if found is None or not (embeddings.folder / REFINED).is_file():
        return Gallery(KEY, HEADING, "", 0, empty="There are none: embed.refine is 0.")
    positions, seen = found[0], predicted(embeddings)
    among = embeddings.refined_rows
    among = np.arange(len(embeddings)) if among is None else among
    rows = np.sort(spread(seen, among, min(MOST, catalogue.most), rng))
    before, after = np.array(embeddings.pixels[rows]), np.array(embeddings.refined_pixels[rows])
    levels = np.sqrt(np.square(after.astype(float) - before).mean(axis=(1, 2, 3)))
    same = seen[rows] == embeddings.refined_logits[rows].argmax(axis=1)
    tile_of = catalogue.tiles(positions[rows])

    def pair(at: int) -> Pair:
        tile = tile_of(int(positions[rows[at]]))
        return Pair(
            replace(tile, thumbnail=pixel_thumbnail(before[at])),
            None,
            None,
            None,
            pixel_thumbnail(after[at]),
            outcome="same answer" if same[at] else "another answer",
            both_stay=True,
            measure=f"{levels[at]:.1f} of 255",
            beside="Refined",
        )

    return Gallery(
        KEY,
        HEADING,
        "Left the image as it is stored, right as the student is trained on it. Below, the mean "
        "change of a value (root of the mean square), and the class asked for. Drawn evenly over "
        "the classes that the teacher sees; the most changed come first.",
        len(among),
        tuple(map(pair, np.argsort(-levels, kind="stable").tolist())),
        "pair",
    )


def refined_section(embed: EmbedSummary) -> dict[str, Any]:
    """Figures of the refined images and a chart of the distances by layer; None without them."""
    found = embed.refine
    if found is None:
        return {"refined": None}
    places = [float(at) for at in range(1, len(found.layers) + 1)]
    lines = [
        Series("as they were", [one.before for one in found.layers]),
        Series("refined", [one.after for one in found.layers]),
    ]
    return {"refined": found, "refined_chart": line_chart("Distance", places, lines, unit="layers")}
