"""Record of a distillation: which image was held out, and which trained on in which epoch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.errors import UserError
from kd3_pipeline.store import open_parquet, read_table

HINT = "run `dvc repro distill`"
ROWS = 2**14  # of which lists are in memory
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
    history, at = np.zeros((0, 0), bool), 0
    with open_parquet(path, HINT) as file:
        if "kept" not in file.schema_arrow.names:
            raise UserError(f"{path}: no column 'kept'", HINT)
        try:
            # batch by batch: one array holds no more than 2^31 values of lists together
            for batch in file.iter_batches(ROWS, columns=["kept"]):
                lists = batch["kept"]
                (epochs,) = pc.list_value_length(lists).unique().to_pylist()
                if not at:
                    history = np.zeros((file.metadata.num_rows, epochs), bool)
                flat = pc.list_flatten(lists).cast(pa.bool_()).to_numpy(zero_copy_only=False)
                history[at : at + len(lists)] = flat.reshape(len(lists), history.shape[1])
                at += len(lists)
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: column 'kept': {error}", HINT) from None
    return history
