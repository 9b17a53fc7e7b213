"""Batches of kept images, read from the crawl's shards and decoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kd3_pipeline.embed.crops import VIEWS, Crop, Views, crops_of, views_of
from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Fit, to_square
from kd3_pipeline.images import decode
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.pixelstore import centred, decode_jpeg, encode_jpeg
from kd3_pipeline.store import IMAGE_COLUMNS, open_parquet, shard_path

READ = ("id", "image")


@dataclass(frozen=True, slots=True)
class KeptImage:
    """A kept image in the crawl's shards."""

    id: str
    shard: int
    row: int
    label: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one shard that the teacher sees together.

    Attributes:
        path: the shard.
        rows, ids: the images, in the order of their rows.
        start: place of the first one among all kept images.
        last: whether the shard has no more.
    """

    path: Path
    rows: tuple[int, ...]
    ids: tuple[str, ...]
    start: int
    last: bool

    def __str__(self) -> str:
        return f"{self.path}: rows {self.rows[0]} to {self.rows[-1]}"

    def stored(self) -> Iterator[tuple[str, bytes]]:
        """Id and bytes of each image, read one by one."""
        with open_parquet(self.path) as file:
            yield from _stored(file, self.rows)


@dataclass(frozen=True, slots=True)
class Carried(Batch):
    """A batch for a machine that has no shards: its images, as far as they could be read."""

    images: tuple[tuple[str, bytes], ...]
    problem: str

    @classmethod
    def of(cls, batch: Batch) -> "Carried":
        """Reads a batch.

        Raises:
            UserError: the shard is missing or is no Parquet file.
        """
        images, problem = list[tuple[str, bytes]](), ""
        try:
            for image in batch.stored():
                images.append(image)
        except (pa.ArrowException, OSError) as error:
            problem = str(error)
        about = (batch.path, batch.rows, batch.ids, batch.start, batch.last)
        return cls(*about, tuple(images), problem)

    def stored(self) -> Iterator[tuple[str, bytes]]:
        """As of the batch, and then its error."""
        yield from self.images
        if self.problem:
            raise OSError(self.problem)


def batches(kept: Sequence[KeptImage], crawl: Path, batch_size: int) -> Iterator[Batch]:
    """Batches of at most `batch_size` images, never of two shards.

    So which images share a batch does not depend on where an interrupted run went on, and neither
    does the last bit of a logit. `kept` is in the order of shards and rows.
    """
    start = 0
    for shard, group in groupby(kept, key=lambda image: image.shard):
        images = list(group)
        for first in range(0, len(images), batch_size):
            some = images[first : first + batch_size]
            rows, ids = (tuple(getattr(image, name) for image in some) for name in ("row", "id"))
            last = first + len(some) == len(images)
            yield Batch(shard_path(crawl, shard), rows, ids, start, last)
            start += len(some)


def locate(kept: Sequence[KeptImage], crawl: Path) -> tuple[list[KeptImage], list[str]]:
    """The images whose rows the shards have, and what is wrong with the others.

    Only what the shards tell of themselves is read, so this comes before hours of work.
    """
    found, problems = [], []
    for shard, group in groupby(kept, key=lambda image: image.shard):
        path = shard_path(crawl, shard)
        try:
            with open_parquet(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
        except UserError as error:
            problems.append(str(error))
            continue
        types = {name: schema.field(name).type for name in READ if name in schema.names}
        wrong = [name for name in READ if types.get(name) != IMAGE_COLUMNS[name]]
        if wrong:
            kinds = f"expected {IMAGE_COLUMNS[wrong[0]]}, found {types.get(wrong[0])}"
            problems.append(f"{path}: column '{wrong[0]}': {kinds}")
            continue
        for image in group:
            if image.row < rows:
                found.append(image)
            else:
                problems.append(f"{path} has no row {image.row}")
    return found, problems


@dataclass(frozen=True)
class Decoded:
    """Images of a batch, of which those that are wrong have arbitrary pixels; behind them crops.

    Attributes:
        stored: as they are stored, uint8 [M, S0, S0, 3] or their JPEGs: B images and their crops.
        shown: as the teacher takes them, uint8 [M, S, S, 3]: out of their JPEGs, if such are
            stored, since training sees no others.
        views: where each of them comes from.
        problems: what is wrong with images of it.
    """

    stored: np.ndarray | list[bytes]
    shown: np.ndarray
    views: Views
    problems: list[str]


@dataclass(frozen=True)
class Reading:
    """How images are read: made squares of `stored` pixels, of which the teacher takes the centre.

    Attributes:
        side: of the teacher's input.
        quality: of the JPEG that each is stored as; 0: as it is.
        crops: views of an image that are kept, the whole among them; 1: no crop is made.
    """

    stored: int
    side: int
    fit: Fit
    quality: int = 0
    crops: int = 1

    @property
    def views(self) -> int:
        """The most views that are made of an image."""
        return VIEWS if self.crops > 1 else 1

    def __call__(self, batch: Batch) -> Decoded:
        """The images of a batch, and of each all crops that may be kept."""
        whole = np.empty((len(batch.rows), self.stored, self.stored, 3), np.uint8)
        crops, problems = list[tuple[int, Crop]](), list[str]()
        try:
            for place, (identity, data) in enumerate(batch.stored()):
                where = f"{batch.path}: row {batch.rows[place]}"
                if identity != batch.ids[place]:
                    problems.append(f"{where} is not the image that dedup saw")
                    continue
                try:
                    picture = decode(data)
                except ImageError as error:
                    problems.append(f"{where} ({identity}) cannot be decoded: {error}")
                    continue
                whole[place] = to_square(picture, self.stored, self.fit)
                if self.crops > 1:
                    found = crops_of(picture, self.stored, self.fit)
                    crops += [(place, crop) for crop in found]
        except (pa.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[-1][:200]
            rows = f"{batch.rows[0]} to {batch.rows[-1]}"
            problems.append(f"{batch.path}: rows {rows} cannot be read: {reason}")
        squares = np.stack([*whole, *(crop.pixels for _, crop in crops)]) if crops else whole
        jpegs = []
        if self.quality and not problems:
            jpegs = [encode_jpeg(square, self.quality) for square in squares]
            squares = np.stack([decode_jpeg(jpeg, self.stored) for jpeg in jpegs])
        shown = np.ascontiguousarray(centred(squares, self.side))
        stored = jpegs if self.quality else squares
        return Decoded(stored, shown, views_of(len(whole), crops), problems)


def _stored(file: pq.ParquetFile, rows: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """(id, bytes) of rows in ascending order; only the row groups that hold them are read."""
    start = 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = [row - start for row in rows if start <= row < end]
        if inside:
            # batches are read side by side as it is
            table = file.read_row_group(group, columns=list(READ), use_threads=False)
            for row in inside:  # one by one, since a group may hold hundreds of megabytes
                image = table["image"][row].as_py() or {}
                yield table["id"][row].as_py(), image.get("bytes") or b""
        start = end
