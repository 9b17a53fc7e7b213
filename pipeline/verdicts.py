"""Dedup's verdicts: one row a stored image, kept or not and why, in data/dedup/images.parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.store import read_table

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
        "distance": pa.int32(),  # bits between the hashes of the two
        "similarity": pa.float32(),  # of the pixels of the two, -1 to 1
        "test_image": pa.int64(),  # number of the test image that it shows
        "labels": pa.list_(pa.int64()),  # all classes that it was found for
    }
)


def unfit(reason: str) -> bool:
    """True where an image is dropped for what it shows: for next to nothing, or for an issue."""
    return reason not in ("", NEAR_DUPLICATE, LEAKED, UNREADABLE)


def issues_in(table: pa.Table) -> list[str]:
    """Names of the issues that a table of verdicts has a column for: bool, true where it has it."""
    return [one.name for one in table.schema if one.type == pa.bool_() and one.name != "kept"]


def look_alikes(row: Mapping[str, Any]) -> list[str]:
    """Ids of images of other classes that an image looks like without being dropped for it."""
    found = row.get("looks_like") or []
    return [found] if isinstance(found, str) else list(found)


def read_verdicts(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of the verdicts (all by default), in the order of the image shards.

    Raises:
        UserError: the file is missing, is not Parquet, or lacks a column.
    """
    return read_table(path, columns, HINT)
