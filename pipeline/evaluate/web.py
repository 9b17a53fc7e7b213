"""Web images that a student was distilled from, as `embed` and `distill` left them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd3_pipeline.embeddings import IMAGES, LOGITS, Embeddings, has_pixels
from kd3_pipeline.errors import UserError
from kd3_pipeline.pixelstore import Pixels
from kd3_pipeline.selections import read_selection


@dataclass(frozen=True)
class Web:
    """Pixels uint8 [N, S, S, 3], read when indexed, and the teacher's logits float32 [N, C].

    Attributes:
        ids: of the images.
        held_out: rows that the student never saw, int64.
        trained: rows that it was trained on in one epoch or more, int64.
    """

    pixels: Pixels
    teacher_logits: np.ndarray
    ids: list[str]
    held_out: np.ndarray
    trained: np.ndarray


def load_web(embed: Path, selection: Path, side: int, classes: int) -> Web | None:
    """The web images of a student, or None where one of the files is not there.

    Args:
        embed: folder of the embeddings.
        selection: record of the distillation.
        side, classes: of the networks, which the files have to be for.

    Raises:
        UserError: a file is broken, or they do not belong together.
    """
    files = [*(embed / name for name in (IMAGES, LOGITS)), selection]
    if not has_pixels(embed) or not all(path.is_file() for path in files):
        return None
    web = Embeddings.open(embed)
    table = read_selection(selection, ["held_out", "times_kept"])
    if len(web) != len(table) or web.pixels.shape[1] < side or web.logits.shape[1:] != (classes,):
        raise UserError(
            f"{embed} and {selection} do not belong to one teacher and student",
            "run `dvc repro distill`",
        )
    return Web(
        web.centre(side),
        web.logits,
        web.ids,
        np.flatnonzero(table["held_out"].to_numpy()),
        np.flatnonzero(table["times_kept"].to_numpy() > 0),
    )
