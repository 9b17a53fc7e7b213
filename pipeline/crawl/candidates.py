"""What a search brings and what becomes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Candidate:
    """One search result. All text comes from the web and is hostile."""

    label: int  # index of the class asked for, -1 where none was
    class_name: str
    engine: str
    query: str
    rank: int  # place among the results of its query, from 0
    url: str
    page_url: str = ""
    title: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Fetched:
    """What one URL gave. `outcome` is `ok`, or one word for why there is no image."""

    url: str
    outcome: str
    detail: str = ""
    status: int | None = None
    final_url: str = ""
    id: str | None = None  # SHA-256 of the bytes, in hex
    width: int = 0
    height: int = 0
    format: str = ""


NOT_NEEDED = "not_needed"  # the class had its images before this candidate's turn
MANIFEST_COLUMNS = {
    "label": pa.int64(),
    "class": pa.string(),
    "engine": pa.string(),
    "query": pa.string(),
    "rank": pa.int32(),
    "url": pa.string(),
    "page_url": pa.string(),
    "title": pa.string(),
    "licence": pa.string(),
    "final_url": pa.string(),
    "status": pa.int32(),
    "outcome": pa.string(),
    "detail": pa.string(),
    "id": pa.string(),
}


def manifest(candidates: Sequence[Candidate], fetched: Mapping[Candidate, Fetched]) -> pa.Table:
    """One row a candidate, in order, so that every candidate is accounted for.

    Outcomes are `stored` (the first candidate with these bytes), `duplicate` (the same bytes
    again), `not_needed`, or why there is no image.
    """
    stored: set[str] = set()
    rows = []
    for candidate in candidates:
        found = fetched.get(candidate, Fetched(candidate.url, NOT_NEEDED))
        outcome = found.outcome
        if found.id is not None:
            outcome = "duplicate" if found.id in stored else "stored"
            stored.add(found.id)
        row = asdict(candidate)
        row["class"] = row.pop("class_name")
        row |= {
            "final_url": found.final_url,
            "status": found.status,
            "outcome": outcome,
            "detail": found.detail,
            "id": found.id,
        }
        rows.append({name: _storable(value) for name, value in row.items()})
    return pa.Table.from_pylist(rows, schema=pa.schema(MANIFEST_COLUMNS.items()))


def _storable(value: Any) -> Any:
    # half a surrogate pair comes in by JSON escapes, headers and file names, and is no UTF-8
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
