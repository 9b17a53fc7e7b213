"""Which stored images are kept, and why the others are not."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dedup.hashing import HashedImage
from pipeline.dedup.near import group_near

NEAR_DUPLICATE = "near-duplicate"
UNREADABLE = "unreadable"
COLUMNS = {
    "id": pa.string(),
    "shard": pa.int32(),
    "row": pa.int32(),
    "label": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "hash": pa.uint64(),
    "kept": pa.bool_(),
    "reason": pa.string(),
    "group": pa.int64(),
    "duplicate_of": pa.string(),
    "distance": pa.int32(),
}


def judge(images: Sequence[HashedImage], radius: int) -> pa.Table:
    """One row an image, in order: kept, or the reason, and which image it duplicates."""
    good = [index for index, image in enumerate(images) if not image.error]
    grouping = group_near(
        np.array([images[index].hash for index in good], np.uint64),
        radius,
        areas=[images[index].width * images[index].height for index in good],
        sizes=[images[index].size for index in good],
        ids=[images[index].id for index in good],
    )
    rows = []
    for image in images:
        row = {name: getattr(image, name) for name in list(COLUMNS)[:7]}
        rows.append(row | {"kept": False, "reason": UNREADABLE, "group": -1})
    for place, index in enumerate(good):
        best = int(grouping.representative[place])
        kept = best == place
        rows[index] |= {
            "kept": kept,
            "reason": "" if kept else NEAR_DUPLICATE,
            "group": int(grouping.group[place]),
            "duplicate_of": None if kept else images[good[best]].id,
            "distance": None if kept else int(grouping.distance[place]),
        }
    return pa.Table.from_pylist(rows, schema=pa.schema(COLUMNS.items()))


def summarise(table: pa.Table) -> dict[str, Any]:
    """Counts for a person and for `dvc metrics`."""
    reasons = Counter(table["reason"].to_pylist())
    return {
        "images": table.num_rows,
        "kept": reasons[""],
        "near_duplicates": reasons[NEAR_DUPLICATE],
        "unreadable": reasons[UNREADABLE],
        "groups_of_several": len(
            {
                group
                for group, reason in zip(
                    table["group"].to_pylist(), table["reason"].to_pylist(), strict=True
                )
                if reason == NEAR_DUPLICATE
            }
        ),
    }
