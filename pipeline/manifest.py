"""Manifest of the crawl: one row a candidate with its outcome; its columns, writing, reading."""

import json
import re
import types
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.errors import UserError
from kd3_pipeline.store import open_parquet

Int32 = Annotated[int, pa.int32()]
STORED = "stored"
DUPLICATE = "duplicate"
PLACEHOLDER = "placeholder"
NOT_NOW = "not_now"  # refused for the moment, or never asked: the next run asks for it
BLOCKED = "blocked"  # by the user's blocklist; such rows have no addresses
FORGOTTEN = "forgotten"  # dropped on request: never asked for again
# its host's name led to no public address, as behind a captive portal: the next run asks again
FORBIDDEN_DNS = "forbidden_dns"
OPTED_OUT = "opted_out"  # its owner says no
NOT_NEEDED = "not_needed"  # the class had its images before this candidate's turn
LATER = (  # columns that early crawls lack
    *("licence_url", "creator", "licence_filter", "has_gps"),
    *("variant", "original", "signals", "fetched_at"),
)
MADE = b"kd3_pipeline"  # key of the schema's metadata that says by what and how it was made
# columns that a row of outcome `blocked` has not: a manifest is handed on, and must not become a
# list of where such images are
ADDRESSES = ("url", "page_url", "title", "thumbnail", "creator", "original", "final_url")
HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{8,}")
ARRIVED = (STORED, DUPLICATE)  # outcomes of candidates whose image the crawl has


@dataclass(frozen=True, slots=True)
class Candidate:
    """One search result. All text comes from the web and is hostile."""

    label: int  # index of the class asked for, -1 where none was
    class_name: str = field(metadata={"column": "class"})
    engine: str
    query: str
    rank: Int32  # place among the results of its query, from 0
    url: str
    page_url: str = ""
    title: str = ""
    thumbnail: str = ""  # its URL
    licence: str = ""
    licence_url: str = ""
    creator: str = ""
    licence_filter: str = ""  # what the engine was asked for; "" is everything
    variant: str = (
        ""  # filter or expansion that the query was varied by; "" as the class set has it
    )
    original: str = ""  # address of the full picture, where `url` is a smaller one of the engine's


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answer of one URL. `outcome` is `ok`, or one word for why there is no image."""

    url: str
    final_url: str = field(default="", kw_only=True)
    status: Int32 | None = field(default=None, kw_only=True)
    outcome: str
    detail: str = ""
    id: str | None = None  # SHA-256 of the bytes, in hex
    format: str = ""
    size: int = 0  # bytes; of an answer that is too large: how large at least
    has_gps: bool = False  # the EXIF data says where it was taken
    signals: str = (
        ""  # what its owner says of such use, allowed or not, one a line: docs/opt-outs.md
    )
    fetched_at: str = ""  # when its host gave it, in UTC; "" for a file, and for the demo's web
    # pixels; also of an image that is too small; in the shards' columns, not in the manifest's
    width: int = field(default=0, kw_only=True, metadata={"column": None})
    height: int = field(default=0, kw_only=True, metadata={"column": None})
    # asked for with the page that shows it (`crawl.referer`)
    referer: bool = field(default=False, kw_only=True, metadata={"column": None})


def _columns() -> dict[str, tuple[str, pa.DataType]]:
    """Column → (attribute, type), from the fields of both dataclasses in order."""
    plain = {int: pa.int64(), str: pa.string(), bool: pa.bool_()}
    found: dict[str, tuple[str, pa.DataType]] = {}
    for kind in (Candidate, Fetched):
        hints = typing.get_type_hints(kind, include_extras=True)
        for one in fields(kind):
            column = one.metadata.get("column", one.name)
            hint = hints[one.name]
            if typing.get_origin(hint) in (types.UnionType, typing.Union):
                hint = typing.get_args(hint)[0]
            if column and column not in found:
                exact = getattr(hint, "__metadata__", None)
                found[column] = (one.name, exact[0] if exact else plain[hint])
    return found


ATTRIBUTES = {column: attribute for column, (attribute, _) in _columns().items()}
SCHEMA = pa.schema([(column, kind) for column, (_, kind) in _columns().items()])
BLOCK = 10_000  # rows that are Python's at once
ASKED = {one.name for one in fields(Candidate)}  # attributes that a candidate has
NOTHING_ASKED = Fetched("", NOT_NEEDED)


def read_manifest(
    path: Path, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pa.Table:
    """Columns of a manifest (all by default), of the rows that satisfy `where`, in order.

    Columns that an older crawl did not write are null: a crawl is never repeated for newer code.

    Raises:
        UserError: the file is missing, is not Parquet, or lacks columns that every crawl wrote.
    """
    names = list(columns) if columns is not None else SCHEMA.names
    batches = list(scan_manifest(path, names, where))
    return pa.Table.from_batches(batches, pa.schema([SCHEMA.field(name) for name in names]))


def scan_manifest(
    path: Path, columns: Sequence[str], where: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """The same, a batch in memory at a time; without `where` every row is in some batch.

    Raises:
        UserError: as `read_manifest`.
    """
    wanted = list(dict.fromkeys([*columns, *_read_by(where)]))
    with open_parquet(path) as file:
        written = set(file.schema_arrow.names)
        lacking = [name for name in wanted if name not in written and name not in LATER]
        if lacking:
            raise UserError(f"{path}: no column '{lacking[0]}'", "run `dvc repro crawl`")
        for batch in file.iter_batches(columns=[name for name in wanted if name in written]):
            table = pa.Table.from_batches([batch])
            for name in wanted:
                if name not in written:
                    table = table.append_column(
                        SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type)
                    )
            if where is not None:
                table = table.filter(where)
            yield from table.select(list(columns)).combine_chunks().to_batches()


def _read_by(where: pc.Expression | None) -> list[str]:
    """Columns that an expression reads: those without which it cannot be evaluated."""
    found: list[str] = []
    for name in SCHEMA.names if where is not None else ():
        try:
            SCHEMA.empty_table().drop_columns([name]).filter(where)
        except pa.ArrowInvalid:
            found.append(name)
    return found


def signed(table: pa.Table, made: Mapping[str, Any]) -> pa.Table:
    """A manifest that says how it was made: software, user agent, what was obeyed, parameters."""
    text = json.dumps(dict(made), ensure_ascii=False, sort_keys=True)
    return table.replace_schema_metadata({MADE: _utf8(text)} if made else None)


def made_by(path: Path) -> dict[str, Any]:
    """How a manifest says that it was made; empty where it does not, as those of early crawls.

    Raises:
        UserError: as `read_manifest`.
    """
    with open_parquet(path) as file:
        found = (file.schema_arrow.metadata or {}).get(MADE, b"{}")
    try:
        values = json.loads(found)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def count_candidates(path: Path) -> int:
    """Rows of a manifest.

    Raises:
        UserError: as `read_manifest`.
    """
    with open_parquet(path) as file:
        return file.metadata.num_rows


def class_names(path: Path) -> dict[int, str]:
    """Label → class asked for, of all candidates that have one.

    Raises:
        UserError: as `read_manifest`.
    """
    names: dict[int, str] = {}
    for batch in scan_manifest(path, ["label", "class"]):
        pairs = pa.Table.from_batches([batch]).group_by(["label", "class"]).aggregate([])
        known = zip(pairs["label"].to_pylist(), pairs["class"].to_pylist(), strict=True)
        names |= {label: name for label, name in known if label is not None and label >= 0}
    return names


def host_of(url: str | None) -> str:
    """The host of an address, "" where it has none: of a file's name, or of what is no address."""
    try:
        return urlsplit(url or "").hostname or ""
    except ValueError:
        return ""


def manifest(
    candidates: Sequence[Candidate],
    found: Mapping[Candidate, Fetched],
    refused: Mapping[str, str] = MappingProxyType({}),
) -> pa.Table:
    """One row a candidate, in order, so that every candidate is accounted for.

    Outcomes are `stored` (the first candidate with these bytes), `duplicate` (the same bytes
    again), `placeholder` (its id is in `refused`, whose reason is the detail), `not_needed`, or why
    there is no image.
    """
    # not a dictionary a row: ten million of those end a machine
    images = [found.get(one, NOTHING_ASKED) for one in candidates]
    outcomes, details = _outcomes(images, refused)
    blocked = [row for row, outcome in enumerate(outcomes) if outcome == BLOCKED]
    arrays = []
    for column, name in ATTRIBUTES.items():
        if column in ("outcome", "detail"):
            values = outcomes if column == "outcome" else details
        else:  # the record's address has no fragment, so `url` is the candidate's
            source = candidates if name in ASKED else images
            values = list(map(attrgetter(name), source))
        for row in blocked if column in ADDRESSES else ():
            values[row] = ""
        arrays.append(_array(values, SCHEMA.field(column).type))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def tally(column: pa.ChunkedArray) -> Counter[str]:
    """How often a column of texts has each value; those that come first are first."""
    return Counter({one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()})


def in_blocks(column: pa.ChunkedArray) -> Iterator[Any]:
    """The values of a column as Python's, of which few are there at once."""
    for start in range(0, len(column), BLOCK):
        yield from column.slice(start, BLOCK).to_pylist()


def _outcomes(images: Iterable[Fetched], refused: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Outcome and detail of each row, in order."""
    stored: set[str] = set()
    outcomes, details = [], []
    for image in images:
        outcome, detail = image.outcome, image.detail
        if image.id is not None and image.id in refused:
            outcome, detail = PLACEHOLDER, refused[image.id]
        elif image.id is not None:
            outcome = DUPLICATE if image.id in stored else STORED
            stored.add(image.id)
        outcomes.append(outcome)
        details.append(_short(detail) if outcome == BLOCKED else detail)
    return outcomes, details


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        # as bytes: Arrow would have each text keep a second copy of itself in UTF-8
        values = [value if value is None or value.isascii() else _utf8(value) for value in values]
    return pa.array(values, kind)


def without_addresses(table: pa.Table) -> pa.Table:
    """A manifest whose rows of outcome `blocked` name neither a place nor a whole hash."""
    blocked = pc.equal(table["outcome"], BLOCKED)
    if not pc.any(blocked).as_py():
        return table
    details = [_short(text or "") for text in table["detail"].to_pylist()]
    new = dict.fromkeys(ADDRESSES, pa.scalar("")) | {"detail": pa.array(details, pa.string())}
    for name, values in new.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.field(name), pc.if_else(blocked, values, table[name]))
    return table


def _short(detail: str) -> str:
    """A rule of the blocklist without all digits of a hash: such lists may be confidential."""
    return HASH.sub(r"\1…", detail)


def _utf8(text: str) -> bytes:
    # half a surrogate pair comes in by JSON escapes, headers and file names, and is no UTF-8
    return text.encode("utf-8", "replace")
