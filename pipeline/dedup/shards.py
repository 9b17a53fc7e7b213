"""Fingerprints of whole shards: a decode of every image once, by an engine's workers, cached."""

import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import PIL
import pyarrow as pa

from kd3_pipeline import (
    colour,
    endings,
    exif,
    images,
    paper,
    picturefile,
    pngfile,
    samples,
    store,
    strips,
    weight,
)
from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.dedup import borders, fingerprints, hashing
from kd3_pipeline.dedup.fingerprints import ARRAYS, COLUMNS, Fingerprints, fingerprint_images, zeros
from kd3_pipeline.engine import Engine
from kd3_pipeline.memory import allowed
from kd3_pipeline.runkey import run_key
from kd3_pipeline.store import (
    open_parquet,
    read_shard,
    read_table,
    remove,
    replacing,
    take_room,
    write_table,
)

BATCH = 100  # images in a worker's memory
READ = ("id", "image", "label", "width", "height")
STORED = ("id", "label", "width", "height", "size", "error")
MAPPED = ("grey", "colour")  # too large to hold for all images
SOURCES = [
    Path(str(module.__file__))
    for module in (
        *(images, picturefile, exif, paper, strips, weight, colour, pngfile, endings, samples),
        *(store, hashing, borders, fingerprints),
    )
] + [Path(__file__)]  # the code that a fingerprint depends on


@dataclass(frozen=True)
class Group:
    """A row group of a shard."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}, row group {self.number}"


def fingerprint_shards(
    paths: Sequence[Path],
    kind: str,
    exact: bool,
    cache: Path,
    engine: Engine,
    advance: Advance = no_progress,
) -> Fingerprints:
    """The fingerprints of all images of `paths`; those of finished shards come from `cache`.

    A shard's fingerprints appear in `cache` in one move, in a folder named by all that they
    depend on: after an interruption at any moment, no finished shard is decoded again. One run at
    a time may use a cache; what it does not use is removed in the end. The result does not depend
    on the engine.

    Args:
        paths: image shards as `write_shards` makes them.
        kind: one of `hashing.KINDS`.
        exact: whole and mirrored hashes by the library's function on the picture in full.
        engine: its workers read and decode.
        advance: called with a number of images that are done.

    Raises:
        UserError: a file is no image shard.
        ExternalError: a row group ends every process at work on it, for lack of memory or in a
            decoder; it is named, and all shards before it are in the cache.
    """
    for path in paths:
        next(read_shard(path), None)  # what is no shard is told before hours of work
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.glob(".*.tmp*"):
        remove(left)
    versions = [PIL.__version__, imagehash.__version__, np.__version__]
    settings = {"kind": kind, "exact": exact, "versions": versions, "memory": allowed()}
    folders = [cache / run_key(settings, [path], SOURCES) for path in paths]
    tasks: dict[Path, list[Group]] = {}
    for path, folder in zip(paths, folders, strict=True):
        with open_parquet(path) as file:
            if folder.is_dir():
                advance(file.metadata.num_rows)
            else:
                count = file.metadata.num_row_groups
                tasks[folder] = [Group(path, number) for number in range(count)]
    work = partial(_fingerprinted, kind=kind, exact=exact)
    waiting = itertools.chain.from_iterable(tasks.values())
    with closing(engine.map(work, waiting, _stored)) as results:
        for folder, groups in tasks.items():
            parts = [_nothing()]
            for part in itertools.islice(results, len(groups)):
                parts.append(part)
                advance(part.images.num_rows)
            _save(folder, _concatenated(parts))
    for other in cache.iterdir():
        if other not in folders:
            remove(other)
    return _load(folders, cache)


def _stored(group: Group) -> pa.Table:
    """The encoded images of a row group, and what is known of them."""
    with open_parquet(group.path) as file:
        return file.read_row_group(group.number, columns=list(READ))


def _fingerprinted(stored: pa.Table, kind: str, exact: bool) -> Fingerprints:
    """The fingerprints of one row group; their table has the columns STORED."""
    parts = [_nothing()]
    for batch in stored.to_batches(BATCH):
        data = [one or b"" for one in batch["image"].field("bytes").to_pylist()]
        found, errors = fingerprint_images(data, kind, exact)
        values = {name: batch[name] for name in READ}
        values |= {"size": [len(one) for one in data], "error": errors}
        parts.append(replace(found, images=_table(values)))
    return _concatenated(parts)


def _table(values: Mapping[str, Any]) -> pa.Table:
    return pa.table({name: pa.array(values[name], COLUMNS[name]) for name in STORED})


def _nothing() -> Fingerprints:
    return Fingerprints(_table({name: [] for name in STORED}), **zeros(0))


def _concatenated(parts: Sequence[Fingerprints]) -> Fingerprints:
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Fingerprints(pa.concat_tables([part.images for part in parts]), **arrays)


def _save(folder: Path, of_shard: Fingerprints) -> None:
    with replacing(folder) as temporary:
        write_table(temporary / "images.parquet", of_shard.images)
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(of_shard, name))


def _load(folders: Sequence[Path], cache: Path) -> Fingerprints:
    """The shards' fingerprints as one, the large arrays in files that are gone when they are."""
    tables = [read_table(folder / "images.parquet") for folder in folders]
    counts = [table.num_rows for table in tables]
    joined = pa.concat_tables([_nothing().images, *tables])
    places = {
        "shard": np.repeat(np.arange(len(counts)), counts),
        "row": np.concatenate([np.arange(count) for count in [0, *counts]]),
    }
    columns = {
        name: pa.array(places[name], kind) if name in places else joined[name]
        for name, kind in COLUMNS.items()
    }
    arrays = zeros(0)
    for name, (kind, shape) in ARRAYS.items():
        if name in MAPPED and sum(counts):
            with tempfile.TemporaryFile(dir=cache) as file:
                take_room(file, sum(counts) * math.prod(shape) * np.dtype(kind).itemsize)
                arrays[name] = np.memmap(file, kind, "w+", shape=(sum(counts), *shape))
        else:
            arrays[name] = np.zeros((sum(counts), *shape), kind)
        start = 0
        for folder, count in zip(folders, counts, strict=True):
            arrays[name][start : start + count] = np.load(folder / f"{name}.npy", mmap_mode="r")
            start += count
    return Fingerprints(pa.table(columns), **arrays)
