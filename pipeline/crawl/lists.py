"""Addresses of images from a file of the user, in place of a search engine."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.crawl.columns import ADDRESS, Columns, check_no_header, licence_of
from kd3_pipeline.crawl.links import ends_as_image
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import Candidate
from kd3_pipeline.store import open_parquet

LONGEST_LINE = 2**20  # bytes
LONGEST_VALUE = 64 * 1024  # bytes: a Parquet file of a few KB may hold gigabytes of them
TEXTS = ("title", "page_url", "thumbnail", "licence", "licence_url", "creator")
BATCH = 1000  # rows of a Parquet file
TOLD_EVERY = 10_000  # rows
TEXT_FORMS = {1: "an address", 2: "an id and an address", -2: "an address and a text"}
TEXT_TITLES: dict[int, dict[str, str]] = {1: {}, 2: {"title": "id"}, -2: {"title": "text"}}
TEXT_HINT = (
    "a .txt list has an address (http://… or https://…) a line, or an id and an address with a tab"
    " between them, all lines alike; spaces within an address may have to be written %20; a table"
    " with names of columns is a .csv or .tsv"
)

PlacedRow = tuple[str, Mapping[str, Any]]  # where it is, its values by what they are


def listed_candidates(
    path: Path,
    class_names: Sequence[str],
    lines: list[str] | None = None,
    advance: Advance = no_progress,
) -> list[Candidate]:
    """The addresses of a file in its order, which is their rank.

    Args:
        path: .txt (an address a line, or an id and an address; # begins a comment), .csv and .tsv
            (with a header), .jsonl, each also with .gz, or .parquet. The address is in the column
            `url`, or the only one; `class` (a name) or `label` (an index) are its class, `title`,
            `page_url`, `thumbnail`, `licence`, `licence_url` and `creator` are kept; each also
            under a name that `columns.KNOWN` has. Others are not read. The id is the title.
        class_names: what `class` may be, and what `label` counts. Without both a label is -1.
        lines: gets what a person should know, such as which columns were taken for what.

    Raises:
        UserError: no such file, of another kind, empty, without an address, or a row is wrong (it
            is named).
    """
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    reader = READERS.get(kind)
    if reader is None or (kind == "parquet" and path.suffix.lower() == ".gz"):
        raise UserError(f"crawl.source: {path} is no .txt, .csv, .tsv, .jsonl or .parquet file")
    if not path.is_file():
        raise UserError(f"crawl.source: {path} is no file")
    labels = {name: label for label, name in enumerate(class_names)}
    candidates, columns = list[Candidate](), Columns(path)
    try:
        for rank, (place, row) in enumerate(reader(path, columns)):
            label = _label(place, row, labels, columns)
            candidates.append(
                Candidate(
                    label,
                    class_names[label] if label >= 0 else "",
                    "urls",
                    "",
                    rank,
                    _value(place, row, "url", columns),
                    **licence_of({name: _value(place, row, name, columns) for name in TEXTS}),
                )
            )
            if not len(candidates) % TOLD_EVERY:
                advance(TOLD_EVERY)
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"crawl.source: {path} cannot be read: {error}") from None
    if not candidates:
        raise UserError(f"crawl.source: {path} has no addresses")
    if not any(ADDRESS.match(one.url) for one in candidates):
        raise UserError(
            f"crawl.source: {path}, column '{columns.name('url')[:60]}': none of"
            f" {len(candidates):,} values is a web address, as '{candidates[0].url[:60]}'",
            "call the column with the addresses (http://… or https://…) 'url'",
        )
    if lines is not None:
        lines += columns.lines()
    return candidates


def _text(path: Path, columns: Columns) -> Iterator[PlacedRow]:
    """Lines that are all like the first: an address, an id and one, or one and a text."""
    expected, first = 0, 0
    for number, line in _lines(path):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        place = f"{path}, line {number}"
        form, address, title = _text_columns(words)
        if not form:
            raise UserError(f"crawl.source: {place}: '{words[:60]}' is no web address", TEXT_HINT)
        if form != expected and expected:
            raise UserError(
                f"crawl.source: {place} has {TEXT_FORMS[form]}, but line {first} has"
                f" {TEXT_FORMS[expected]}",
                TEXT_HINT,
            )
        if not expected:
            expected, first = form, number
            columns.taken = {"url": "url"} | TEXT_TITLES[form]
        yield place, {"url": address, "title": title}


def _text_columns(line: str) -> tuple[int, str, str]:
    """(a key of `TEXT_FORMS`, address, the other text), with a key of 0 for no such line."""
    if "\t" in line:
        one, other, *more = (part.strip() for part in line.split("\t"))
        if not more and bool(ADDRESS.match(one)) != bool(ADDRESS.match(other)):
            return (-2, one, other) if ADDRESS.match(one) else (2, other, one)
        return 0, "", ""
    first, *rest = line.split(maxsplit=1)
    title, address = (first, rest[0]) if rest and not ADDRESS.match(first) else ("", line)
    words = address.split()
    # a name may have spaces where nothing before its last word ends as one: a text has no tab then
    named = ends_as_image(address) and not any(map(ends_as_image, words[:-1]))
    if not ADDRESS.match(address) or any(map(ADDRESS.match, words[1:])):
        return 0, "", ""
    if len(words) > 1 and not named:
        return 0, "", ""
    return (2 if title else 1), address, title


def _csv(path: Path, columns: Columns) -> Iterator[PlacedRow]:
    return _table(path, columns, csv.reader((line for _, line in _lines(path)), strict=True))


def _tsv(path: Path, columns: Columns) -> Iterator[PlacedRow]:
    # tabs cannot be within a cell, and quotes are what they are
    lines = (line for _, line in _lines(path))
    return _table(path, columns, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _table(path: Path, columns: Columns, reader: Any) -> Iterator[PlacedRow]:
    width, kept = 0, dict[str, int]()
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"crawl.source: {path}, line {reader.line_num}: {error}") from None
        place = f"{path}, line {reader.line_num}"
        if not cells:
            continue
        if not width:
            check_no_header(path, cells)
            width, kept = len(cells), columns.of(cells)
        elif len(cells) != width:
            raise UserError(
                f"crawl.source: {place}: {len(cells)} columns, but the header has {width}"
            )
        else:
            yield place, {name: cells[index] for name, index in kept.items()}


def _jsonl(path: Path, columns: Columns) -> Iterator[PlacedRow]:
    known: dict[tuple[str, ...], dict[str, int]] = {}
    for number, line in _lines(path):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"crawl.source: {place}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f'crawl.source: {place}: expected a JSON object, as {{"url": …}}')
        keys, values = tuple(row), list(row.values())
        if keys not in known:
            known[keys] = columns.of(keys, place, only=False)
        yield place, {name: values[index] for name, index in known[keys].items()}


def _parquet(path: Path, columns: Columns) -> Iterator[PlacedRow]:
    with open_parquet(path) as file:
        schema = file.schema_arrow
    names, number = schema.names, 0
    kept = {name: names[index] for name, index in columns.of(names).items()}
    texts = [name for name in kept.values() if _may_be_long(schema.field(name).type)]
    # one long text may stand for any number of rows: it is looked at once, before it is
    with open_parquet(path, streamed=True, dictionaries=texts) as file:
        for batch in file.iter_batches(BATCH, columns=list(kept.values()), use_threads=False):
            place = f"{path}, row {number}"
            lists = [_plain(place, name, batch.column(name)) for name in kept.values()]
            for values in zip(*lists, strict=True):
                yield f"{path}, row {number}", dict(zip(kept, values, strict=True))
                number += 1


def _may_be_long(kind: pa.DataType) -> bool:
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_binary(kind)


def _plain(place: str, name: str, values: pa.Array) -> list[Any]:
    """The values of a batch of a column, which begins at `place`."""
    if kinds.is_dictionary(values.type) and _may_be_long(values.type.value_type):
        if (pc.max(pc.binary_length(values.dictionary)).as_py() or 0) > LONGEST_VALUE:
            raise _too_long(place, name)
        values = values.dictionary_decode()
    return values.to_pylist()


def _too_long(place: str, name: str) -> UserError:
    return UserError(
        f"crawl.source: {place}, column '{name[:60]}': a text of more than {LONGEST_VALUE:,} bytes"
    )


READERS = {"txt": _text, "csv": _csv, "tsv": _tsv, "jsonl": _jsonl, "parquet": _parquet}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines from 1, with their ends."""
    number = 0
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise UserError(f"crawl.source: {path}, line {number}: longer than 1 MiB")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"crawl.source: {path}, line {number}: {error}", "write the file as UTF-8"
                ) from None


def _value(place: str, row: Mapping[str, Any], what: str, columns: Columns) -> str:
    value, name = row.get(what), columns.name(what)
    if value is None and what != "url":
        return ""
    if not isinstance(value, str) or (what == "url" and not value.strip()):
        if what in TEXTS and name.strip().lower() != what:  # nobody promised us a text there
            columns.no_text[name] += 1
            return ""
        raise UserError(f"crawl.source: {place}, column '{name[:60]}': {value!r:.60} is no text")
    if len(value) > LONGEST_VALUE:
        raise _too_long(place, name)
    return value.strip()


def _label(place: str, row: Mapping[str, Any], labels: Mapping[str, int], columns: Columns) -> int:
    name, number = _value(place, row, "class", columns), row.get("label")
    if name and name not in labels:
        known = ", ".join(list(labels)[:12]) + (", …" if len(labels) > 12 else "")
        raise UserError(
            f"crawl.source: {place}, column '{columns.name('class')}': '{name[:60]}' is no class"
            " of this crawl",
            f"crawl.classes has {known}",
        )
    text = "" if number is None else str(number).strip()
    if not text:
        return labels.get(name, -1)
    label = int(text) if re.fullmatch(r"-1|[0-9]{1,9}", text) else len(labels)
    if label >= len(labels):
        raise UserError(
            f"crawl.source: {place}, column 'label': {text[:60]} is no number from 0 to"
            f" {len(labels) - 1}, nor -1 for none",
            "names of classes go in a column 'class'",
        )
    if name and labels[name] != label:
        raise UserError(
            f"crawl.source: {place}: class '{name}' has the label {labels[name]}, not {label}"
        )
    return label
