"""Gallery of crops: whole images beside the crop of which the teacher is surest."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image
from scipy.special import softmax

from kd3_pipeline.report.catalogue import Catalogue, TileOf
from kd3_pipeline.report.sampling import spread
from kd3_pipeline.report.thumbnails import encode_thumbnail
from kd3_pipeline.report.tiles import Gallery, Pair


def crops(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images beside their surest crop, as it is stored."""
    key, heading, embeddings = "crops", "Crops", catalogue.embeddings
    found = catalogue.embedded("id")
    if embeddings.crops == 1 or found is None:
        return Gallery(key, heading, "", 0, empty="Nobody looked: embed.crops is 1.")
    there = np.flatnonzero(~np.isnan(embeddings.crop_boxes[:, 0, 0]))
    chosen = spread(catalogue.images.labels[found[0]], there, catalogue.most, rng)
    tile_of = catalogue.tiles(found[0][chosen])
    return Gallery(
        key,
        heading,
        f"Left an image, right the crop of it of which the teacher is surest, at the pixels that "
        f"the networks see; {embeddings.crops} views of each image are trained on. Drawn at "
        "random, evenly over the classes asked for: look whether the crops show what is asked for.",
        len(there),
        tuple(_pair(catalogue, tile_of, row, int(found[0][row])) for row in chosen.tolist()),
        "pair",
    )


def _pair(catalogue: Catalogue, tile_of: TileOf, row: int, position: int) -> Pair:
    """The image of a row of the embeddings, and its first crop."""
    embeddings = catalogue.embeddings
    answers = np.stack([embeddings.logits[row], embeddings.crop_logits[row, 0]])
    whole, part = softmax(answers.astype(np.float64), axis=1).max(axis=1).tolist()
    name = catalogue.class_names[int(answers[0].argmax())][:60]
    out = io.BytesIO()
    (pixels,) = embeddings.place_pixels[np.array([len(embeddings) + row])]
    Image.fromarray(pixels).save(out, "PNG")
    tile = tile_of(position)
    crop = replace(tile, thumbnail=encode_thumbnail(out.getvalue()))
    return Pair(
        tile,
        crop,
        None,
        None,
        both_stay=True,
        measure=f"{name}: {whole:.0%} → {part:.0%}",
    )
