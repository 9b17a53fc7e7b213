"""What a search brings and what becomes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
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
    thumbnail: str = ""  # its URL
    licence: str = ""
    licence_url: str = ""
    creator: str = ""
    licence_filter: str = ""  # what the engine was asked for; "" is everything


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one URL gave. `outcome` is `ok`, or one word for why there is no image."""

    url: str
    outcome: str
    detail: str = ""
    status: int | None = None
    final_url: str = ""
    id: str | None = None  # SHA-256 of the bytes, in hex
    width: int = 0  # pixels; also of an image that is too small
    height: int = 0
    format: str = ""
    size: int = 0  # bytes; of an answer that is too large: how large at least
    has_gps: bool = False  # the EXIF data says where it was taken


STORED = "stored"
DUPLICATE = "duplicate"
PLACEHOLDER = "placeholder"
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
    "thumbnail": pa.string(),
    "licence": pa.string(),
    "licence_url": pa.string(),
    "creator": pa.string(),
    "licence_filter": pa.string(),
    "final_url": pa.string(),
    "status": pa.int32(),
    "outcome": pa.string(),
    "detail": pa.string(),
    "id": pa.string(),
    "format": pa.string(),
    "size": pa.int64(),
    "has_gps": pa.bool_(),
}


def placeholders(found: Mapping[Candidate, Fetched], urls: int) -> frozenset[str]:
    """Ids of images that `urls` or more addresses gave: sites answer so for what is gone."""
    addresses: dict[str, set[str]] = {}
    for image in found.values():
        if image.id is not None:
            addresses.setdefault(image.id, set()).add(image.url)
    return frozenset(id for id, of_image in addresses.items() if urls and len(of_image) >= urls)


def manifest(
    candidates: Sequence[Candidate],
    found: Mapping[Candidate, Fetched],
    refused: frozenset[str] = frozenset(),
) -> pa.Table:
    """One row a candidate, in order, so that every candidate is accounted for.

    Outcomes are `stored` (the first candidate with these bytes), `duplicate` (the same bytes
    again), `placeholder` (its id is in `refused`), `not_needed`, or why there is no image.
    """
    stored: set[str] = set()
    rows = []
    for candidate in candidates:
        image = found.get(candidate, Fetched(candidate.url, NOT_NEEDED))
        outcome = image.outcome
        if image.id in refused:
            outcome = PLACEHOLDER
        elif image.id is not None:
            outcome = DUPLICATE if image.id in stored else STORED
            stored.add(image.id)
        row = asdict(candidate) | asdict(image)
        row |= {"class": candidate.class_name, "outcome": outcome}
        rows.append({name: _storable(row[name]) for name in MANIFEST_COLUMNS})
    return pa.Table.from_pylist(rows, schema=pa.schema(MANIFEST_COLUMNS.items()))


def _storable(value: Any) -> Any:
    # half a surrogate pair comes in by JSON escapes, headers and file names, and is no UTF-8
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
