"""Pictures without labels, by which a teacher's mean and std are checked."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.images import decode
from kd3_pipeline.imagesource.decoding import decoded
from kd3_pipeline.imagesource.source import open_source
from kd3_pipeline.labelled import LabelledImages
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.store import open_parquet, shard_paths
from kd3_pipeline.teacher.normalisation import MOST, spread
from kd3_stages import paths

MOST_BYTES = 2**31  # of an image of the user's own


def pictures(
    images: Path | None, test: LabelledImages | None, frame: Frame, console: Console
) -> tuple[np.ndarray, str]:
    """Up to 512 pictures without labels, uint8 [N, S, S, 3], and where they are from."""
    if images is not None:
        return _own_images(images, frame, console), str(images)
    if test is not None:
        return np.array(test.pixels[spread(len(test.labels))]), "the test set"
    side = frame.side
    try:
        shards = shard_paths(paths.CRAWL)
    except UserError:  # nothing is crawled yet
        return np.zeros((0, side, side, 3), np.uint8), ""
    found: list[np.ndarray] = []
    for path in np.array(shards, dtype=object)[spread(len(shards), 8)]:
        with open_parquet(path) as file:
            column = file.read(columns=["image"])["image"]
        for row in spread(len(column), MOST // min(len(shards), 8)):
            try:
                found.append(frame.of(decode(pc.take(column, [int(row)])[0].as_py())))
            except ImageError:
                continue  # dedup looks at those
    return np.stack(found) if found else np.zeros((0, side, side, 3), np.uint8), "the crawl"


def _own_images(images: Path, frame: Frame, console: Console) -> np.ndarray:
    """
    Raises:
        UserError: nothing there is a picture.
    """
    source = open_source(images, MOST_BYTES)
    for line in source.lines():
        console.note(line)
    rows = [int(row) for row in spread(len(source))]
    with console.progress("teacher: reading images", len(rows)) as advance:
        found = []
        for _, pixels in decoded(source.read(rows), frame):
            advance(1)
            if not isinstance(pixels, str):
                found.append(pixels)
    if not found:
        raise UserError(f"--images: {images} has no picture that can be read")
    if len(found) < len(rows):
        console.note(f"{images}: {len(rows) - len(found):,} of {len(rows):,} could not be read")
    return np.stack(found)
