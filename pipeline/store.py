"""Files between stages: written whole or not at all, the same bytes every time, read by batch."""

import csv
import ctypes
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from kd3_pipeline.errors import UserError

T = TypeVar("T")

SHARD_ROWS = 2000
SHARD_BYTES = 256 * 2**20
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)
STREAM = 2**20  # bytes of a streamed file that are held back
ROW_GROUP = 100  # rows that are read at once
IMAGE_COLUMNS = {
    "id": pa.string(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "label": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "format": pa.string(),
}


@dataclass(frozen=True)
class StoredImage:
    """One encoded image. `id` is the SHA-256 of `data` in hex; `label` is -1 where unknown."""

    id: str
    data: bytes
    label: int
    width: int
    height: int
    format: str


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target` that takes its place when the block succeeds.

    A reader never sees half an output; after a failure the old one is untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target)
    temporary, aside = beside(target, "tmp"), beside(target, "old")
    try:
        yield temporary
        if os.path.lexists(target) and (temporary.is_dir() or target.is_dir()):
            # nothing can be renamed over a full directory
            if _exchanged(temporary, target):
                return
            os.replace(target, aside)
        os.replace(temporary, target)
    except BaseException:
        if os.path.lexists(aside):
            os.replace(aside, target)
        raise
    finally:
        remove(temporary)
        remove(aside)


def beside(target: Path, kind: str) -> Path:
    """A name of this process's own beside `target`, for what is to be it (tmp) or was it (old)."""
    return target.with_name(f".{target.name}.{kind}{os.getpid()}")


def _exchanged(one: Path, other: Path) -> bool:
    """Gives two paths each other's names in one move; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # Linux, from glibc 2.28 on
    except (OSError, AttributeError):
        return False
    paths = (os.fsencode(path.absolute()) for path in (one, other))
    return rename(AT_FDCWD, next(paths), AT_FDCWD, next(paths), RENAME_EXCHANGE) == 0


def clear_leftovers(target: Path) -> None:
    """Removes what processes left beside `target` that were killed, or this one's before.

    What one had moved aside to make room goes back, if it died before the room was taken.
    """
    for path in target.parent.glob(f".{target.name}.*"):
        owner = re.fullmatch(r"\.(tmp|old)(\d+)", path.name.removeprefix(f".{target.name}"))
        if owner and (int(owner[2]) == os.getpid() or not _alive(int(owner[2]))):
            if owner[1] == "old" and not os.path.lexists(target):
                os.replace(path, target)
            else:
                remove(path)


def claim(file: IO[bytes]) -> None:
    """Keeps a file that is written for this process alone, until it is closed.

    Raises:
        UserError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{file.name} is being written by another process",
            "wait for its end; what it leaves, if it is ended, the same command goes on with",
        ) from None
    except OSError:  # a file system without locks
        return


def take_room(file: IO[bytes], size: int) -> None:
    """Takes `size` bytes of the disk now: a mapped file that finds none later ends the process.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, size)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def remove(path: Path) -> None:
    """Removes a file, or a directory with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table) -> None:
    """Writes one Parquet file whose bytes depend on the table alone."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", version="2.6", write_statistics=False)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one move, UTF-8 with plain line ends."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8", newline="\n")


def write_json(path: Path, value: object) -> None:
    """Writes readable JSON with a stable layout."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file in one move: UTF-8, plain line ends, an empty cell for None."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_shards(folder: Path, images: Iterable[StoredImage], class_names: Sequence[str]) -> int:
    """Writes `images` in order as `images-00000.parquet` …, and returns how many there were.

    A shard holds at most 2,000 rows or 256 MiB. `datasets.load_dataset("parquet", …)` reads them
    as images.
    """
    schema = shard_schema(class_names)
    total = 0
    folder.mkdir(parents=True, exist_ok=True)
    for shard, some in in_shards(images, lambda image: len(image.data)):
        total += write_shard(shard_path(folder, shard), some, schema)
    if not total:
        write_shard(shard_path(folder, 0), (), schema)
    return total


def in_shards(images: Iterable[T], size: Callable[[T], int]) -> Iterator[tuple[int, Iterator[T]]]:
    """The images in order, by the number of the shard that they belong to; none is held.

    Args:
        size: bytes of an image.
    """
    shard = rows = held = 0

    def number(image: T) -> int:
        nonlocal shard, rows, held
        more = size(image)
        if rows and (rows == SHARD_ROWS or held + more > SHARD_BYTES):
            shard, rows, held = shard + 1, 0, 0
        rows, held = rows + 1, held + more
        return shard

    return groupby(images, number)


def write_shard(path: Path, images: Iterable[StoredImage], schema: pa.Schema) -> int:
    """Writes one shard, and returns how many images there were; a row group is held at a time."""
    group: list[StoredImage] = []
    total = 0
    # encoded images do not compress any further
    with pq.ParquetWriter(path, schema, compression="none", version="2.6") as writer:
        for image in images:
            group.append(image)
            total += 1
            if len(group) == ROW_GROUP:
                _flush(writer, group)
        _flush(writer, group, even_none=not total)
    return total


def shard_schema(class_names: Sequence[str]) -> pa.Schema:
    """Columns of a shard, and what `datasets` reads of them."""
    return pa.schema(IMAGE_COLUMNS.items()).with_metadata(_features(class_names))


def _flush(writer: pq.ParquetWriter, group: list[StoredImage], *, even_none: bool = False) -> None:
    if group or even_none:
        writer.write_table(_rows(group, writer.schema), ROW_GROUP)
        group.clear()


def _rows(images: Sequence[StoredImage], schema: pa.Schema) -> pa.Table:
    data = pa.array([image.data for image in images], pa.binary())
    paths = pa.array([f"{image.id}.{image.format.lower()}" for image in images], pa.string())
    pictures = pa.StructArray.from_arrays([data, paths], ["bytes", "path"])
    at = schema.get_field_index("image")
    table = image_columns(images, schema).add_column(at, schema.field(at), pictures)
    return table.replace_schema_metadata(schema.metadata)


def image_columns(images: Sequence[StoredImage], schema: pa.Schema) -> pa.Table:
    """What a shard says of images, without their bytes."""
    columns = [one for one in schema if one.name != "image"]
    arrays = [pa.array([getattr(image, one.name) for image in images], one.type) for one in columns]
    return pa.table(arrays, schema=pa.schema(columns))


def shard_path(folder: Path, shard: int) -> Path:
    """Path of the shard with this number."""
    return folder / f"images-{shard:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The image shards of `folder` in order.

    Raises:
        UserError: there are none.
    """
    paths = sorted(folder.glob("images-*.parquet"))
    if not paths:
        raise UserError(f"no image shards in {folder}", "run `pipeline crawl` or `dvc repro crawl`")
    return paths


def row_count(path: Path) -> int:
    """Rows of a Parquet file.

    Raises:
        UserError: the file is missing or is not Parquet.
    """
    with open_parquet(path) as file:
        return file.metadata.num_rows


def read_shard(path: Path) -> Iterator[StoredImage]:
    """The images of one shard in order, a row group in memory at a time.

    Raises:
        UserError: not a Parquet file, or a column is missing or of another type.
    """
    with open_parquet(path) as file:
        for name, wanted in IMAGE_COLUMNS.items():
            index = file.schema_arrow.get_field_index(name)
            found = file.schema_arrow.field(index).type if index >= 0 else None
            if found != wanted:
                raise UserError(f"{path}: column '{name}': expected {wanted}, found {found}")
        for batch in file.iter_batches(batch_size=ROW_GROUP, columns=list(IMAGE_COLUMNS)):
            for row in batch.to_pylist():
                data = row.pop("image")["bytes"]
                yield StoredImage(data=data, **row)


def read_table(path: Path, columns: Sequence[str] | None = None, hint: str = "") -> pa.Table:
    """A Parquet file, or only some of its columns.

    Args:
        hint: what to do when that fails.

    Raises:
        UserError: the file is missing, is not Parquet, or lacks a column.
    """
    with open_parquet(path, hint) as file:
        lacking = [name for name in columns or () if name not in file.schema_arrow.names]
        if lacking:
            raise UserError(f"{path}: no column '{lacking[0]}'", hint)
        try:
            return file.read(columns=list(columns) if columns else None)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error, hint) from None


@contextmanager
def open_parquet(
    path: Path, hint: str = "", *, streamed: bool = False, dictionaries: Sequence[str] = ()
) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file, with a UserError that names it when that fails.

    Args:
        streamed: read a bit at a time, and not a whole column of a row group before its first row.
        dictionaries: columns of texts that are to come as dictionaries.
    """
    if not path.is_file():
        raise UserError(f"{path} not found", hint or "run `dvc repro`, or the stage that writes it")
    try:
        file = pq.ParquetFile(
            path,
            pre_buffer=not streamed,
            buffer_size=STREAM if streamed else 0,
            read_dictionary=list(dictionaries),
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error, hint) from None
    with file:
        yield file


def _unreadable(path: Path, error: Exception, hint: str) -> UserError:
    return UserError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}", hint)


def _features(class_names: Sequence[str]) -> dict[str, str]:
    # the layout that Hugging Face datasets reads from a Parquet schema's metadata
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"names": list(class_names), "_type": "ClassLabel"}
        if class_names
        else {"dtype": "int64", "_type": "Value"},
        "width": {"dtype": "int32", "_type": "Value"},
        "height": {"dtype": "int32", "_type": "Value"},
        "format": {"dtype": "string", "_type": "Value"},
    }
    return {"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)}
