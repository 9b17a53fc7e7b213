"""Addresses of images from a file of the user, in place of a search engine."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.manifest import Candidate
from pipeline.store import open_parquet

LONGEST_LINE = 2**20  # bytes
TEXTS = ("title", "page_url", "thumbnail", "licence", "licence_url", "creator")
OTHER_SPELLING = {"license": "licence", "license_url": "licence_url"}
COLUMNS = {"url", "class", "label", *TEXTS}

PlacedRow = tuple[str, Mapping[str, Any]]  # where it is, its values by column


def listed_candidates(path: Path, class_names: Sequence[str]) -> list[Candidate]:
    """The addresses of a file in its order, which is their rank.

    Args:
        path: .txt (an address a line, # begins a comment), .csv (with a header), .jsonl, each
            also with .gz, or .parquet. The address is in the column `url`, or the only one;
            `class` (a name) or `label` (an index) are its class, `title`, `page_url`,
            `thumbnail`, `licence`, `licence_url` and `creator` are kept, others are not read.
        class_names: what `class` may be, and what `label` counts. Without both a label is -1.

    Raises:
        UserError: no such file, of another kind, empty, or a row is wrong (it is named).
    """
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    reader = {"txt": _text, "csv": _csv, "jsonl": _jsonl, "parquet": _parquet}.get(kind)
    if reader is None or (reader is _parquet and path.suffix.lower() == ".gz"):
        raise UserError(f"crawl.source: {path} is no .txt, .csv, .jsonl or .parquet file")
    if not path.is_file():
        raise UserError(f"crawl.source: {path} is no file")
    labels = {name: label for label, name in enumerate(class_names)}
    candidates = []
    try:
        for rank, (place, row) in enumerate(reader(path)):
            label = _label(place, row, labels)
            candidates.append(
                Candidate(
                    label,
                    class_names[label] if label >= 0 else "",
                    "urls",
                    "",
                    rank,
                    _value(place, row, "url"),
                    **{name: _value(place, row, name) for name in TEXTS},
                )
            )
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise UserError(f"crawl.source: {path} cannot be read: {error}") from None
    if not candidates:
        raise UserError(f"crawl.source: {path} has no addresses")
    return candidates


def _text(path: Path) -> Iterator[PlacedRow]:
    for number, line in _lines(path):
        address = line.strip()
        if address and not address.startswith("#"):
            yield f"{path}, line {number}", {"url": address}


def _csv(path: Path) -> Iterator[PlacedRow]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    names: list[str] = []
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
        if not names:
            names = _columns(path, cells)
        elif len(cells) != len(names):
            raise UserError(
                f"crawl.source: {place}: {len(cells)} columns, but the header has {len(names)}"
            )
        else:
            yield place, dict(zip(names, cells, strict=True))


def _jsonl(path: Path) -> Iterator[PlacedRow]:
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
        names = _known(row)
        if "url" not in names:
            raise UserError(f"crawl.source: {place}: no key 'url' among {_quoted(list(row))}")
        yield place, dict(zip(names, row.values(), strict=True))


def _parquet(path: Path) -> Iterator[PlacedRow]:
    with open_parquet(path) as file:
        there = file.schema_arrow.names
        names = dict(zip(_columns(path, there), there, strict=True))
        wanted = {name: column for name, column in names.items() if name in COLUMNS}
        number = 0
        for batch in file.iter_batches(batch_size=10_000, columns=list(wanted.values())):
            columns = [batch.column(column).to_pylist() for column in wanted.values()]
            for values in zip(*columns, strict=True):
                yield f"{path}, row {number}", dict(zip(wanted, values, strict=True))
                number += 1


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
                raise UserError(f"crawl.source: {path}, line {number}: {error}") from None


def _columns(path: Path, names: Sequence[str]) -> list[str]:
    """The names of a header as this module calls them, `url` for an only column."""
    known = _known(names)
    if len(known) == 1 and known[0].startswith(("http:", "https:")):
        raise UserError(
            f"crawl.source: {path}: the first line is an address, not a header",
            "begin with the line 'url', or call the file .txt",
        )
    if len(known) == 1 and known[0] not in COLUMNS:
        return ["url"]
    if "url" not in known:
        raise UserError(f"crawl.source: {path}: no column 'url' among {_quoted(names)}")
    if twice := {name for name in known if known.count(name) > 1 and name in COLUMNS}:
        raise UserError(f"crawl.source: {path}: two columns '{min(twice)}' in {_quoted(names)}")
    return known


def _known(names: Iterable[str]) -> list[str]:
    small = [name.strip().lower() for name in names]
    return [OTHER_SPELLING.get(name, name) for name in small]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name[:60]}'" for name in names[:20]) or "none"


def _value(place: str, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None and column != "url":
        return ""
    if not isinstance(value, str) or (column == "url" and not value.strip()):
        raise UserError(f"crawl.source: {place}, column '{column}': {value!r:.60} is no text")
    return value.strip()


def _label(place: str, row: Mapping[str, Any], labels: Mapping[str, int]) -> int:
    name, number = _value(place, row, "class"), row.get("label")
    if name and name not in labels:
        known = ", ".join(list(labels)[:12]) + (", …" if len(labels) > 12 else "")
        raise UserError(
            f"crawl.source: {place}, column 'class': '{name[:60]}' is no class of this crawl",
            f"crawl.classes has {known}",
        )
    text = "" if number is None else str(number).strip()
    if not text:
        return labels.get(name, -1)
    label = int(text) if re.fullmatch(r"-1|[0-9]{1,9}", text) else len(labels)
    if label >= len(labels):
        raise UserError(
            f"crawl.source: {place}, column 'label': {text[:60]} is no number from 0 to"
            f" {len(labels) - 1}, nor -1 for none"
        )
    if name and labels[name] != label:
        raise UserError(
            f"crawl.source: {place}: class '{name}' has the label {labels[name]}, not {label}"
        )
    return label
