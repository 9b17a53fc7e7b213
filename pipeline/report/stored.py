"""Stored images with all that dedup and distillation say of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.errors import UserError
from kd3_pipeline.selections import read_history, read_selection
from kd3_pipeline.verdicts import read_verdicts


@dataclass(frozen=True)
class Images:
    """The stored images, joined by position: entry i of every array is row i of the dedup file.

    `predicted`, `confidence` and `times` are -1 for images that distillation did not use; `times`
    is -1 for those that it held out, too. Row i of `history` (bool [U, epochs]) says in which
    epochs image `used[i]` was trained on.
    """

    table: pa.Table
    labels: np.ndarray
    kept: np.ndarray
    leaked: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    times: np.ndarray
    held_out: int
    used: np.ndarray
    history: np.ndarray

    @property
    def epochs(self) -> int:
        """Epochs of the distillation."""
        return self.history.shape[1]

    @property
    def uniform(self) -> bool:
        """True where every image was trained on equally often, or there is none."""
        times = self.times[self.times >= 0]
        return bool((times == times[:1]).all())


def read_images(dedup: Path, selection: Path) -> Images:
    """Join the dedup and selection files on the image id.

    Raises:
        UserError: a file is missing or malformed, or the two are of different runs.
    """
    columns = ["id", "shard", "row", "label", "kept", "reason"]
    columns += ["duplicate_of", "distance", "similarity", "test_image"]
    table = read_verdicts(dedup, columns, ["looks_like", "issues"])
    given = read_selection(selection, ["id", "predicted", "confidence", "held_out", "times_kept"])
    at = pc.index_in(given["id"], value_set=table["id"].combine_chunks())
    if at.null_count:
        raise UserError(
            f"{selection} has {at.null_count:,} images that {dedup} does not",
            "they are of different runs: run `dvc repro distill`",
        )
    positions = at.to_numpy().astype(np.int64)
    predicted = np.full(table.num_rows, -1, np.int64)
    confidence = np.full(table.num_rows, -1.0, np.float32)
    times = np.full(table.num_rows, -1, np.int64)
    predicted[positions] = given["predicted"].to_numpy()
    confidence[positions] = given["confidence"].to_numpy()
    held_out = given["held_out"].to_numpy()
    times[positions] = np.where(held_out, -1, given["times_kept"].to_numpy())
    return Images(
        table=table,
        labels=table["label"].to_numpy(),
        kept=table["kept"].to_numpy().astype(bool),
        leaked=pc.fill_null(pc.equal(table["reason"], "leaked"), False).to_numpy(),
        predicted=predicted,
        confidence=confidence,
        times=times,
        held_out=int(held_out.sum()),
        used=positions,
        history=read_history(selection),
    )
