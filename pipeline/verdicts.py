"""Dedup's verdicts: one row a stored image, kept or not and why, in data/dedup/images.parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from kd3_pipeline.store import open_parquet, read_table

HINT = "run `dvc repro dedup`"
# reasons why an image is not kept; any other one is the name of an issue in `dedup.drop`
NEAR_DUPLICATE = "near-duplicate"
LEAKED = "leaked"
LOW_INFORMATION = "low-information"
UNREADABLE = "unreadable"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "shard": pa.int32(),
        "row": pa.int32(),  # of the shard
        "label": pa.int64(),  # class that it counts for, -1 where none was asked for
        "width": pa.int32(),
        "height": pa.int32(),
        "hash": pa.uint64(),
        "kept": pa.bool_(),
        "reason": pa.string(),  # why it is not kept, else empty
        "group": pa.int64(),  # of images that look alike
        "duplicate_of": pa.string(),  # id
        "looks_like": pa.string(),  # id of another kept image, found for other classes
        "distance": pa.int32(),  # bits between the hashes of the two
        "similarity": pa.float32(),  # of the pixels of the two, -1 to 1
        "test_image": pa.int64(),  # number of the test image that it shows
        "labels": pa.list_(pa.int64()),  # all classes that it was found for
        "comparable": pa.bool_(),  # hash and edges can tell it from others
        "capped": pa.bool_(),  # of more images near it only the nearest were looked at
        "issues": pa.list_(pa.string()),
    }
)


def unfit(reason: str) -> bool:
    """True where an image is dropped for what it shows: for next to nothing, or for an issue."""
    return reason not in ("", NEAR_DUPLICATE, LEAKED, UNREADABLE)


def issues_of(row: Mapping[str, Any]) -> list[str]:
    """Names of the issues that an image has, kept or not; none in tables without that column."""
    return list(row.get("issues") or [])


def read_verdicts(
    path: Path, columns: Sequence[str] | None = None, later: Sequence[str] = ()
) -> pa.Table:
    """Columns of the verdicts (all by default), in the order of the image shards.

    Args:
        later: columns that come with the others where the file has them: earlier runs had not.

    Raises:
        UserError: the file is missing, is not Parquet, or lacks a column.
    """
    if columns is not None and later:
        with open_parquet(path, HINT) as file:
            columns = [*columns, *(name for name in later if name in file.schema_arrow.names)]
    return read_table(path, columns, HINT)
