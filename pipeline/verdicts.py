"""Dedup's verdicts: one row a stored image, kept or not and why, in data/dedup/images.parquet."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.store import read_table

HINT = "run `dvc repro dedup`"


def read_verdicts(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of the verdicts (all by default), in the order of the image shards.

    Raises:
        UserError: the file is missing, is not Parquet, or lacks a column.
    """
    return read_table(path, columns, HINT)
