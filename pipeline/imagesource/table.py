"""Tables: Parquet files that hold pictures, and those that say something about pictures."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.formats import picture_kind
from kd3_pipeline.imagesource.entries import MISSING, SAYS, TOO_LARGE, UNREADABLE, Entry, facts_of
from kd3_pipeline.store import open_parquet

# usual columns, the first that is there counts; img2dataset calls it by the format
PICTURES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo")
BATCH = 100  # rows in memory, or as many as BATCH_BYTES are sure to hold
BATCH_BYTES = 32 * 2**20
FIRST = 8  # rows in which a column of pictures shows one
KEPT = frozenset(spelling for spellings in SAYS.values() for spelling in spellings)
LISTED = "file_name"  # the column by which Hugging Face's metadata names a file
STATUS = {"status", "error_message"}  # what img2dataset says of a picture that it does not have
LABEL_LIKE = re.compile(r"class|label|target|categor|species|truth|^gt$|^y$|^id_?class")
NO_COLUMNS: Mapping[str, str] = {}
MOST_TOLD = 12  # columns in a message
DONE = "success"  # the status that img2dataset gives to what it has


class Table:
    """The pictures of one Parquet file, a batch in memory at a time.

    Attributes:
        names: of its classes by number, as Hugging Face writes them; empty where it has none.
        column, class_column: of the pictures and of their classes; "" for none.
        other_pictures: columns that hold pictures as well, where nobody has named one.
        others: columns of which each may have been meant for the classes.
    """

    def __init__(
        self, path: Path, prefix: str, max_bytes: int, columns: Mapping[str, str] = NO_COLUMNS
    ) -> None:
        """Takes the columns by their roles `image` and `label`, or by what they are called.

        Raises:
            UserError: it cannot be read, or has no column of that name.
        """
        self.path, self.prefix, self.split, self._most = path, prefix, "", max_bytes
        with open_parquet(path, streamed=True) as file:
            schema = file.schema_arrow
            self._rows = file.metadata.num_rows
            for role, name in columns.items():
                _check_column(path, role, name, schema)
            with one_line(path):
                named = [columns["image"]] if columns.get("image") else picture_columns(file)
        self.column = named[0] if named else ""
        self.other_pictures = named[1:]
        candidates = class_columns(schema)
        self.class_column = columns.get("label") or (candidates[0] if candidates else "")
        self.others = [] if "label" in columns else candidates[1:]
        self.names = _features(schema).get(self.class_column, [])
        # of several columns that may name a class one counts
        self._said = [
            name
            for name in schema.names
            if name.strip().lower() in (KEPT - set(SAYS["of_class"])) | STATUS
            and name not in (self.column, self.class_column)
        ]

    def __len__(self) -> int:
        return self._rows

    def lost(self) -> Set[int]:
        """None: a row has to be read."""
        return frozenset()

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows, in order. A table that breaks off gives the rows up to there.

        What is left is one entry with the reason for each row.
        """
        wanted = iter(rows)
        row = next(wanted, None)
        try:
            for start, batch in self._batches():
                while row is not None and row < start + len(batch):
                    said = {name: batch.column(name)[row - start].as_py() for name in self._said}
                    if self.class_column:
                        said["class"] = batch.column(self.class_column)[row - start].as_py()
                    yield self._entry(row, batch.column(self.column)[row - start], said)
                    row = next(wanted, None)
                if row is None:
                    return
        except (pa.ArrowException, OSError) as error:
            detail = f"the table breaks off: {' '.join(str(error).split())}"
            while row is not None:
                place = f"{self.path}: row {row}"
                yield Entry(f"{self.prefix}{row}", place, outcome=UNREADABLE, detail=detail)
                row = next(wanted, None)

    def _batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        start, own = 0, [self.class_column] if self.class_column else []
        with open_parquet(self.path, streamed=True) as file:
            for batch in batches(file, [self.column, *own, *self._said]):
                yield start, batch
                start += len(batch)

    def _entry(self, row: int, value: pa.Scalar, said: Mapping[str, Any]) -> Entry:
        packed = value.get("bytes") if value.is_valid and hasattr(value, "keys") else value
        there = isinstance(packed, pa.Scalar) and packed.is_valid
        size = packed.as_buffer().size if there and hasattr(packed, "as_buffer") else 0
        outcome, detail, data = "", "", b""
        if size > self._most:
            outcome, detail = TOO_LARGE, f"more than {self._most} bytes"
        elif size:
            data = packed.as_py()
        else:
            # a path in its place is not opened: a table may name any file
            whole = value.as_py()
            path = whole.get("path") if isinstance(whole, dict) else None
            told = [
                str(said[name]) for name in sorted(STATUS & set(said), reverse=True) if said[name]
            ]
            outcome, detail = MISSING, "a path in place of the bytes" if path else "no bytes"
            detail = ": ".join(told) or detail
        place = f"{self.path}: row {row}"
        name = f"{self.prefix}{row}"
        return Entry(name, place, data, outcome, detail, size, facts_of(said), self.names)

    def classes(self) -> list[Any]:
        """What is said about the class of every row, whatever it is."""
        if not self.class_column:
            return [None] * self._rows
        return self.values(self.class_column)

    def values(self, column: str) -> list[Any]:
        """All of a column."""
        with open_parquet(self.path) as file, one_line(self.path):
            return file.read(columns=[column])[column].to_pylist()


def batches(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a table in order, few at a time where they may be large.

    No value is larger than all that its column has in a row group, and a dictionary of one large
    value may stand for any number of rows.
    """
    for group in range(file.num_row_groups):
        there = file.metadata.row_group(group)
        weights = [there.column(place) for place in range(there.num_columns)]
        # the path of a struct's field begins with the column's name
        largest = max(
            (one.total_uncompressed_size for one in weights if _column_of(one, columns)), default=0
        )
        rows = min(BATCH, max(1, BATCH_BYTES // max(1, largest)))
        yield from file.iter_batches(rows, [group], columns=list(columns), use_threads=False)


def _column_of(chunk: Any, columns: Sequence[str]) -> bool:
    path = chunk.path_in_schema
    return any(path == name or path.startswith(f"{name}.") for name in columns)


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Arrow's errors as one that names the table."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def picture_columns(file: pq.ParquetFile) -> list[str]:
    """The columns that have pictures, the first of which counts: by its usual name, else by place.

    One that is not called as usual has a picture in its first rows.
    """
    holding = [one.name for one in file.schema_arrow if _holds_bytes(one.type)]
    usual = [one for name in PICTURES for one in holding if one.lower() == name]
    looked = [name for name in holding if name not in usual[:1]]
    seen: set[str] = set()
    rows = 0
    for batch in batches(file, looked) if looked else ():
        seen |= {
            name for name in looked if _has_picture(batch.column(name)[: FIRST - rows].to_pylist())
        }
        rows += len(batch)
        if rows >= FIRST:
            break
    return list(dict.fromkeys([*usual[:1], *(name for name in [*usual, *holding] if name in seen)]))


def _has_picture(values: Sequence[Any]) -> bool:
    found = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    return any(data and picture_kind(data[:512]) for data in found)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else pa.string()
    # an empty column has no type of its own
    return any(
        is_so(kind) for is_so in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null)
    )


def class_columns(schema: pa.Schema) -> list[str]:
    """The columns of the class: as it is usually called, or the only one that has names.

    The first one is meant, as long as nobody says otherwise.
    """
    small = {name.strip().lower(): name for name in schema.names}
    named = [name for name in _features(schema) if name in schema.names]
    usual = [small[spelling] for spelling in SAYS["of_class"] if spelling in small]
    if not usual and len(named) > 1:
        return []
    return list(dict.fromkeys([*usual, *named]))


def class_names(schema: pa.Schema) -> list[str]:
    """The names that its labels count, as Hugging Face writes them; empty where there are none."""
    columns = class_columns(schema)
    return _features(schema).get(columns[0], []) if columns else []


def columns_told(path: Path, role: str) -> tuple[str, list[str]]:
    """The columns of a table in words, and those that may have a `role`, `image` or `label`."""
    with open_parquet(path) as file:
        schema = file.schema_arrow
    shown = ", ".join(
        printable(f"{one.name} ({one.type})")[:80] for one in list(schema)[:MOST_TOLD]
    )
    more = f", … {len(schema)} in all" if len(schema) > MOST_TOLD else ""
    fit = _holds_bytes if role == "image" else _holds_labels
    likely = [one.name for one in schema if fit(one.type) and not pa.types.is_null(one.type)]
    if role == "label":
        named = [*_features(schema), *(name for name in likely if LABEL_LIKE.search(name.lower()))]
        likely = list(dict.fromkeys(name for name in named if name in likely)) or likely
    return f"its columns are {shown}{more}", likely


def _check_column(path: Path, role: str, name: str, schema: pa.Schema) -> None:
    if name not in schema.names:
        raise UserError(
            f"{path} has no column '{name}' for the {role}: {columns_told(path, role)[0]}"
        )
    kind = schema.field(name).type
    if role == "image" and not _holds_bytes(kind):
        raise UserError(
            f"{path}: its column '{name}' has {kind}, and no encoded images",
            "a column of bytes is expected, or of a struct with a field `bytes`",
        )


def _holds_labels(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(is_so(kind) for is_so in (*numbers, pa.types.is_string, pa.types.is_large_string))


def _features(schema: pa.Schema) -> dict[str, list[str]]:
    """Columns with names for their numbers."""
    found = {}
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for column, feature in features.items():
            if isinstance(feature, dict) and isinstance(feature.get("names"), list):
                found[str(column)] = [str(name) for name in feature["names"]]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return found


def listing(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a metadata.csv, .jsonl or .parquet, and the names that their labels count.

    Raises:
        UserError: it cannot be read, or has no column `file_name`.
    """
    names: list[str] = []
    try:
        if path.suffix.lower() == ".parquet":
            with open_parquet(path) as file:
                names = class_names(file.schema_arrow)
                wanted = [
                    name
                    for name in file.schema_arrow.names
                    if name.strip().lower() in KEPT | STATUS | {LISTED, "key"}
                ]
                rows = file.read(columns=wanted).to_pylist()
        elif path.suffix.lower() == ".csv":
            text = path.read_text("utf-8-sig")
            rows = list(csv.DictReader(io.StringIO(text), strict=True))
        else:
            text = path.read_text("utf-8-sig")
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected a JSON object in each line")
    return rows, names
