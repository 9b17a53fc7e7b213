"""Record of a distillation: which image was held out, and which trained on in which epoch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.errors import UserError
from kd3_pipeline.store import read_table

HINT = "run `dvc repro distill`"
SCHEMA = pa.schema(
    {
        "row": pa.int64(),  # of the embeddings
        "id": pa.string(),
        "predicted": pa.int64(),  # by the deployed student
        "confidence": pa.float32(),  # its, 0 to 1
        "held_out": pa.bool_(),  # never to be trained on; measures agreement
        "times_kept": pa.int32(),  # epochs in which it was trained on
        "kept": pa.list_(pa.bool_()),  # the same by epoch
    }
)


def read_selection(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of the record (all by default), one row an image in the order of the embeddings.

    Raises:
        UserError: the file is missing, is not Parquet, or lacks a column.
    """
    return read_table(path, columns, HINT)


def read_history(path: Path) -> np.ndarray:
    """Trained on or not, by image and epoch: bool [N, epochs].

    Raises:
        UserError: as `read_selection`, or the images have not all the same number of epochs.
    """
    lists = read_selection(path, ["kept"])["kept"]
    try:
        lengths = set(pc.list_value_length(lists).unique().to_pylist())
        flat = pc.list_flatten(lists).cast(pa.bool_()).to_numpy()
        return flat.astype(bool).reshape(len(lists), *(lengths or {0}))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UserError(f"{path}: column 'kept': {error}", HINT) from None
