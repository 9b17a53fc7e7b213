"""The web images that a student was distilled from, as `embed` and `distill` left them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.store import read_table


@dataclass(frozen=True)
class Web:
    """Pixels uint8 [N, S, S, 3], mapped from disk, and the teacher's logits float32 [N, C].

    Attributes:
        held_out: rows that the student never saw, int64.
        trained: rows that it was trained on in one epoch or more, int64.
    """

    pixels: np.ndarray
    teacher_logits: np.ndarray
    held_out: np.ndarray
    trained: np.ndarray


def load_web(embed: Path, selection: Path, side: int, classes: int) -> Web | None:
    """What is known of the web images, or None where one of the files is not there.

    Args:
        embed: folder with `pixels.npy` and `logits.npy`.
        selection: table with the columns `held_out` and `times_kept`.
        side, classes: of the networks, which the files have to be for.

    Raises:
        UserError: a file is broken, or they do not belong together.
    """
    files = [embed / "pixels.npy", embed / "logits.npy", selection]
    if not all(path.is_file() for path in files):
        return None
    pixels, logits = (_array(path) for path in files[:2])
    table = read_table(selection, ["held_out", "times_kept"])
    if (
        not len(pixels) == len(logits) == len(table)
        or pixels.shape[1:] != (side, side, 3)
        or logits.shape[1:] != (classes,)
    ):
        raise UserError(
            f"{', '.join(map(str, files))} do not belong to one teacher and student",
            "run `dvc repro distill`",
        )
    return Web(
        pixels,
        logits,
        np.flatnonzero(table["held_out"].to_numpy()),
        np.flatnonzero(table["times_kept"].to_numpy() > 0),
    )


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "run `dvc repro embed`") from None
