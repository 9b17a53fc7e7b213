"""One decode of each stored image gives all that dedup compares: its print."""

import itertools
import os
import signal
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import imagehash
import numpy as np
import PIL
import pyarrow as pa
from PIL import Image, ImageOps

from pipeline import images, store
from pipeline.console import Advance, no_progress
from pipeline.dedup import hashing, picture
from pipeline.dedup.hashing import GREY, KEYS, SHAPES, centre_of, cut_hashes, library_hash
from pipeline.dedup.picture import (
    Box,
    inside_border,
    lanczos,
    may_have_border,
    small_picture,
    squashed,
)
from pipeline.errors import ExternalError
from pipeline.images import ImageError, decode
from pipeline.runkey import run_key
from pipeline.store import open_parquet, read_shard, read_table, remove, replacing, write_table

COLOUR = 32  # side of the colour picture
BATCH = 100  # images in a worker's memory
COLUMNS = {
    "id": pa.string(),
    "shard": pa.int32(),
    "row": pa.int32(),
    "label": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "size": pa.int64(),
    "error": pa.string(),
}
STORED = ("id", "label", "width", "height", "size", "error")
ARRAYS = {  # of Prints: the type, and the shape of one image's
    "hashes": (np.uint64, (len(KEYS),)),
    "trim": (np.float32, (4,)),
    "flat": (np.bool_, ()),
    "grey": (np.uint8, (GREY, GREY)),
    "colour": (np.uint8, (COLOUR, COLOUR, 3)),
}
MAPPED = ("grey", "colour")  # too large to hold for all images

FLAT_DEVIATION = 5.0  # grey levels: below it, unlike pictures have like hashes
FLAT_AREA = 0.25  # of the picture, inside its border
FLAT_SIDE = 8  # pixels

Task = tuple[Path, int, str, bool]  # shard, row group, kind, exact


@dataclass(frozen=True)
class Prints:
    """The prints of N images, in the order of shards and rows; rows with an error have zeros."""

    images: pa.Table  # COLUMNS; size in bytes, error empty where the image can be read
    hashes: np.ndarray  # uint64 [N, 4], in the order of hashing.KEYS
    trim: np.ndarray  # float32 [N, 4]: left, top, right, bottom inside the border, as shares
    flat: np.ndarray  # bool [N]: blank, of one colour, or too small: a hash cannot tell
    grey: np.ndarray  # uint8 [N, 64, 64], squashed, upright, transparency on white
    colour: np.ndarray  # uint8 [N, 32, 32, 3], the same in RGB


def print_shards(
    paths: Sequence[Path],
    kind: str,
    exact: bool,
    cache: Path,
    workers: int = 1,
    advance: Advance = no_progress,
) -> Prints:
    """The prints of all images of `paths`; those of finished shards come from `cache`.

    A shard's prints appear in `cache` in one move, in a folder named by all that they depend on:
    after an interruption at any moment, no finished shard is decoded again. One run at a time may
    use a cache; what it does not use is removed in the end. The result does not depend on
    `workers`.

    Args:
        paths: image shards as `write_shards` makes them.
        kind: one of `hashing.KINDS`.
        exact: whole and mirrored hashes by the library's function on the picture in full.
        workers: processes; with 1, none is started.
        advance: called with a number of images that are done.

    Raises:
        UserError: a file is no image shard.
        ExternalError: a worker process died, for lack of memory or in a decoder.
    """
    for path in paths:
        next(read_shard(path), None)  # what is no shard is told before hours of work
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.glob(".*.tmp*"):
        remove(left)
    versions = [PIL.__version__, imagehash.__version__, np.__version__]
    settings = {"kind": kind, "exact": exact, "versions": versions}
    sources = [Path(str(m.__file__)) for m in (images, store, hashing, picture)] + [Path(__file__)]
    folders = [cache / run_key(settings, [path], sources) for path in paths]
    tasks: dict[Path, list[Task]] = {}
    for path, folder in zip(paths, folders, strict=True):
        with open_parquet(path) as file:
            if folder.is_dir():
                advance(file.metadata.num_rows)
            else:
                groups = range(file.metadata.num_row_groups)
                tasks[folder] = [(path, group, kind, exact) for group in groups]
    with _in_order(itertools.chain.from_iterable(tasks.values()), workers) as printed:
        for folder, groups in tasks.items():
            parts = [_nothing()]
            for part in itertools.islice(printed, len(groups)):
                parts.append(part)
                advance(part.images.num_rows)
            _save(folder, _concatenated(parts))
    for other in cache.iterdir():
        if other not in folders:
            remove(other)
    return _load(folders, cache)


def print_images(data: Sequence[bytes], kind: str, exact: bool) -> tuple[Prints, list[str]]:
    """The prints of encoded images without their table, and what is wrong with each, or nothing.

    All images are in memory as small pictures: meant for some hundreds at a time.
    """
    total = len(data)
    prints = Prints(pa.table({}), **_zeros(total))
    errors = [""] * total
    pixels = np.zeros((total, *SHAPES.get(kind, (1, 1))), np.uint8)
    greys: dict[int, tuple[Image.Image, Box]] = {}
    for row, one in enumerate(data):
        try:
            small, box, full = small_picture(one)
        except ImageError as problem:
            errors[row] = str(problem) or problem.outcome
            continue
        grey = small.getchannel(0) if small.mode == "YCbCr" else small.convert("L")
        greys[row] = grey, box
        if kind in SHAPES:
            source = (grey, kind, box) if full is None else (full.convert("L"), kind)
            pixels[row] = lanczos(*source)
        prints.grey[row] = squashed(grey, GREY, box)
        prints.colour[row] = squashed(small, COLOUR, box).convert("RGB")
        prints.flat[row] = min(box[2] - box[0], box[3] - box[1]) < FLAT_SIDE

    prints.trim[:] = (0, 0, 1, 1)
    for row in np.flatnonzero(may_have_border(prints.grey)).tolist():
        if row in greys:
            prints.trim[row] = inside_border(*greys[row])
    sides = np.maximum(prints.trim[:, 2:] - prints.trim[:, :2], 0)
    empty = sides.prod(axis=1) < FLAT_AREA
    prints.trim[empty] = (0, 0, 1, 1)
    off = prints.grey - prints.grey.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    deviation = np.sqrt(np.einsum("nij,nij->n", off, off) / GREY**2)  # numpy's std takes 5 times it
    prints.flat[:] |= empty | (deviation < FLAT_DEVIATION)

    if kind in SHAPES:
        whole, mirrored = hashing.hashes(pixels, kind).T
        uncut = (prints.trim == (0, 0, 1, 1)).all(axis=1)
        trimmed = np.where(uncut, whole, cut_hashes(prints.grey, prints.trim, kind))
        centre = cut_hashes(prints.grey, centre_of(prints.trim), kind)
        prints.hashes[:] = np.stack([whole, trimmed, centre, mirrored], axis=1)
    if exact or kind not in SHAPES:
        for row in greys:
            try:
                _hash_in_full(decode(data[row]), kind, prints.trim[row], prints.hashes[row])
            except ImageError as problem:  # whole at a quarter of the size, but not in full
                errors[row] = str(problem) or problem.outcome
    for name in ARRAYS:
        getattr(prints, name)[[bool(error) for error in errors]] = 0
    return prints, errors


def _hash_in_full(image: Image.Image, kind: str, trim: np.ndarray, keys: np.ndarray) -> None:
    keys[0] = library_hash(image, kind)
    keys[3] = library_hash(ImageOps.mirror(image), kind)
    if kind not in SHAPES:
        size = np.tile(image.size, 2)
        uncut = tuple(trim) == (0, 0, 1, 1)
        keys[1] = keys[0] if uncut else library_hash(_crop(image, trim * size), kind)
        keys[2] = library_hash(_crop(image, centre_of(trim[None])[0] * size), kind)


def _crop(image: Image.Image, box: np.ndarray) -> Image.Image:
    left, top, right, bottom = np.round(box).astype(int).tolist()
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _zeros(total: int) -> dict[str, np.ndarray]:
    return {name: np.zeros((total, *shape), kind) for name, (kind, shape) in ARRAYS.items()}


def _print_group(path: Path, group: int, kind: str, exact: bool) -> Prints:
    """The prints of one row group; their table has the columns STORED."""
    parts = [_nothing()]
    with open_parquet(path) as file:
        columns = ["id", "image", "label", "width", "height"]
        for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns):
            data = [one or b"" for one in batch["image"].field("bytes").to_pylist()]
            prints, errors = print_images(data, kind, exact)
            values = {name: batch[name] for name in columns}
            values |= {"size": [len(one) for one in data], "error": errors}
            parts.append(replace(prints, images=_table(values)))
    return _concatenated(parts)


def _table(values: Mapping[str, Any]) -> pa.Table:
    return pa.table({name: pa.array(values[name], COLUMNS[name]) for name in STORED})


def _nothing() -> Prints:
    return Prints(_table({name: [] for name in STORED}), **_zeros(0))


def _concatenated(parts: Sequence[Prints]) -> Prints:
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Prints(pa.concat_tables([part.images for part in parts]), **arrays)


def _save(folder: Path, prints: Prints) -> None:
    with replacing(folder) as temporary:
        write_table(temporary / "images.parquet", prints.images)
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(prints, name))


def _load(folders: Sequence[Path], cache: Path) -> Prints:
    """The shards' prints as one, the large arrays in files that are gone when they are."""
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
    arrays = _zeros(0)
    for name, (kind, shape) in ARRAYS.items():
        if name in MAPPED and sum(counts):
            with tempfile.TemporaryFile(dir=cache) as file:
                arrays[name] = np.memmap(file, kind, "w+", shape=(sum(counts), *shape))
        else:
            arrays[name] = np.zeros((sum(counts), *shape), kind)
        start = 0
        for folder, count in zip(folders, counts, strict=True):
            arrays[name][start : start + count] = np.load(folder / f"{name}.npy", mmap_mode="r")
            start += count
    return Prints(pa.table(columns), **arrays)


@contextmanager
def _in_order(tasks: Iterator[Task], workers: int) -> Iterator[Iterator[Prints]]:
    """The results of tasks, in their order; a few of them ahead where there are workers."""
    if workers == 1:
        yield itertools.starmap(_print_group, tasks)
        return
    context = get_context("spawn")  # a fork may hold another thread's locks
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _attend, (reader,))
    try:
        yield _results(pool, tasks, ahead=3 * workers)
    except BrokenProcessPool:
        raise ExternalError(
            "a process that decodes images died", "is there memory enough?"
        ) from None
    finally:
        writer.close()
        pool.shutdown(cancel_futures=True)


def _results(pool: ProcessPoolExecutor, tasks: Iterator[Task], ahead: int) -> Iterator[Prints]:
    waiting: deque[Future[Prints]] = deque()
    for task in tasks:
        waiting.append(pool.submit(_print_group, *task))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _attend(reader: Connection) -> None:
    """Ends this worker at once when its parent is done, interrupted or dead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        reader.poll(None)  # nothing is ever sent: the other end was closed
        os._exit(1)

    Thread(target=end, daemon=True).start()
