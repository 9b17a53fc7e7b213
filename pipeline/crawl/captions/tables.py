"""Caption tables on disk: which files there are, and their rows as Arrow batches.

The layouts of LAION, DataComp, COYO and Conceptual Captions are read as they are published.
"""

import codecs
import csv
import glob
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pyarrow.types as kinds

from kd3_pipeline.console import printable
from kd3_pipeline.crawl.columns import KNOWN
from kd3_pipeline.errors import UserError

PARQUET, LINES, PACKED = (".parquet", ".pq"), (".csv", ".tsv"), (".gz", ".bz2", ".zst")
COLUMNS: Mapping[str, tuple[str, ...]] = {  # ours: names in tables, the best first
    **{name: KNOWN[name] for name in ("url", "licence", "licence_url", "page_url", "creator")},
    "text": ("text", "caption", "alt_text", "alt", "description", "title"),
    "similarity": (
        *("similarity", "clip_l14_similarity_score", "clip_similarity_vitl14"),
        *("clip_b32_similarity_score", "clip_similarity_vitb32"),
    ),
    "width": ("original_width", "width"),
    "height": ("original_height", "height"),
    "nsfw": ("nsfw",),
    "punsafe": ("punsafe", "nsfw_score_opennsfw2"),
}
TEXTS = ("url", "text")  # what a table has to have, as text
ACCEPTED = (
    "a caption table has a column of addresses (url, image_url) and one of captions (text, caption,"
    " alt_text, alt, description, title); docs/captions.md has all"
)
BATCH_ROWS, BATCH_BYTES = 32_768, 32 * 2**20  # whichever is less
BLOCK = 8 * 2**20  # bytes of a CSV file at a time; no row may be longer
HEAD, HEAD_ROWS = 2**22, 20  # bytes and rows of a file of lines that tell its layout
BROKEN = (  # what a damaged file raises
    *(pa.ArrowException, OSError, EOFError, ValueError, KeyError),
    csv.Error,
)

Batch = dict[str, pa.Array]  # columns by our names, all of one length


@dataclass
class Remarks:
    """What was seen on reading that a person may want to know."""

    rows: int = 0
    files: int = 0
    broken: list[str] = field(default_factory=list)  # files, each with what is wrong
    headerless: list[str] = field(default_factory=list)  # files, and what was taken for what
    malformed: Counter[str] = field(default_factory=Counter)  # rows of another shape, by file


def table_paths(source: str) -> list[Path]:
    """The tables that `source` means: a file, all below a folder, or those of a pattern; sorted.

    Raises:
        UserError: there are none, or the file is of another kind.
    """
    known = f"known are {', '.join(PARQUET + LINES)}, the last two also with {', '.join(PACKED)}"
    path = Path(source)
    if path.is_dir():
        found = [one for one in path.rglob("*") if is_table(one)]
    elif path.exists():
        if not is_table(path):
            raise UserError(f"crawl.source: {path} is no caption table", known)
        return [path]
    elif glob.has_magic(source):
        found = [Path(one) for one in glob.glob(source, recursive=True) if is_table(Path(one))]
    else:
        raise UserError(
            f"crawl.source: {path} not found", "a file, a folder or a pattern, as *.csv"
        )
    if not found:
        raise UserError(f"crawl.source: no caption table in {source}", known)
    return sorted(found)


def is_table(path: Path) -> bool:
    """Tells by its name whether a file is one of the kinds that are read."""
    name = path.name.lower()
    if name.endswith(PACKED):
        return name.rpartition(".")[0].endswith(LINES) and path.is_file()
    return name.endswith(PARQUET + LINES) and path.is_file()


def row_total(paths: Sequence[Path]) -> int | None:
    """Rows of all files; None if some do not say before they are read."""
    total = 0
    for path in paths:
        if not path.name.lower().endswith(PARQUET):
            return None
        try:
            total += pq.read_metadata(path).num_rows
        except BROKEN:  # told when it is read
            continue
    return total


def batches(paths: Sequence[Path], remarks: Remarks) -> Iterator[Batch]:
    """The rows of all files in order, a batch in memory at a time, with the columns that are used.

    A file that cannot be read to its end is left there and named in `remarks`; others go on.

    Raises:
        UserError: no file could be read to its end.
    """
    for path in paths:
        read = _parquet if path.name.lower().endswith(PARQUET) else _lines
        try:
            for batch in read(path, remarks):
                remarks.rows += len(batch["url"])
                yield batch
            remarks.files += 1
        except UserError as error:
            remarks.broken.append(str(error))
        except BROKEN as error:
            said = printable(" ".join(str(error).split()))[:300]
            remarks.broken.append(f"{path} cannot be read: {said or type(error).__name__}")
    if not remarks.files:
        more = f" ({len(paths):,} files, none can be read)" if len(paths) > 1 else ""
        raise UserError(f"crawl.source: {remarks.broken[0]}{more}")


def columns_of(path: Path, names: Sequence[str], usable: Sequence[bool | None]) -> dict[str, int]:
    """Our names for a table's columns: which column is meant by each.

    Args:
        usable: for each column, whether it holds text; None for a number, which may still be a
            size or a similarity.

    Raises:
        UserError: there is no column of addresses or none of captions.
    """
    keys = [_key(name) for name in names]
    found = {}
    for ours, theirs in COLUMNS.items():
        places = [keys.index(_key(name)) for name in theirs if _key(name) in keys]
        if ours in TEXTS:
            places = [place for place in places if usable[place]]
        places = [place for place in places if usable[place] is not False]
        if places:
            found[ours] = places[0]
    lacking = [name for name in TEXTS if name not in found]
    if lacking:
        what = {"url": "addresses", "text": "captions"}[lacking[0]]
        there = ", ".join(f"'{printable(name)[:60]}'" for name in names[:20]) or "none"
        raise UserError(f"{path}: no column of {what} among {there}", ACCEPTED)
    return found


def _key(name: str) -> str:
    """A column's name without letter case, spaces, underscores and quotes."""
    return "".join(letter for letter in name.lower() if letter not in ' _"')


def _parquet(path: Path, remarks: Remarks) -> Iterator[Batch]:
    # without pre_buffer a row group is streamed page by page: some tables have one of gigabytes
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        schema = file.schema_arrow
        usable = [_holds_text(one.type) for one in schema]
        wanted = columns_of(path, schema.names, usable)
        names = {ours: schema.names[place] for ours, place in wanted.items()}
        rows = _batch_rows(file.metadata)
        for batch in file.iter_batches(rows, columns=list(names.values()), use_threads=False):
            yield {ours: batch.column(theirs) for ours, theirs in names.items()}


def _batch_rows(about: pq.FileMetaData) -> int:
    """Rows of a batch, fewer where rows are long."""
    size = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
    return max(64, min(BATCH_ROWS, BATCH_BYTES * about.num_rows // max(size, 1)))


def _holds_text(kind: pa.DataType) -> bool | None:
    """None for a plain value that is no text."""
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    if kinds.is_nested(kind):
        return False
    text = (
        kinds.is_string(kind)
        or kinds.is_large_string(kind)
        or kinds.is_string_view(kind)
        or kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_null(kind)
    )
    return text or None


def _lines(path: Path, remarks: Remarks) -> Iterator[Batch]:
    """CSV has quotes as RFC 4180 says. TSV has none, as Conceptual Captions: a " is a letter."""
    tabs = ".tsv" in path.name.lower()[-8:]
    head = _head(path)
    separator = "\t" if tabs else _separator(head.partition("\n")[0])
    rows = _first_rows(head, separator, tabs)
    layout, header = _layout(path, rows, remarks)

    def malformed(row: pcsv.InvalidRow) -> str:
        remarks.malformed[str(path)] += 1
        return "skip"

    names = [str(place) for place in range(len(rows[0]))]
    used = {ours: names[place] for ours, place in layout.items()}
    with (
        pa.input_stream(str(path), compression="detect") as stream,
        pcsv.open_csv(
            stream,
            pcsv.ReadOptions(
                use_threads=False,
                block_size=BLOCK,
                column_names=names,
                skip_rows_after_names=header,
            ),
            pcsv.ParseOptions(
                delimiter=separator,
                quote_char=False if tabs else '"',
                newlines_in_values=not tabs,
                invalid_row_handler=malformed,
            ),
            pcsv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.binary()),
                include_columns=list(used.values()),
                strings_can_be_null=False,
            ),
        ) as reader,
    ):
        for block in reader:
            for start in range(0, len(block), BATCH_ROWS):
                some = block.slice(start, BATCH_ROWS)
                yield {ours: some.column(name) for ours, name in used.items()}


def _head(path: Path) -> str:
    """The first rows of a file of lines; the last may be cut."""
    with pa.input_stream(str(path), compression="detect") as stream:
        data = stream.read(HEAD)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path} is UTF-16", "write it as UTF-8")
    text = data.decode("utf-8-sig", "replace").replace("\0", "")
    if not text.strip():
        raise UserError(f"{path} is empty", ACCEPTED)
    return text


def _first_rows(head: str, separator: str, tabs: bool) -> list[list[str]]:
    """Cells of the first rows that are not empty."""
    lines, before = io.StringIO(head, newline=""), csv.field_size_limit(HEAD)
    try:
        if tabs:
            reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(lines, delimiter=separator)
        return list(islice(filter(None, reader), HEAD_ROWS))
    finally:
        csv.field_size_limit(before)


def _separator(line: str) -> str:
    return max(",", "\t", ";", key=line.count)


def _layout(
    path: Path, rows: Sequence[Sequence[str]], remarks: Remarks
) -> tuple[dict[str, int], bool]:
    """Which column is what, and whether the first row is a header.

    Without a header (as Conceptual Captions are published) the one of two columns that holds
    addresses is told by what is in it.
    """
    some = [row for row in rows if len(row) == len(rows[0])]
    addresses = [sum(_is_address(row[place]) for row in some) for place in range(len(rows[0]))]
    if not any(_is_address(cell) for cell in rows[0]):
        return columns_of(path, rows[0], [True] * len(rows[0])), True
    if len(rows[0]) != 2 or max(addresses) < len(some) or min(addresses) > len(some) / 2:
        raise UserError(f"{path} has no header, and is not two columns of which one is addresses")
    url = addresses.index(max(addresses))
    what = "addresses and captions" if url == 0 else "captions and addresses"
    remarks.headerless.append(f"{path} has no header: its columns are taken for {what}")
    return {"url": url, "text": 1 - url}, False


def _is_address(cell: str) -> bool:
    return cell.strip(' "').lower().startswith(("http://", "https://"))
