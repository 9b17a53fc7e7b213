"""Embeddings of the kept images: the folder that `embed` writes and later stages read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from kd3_pipeline.errors import UserError
from kd3_pipeline.pixelstore import HINT, JpegPixels, Pixels, Replaced, WithCrops, centred
from kd3_pipeline.store import read_table, write_table

PIXELS = "pixels.npy"
JPEGS, ENDS = "pixels.jpegs", "ends.npy"
CROPS, CROP_JPEGS, CROP_ENDS = "crops.npy", "crops.jpegs", "crop_ends.npy"
CROP_LOGITS, CROP_BOXES = "crop_logits.npy", "crop_boxes.npy"
FEATURES = "features.npy"
LOGITS = "logits.npy"
IMAGES = "images.parquet"
INDEX = "index.faiss"
REFINED, REFINED_LOGITS = REFINED_FILES = ("refined.npy", "refined_logits.npy")
STORES = {"raw": (PIXELS,), "jpeg": (JPEGS, ENDS)}  # `embed.store`: files of the pixels
CROP_STORES = {"raw": (CROPS,), "jpeg": (CROP_JPEGS, CROP_ENDS)}  # with `embed.crops`
CROP_FILES = (CROP_LOGITS, CROP_BOXES)  # beside those
FILES = (FEATURES, LOGITS, IMAGES, INDEX)  # beside the pixels
BLOCK = 65_536  # rows in memory at a time
CLASS_NAMES = b"class_names"  # key of the table's metadata
MOMENT_WEIGHT = "moment_weight"  # column of the weights of `embed.moments`
# columns of `embed.refine_images`: images that were refined, and those of them to train on
WAS_REFINED, SUREST = "refined", "surest"


@dataclass(frozen=True)
class Embeddings:
    """N kept images as the teacher sees them; arrays are mapped from disk when they are used.

    Attributes:
        folder: where the files are.
        images: table of N rows in the order of the arrays: `row`, `id`, `label` (class asked for,
            -1 where none was), and what `embed` was asked for: the scores `off_topic`, `redundant`
            and `moment_weight`; `refined` and `surest` (bool) where it refined some of the images.
    """

    folder: Path
    images: pa.Table

    @classmethod
    def open(cls, folder: Path) -> "Embeddings":
        """Opens what `embed` left.

        Raises:
            UserError: a file is missing or broken, or they do not belong together. The arrays
                are looked at when they are first used.
        """
        images = read_table(folder / IMAGES)
        lacking = {"id", "label"} - set(images.column_names)
        if lacking:
            raise UserError(f"{folder / IMAGES}: no column '{min(lacking)}'", HINT)
        return cls(folder, images)

    def __len__(self) -> int:
        return self.images.num_rows

    @cached_property
    def ids(self) -> list[str]:
        """SHA-256 of each image's bytes, in hex."""
        return self.images["id"].to_pylist()

    @cached_property
    def labels(self) -> np.ndarray:
        """Class that each image was found for, int64 [N]; -1 where none was asked for."""
        return self.images["label"].to_numpy()

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the C classes of the logits, in order."""
        metadata = self.images.schema.metadata or {}
        if CLASS_NAMES not in metadata:
            raise UserError(f"{self.folder / IMAGES} has no class names", HINT)
        return json.loads(metadata[CLASS_NAMES])

    @cached_property
    def pixels(self) -> Pixels:
        """Images as they are stored, uint8 [N, S, S, 3], decoded when they are indexed."""
        if (self.folder / JPEGS).is_file():
            ends = self._array(ENDS, 1, len(self))
            if ends.dtype != np.int64:
                raise UserError(f"{self.folder / ENDS} is {ends.dtype}, not int64", HINT)
            return JpegPixels.open(self.folder / JPEGS, np.asarray(ends))
        return self._squares(PIXELS, 4, len(self))

    def training(self, refined: bool) -> tuple[Pixels, np.ndarray]:
        """Pixels and logits to train on, by place: the refined ones, if `refined` and `embed` left
        such, else those of `place_pixels`; both are mapped, and of all places."""
        if refined and self.refined:
            return self.refined_pixels, self.refined_logits
        return self.place_pixels, self.place_logits

    @property
    def refined(self) -> bool:
        """Tells whether `embed` left refined images."""
        return (self.folder / REFINED).is_file()

    @cached_property
    def refined_rows(self) -> np.ndarray | None:
        """Rows that were refined, int64 [R] and ascending; None where all were, or none."""
        if WAS_REFINED not in self.images.column_names:
            return None
        return np.flatnonzero(self.images[WAS_REFINED].to_numpy())

    @cached_property
    def surest_rows(self) -> np.ndarray | None:
        """Rows of the images that were chosen to be refined and trained on, int64; None: all."""
        if SUREST not in self.images.column_names:
            return None
        return np.flatnonzero(self.images[SUREST].to_numpy())

    @cached_property
    def refined_pixels(self) -> Pixels:
        """Refined images, uint8 [K·N, S, S, 3] as `place_pixels`, never as JPEG; what was not
        refined is as it was.

        Raises:
            UserError: there are none, or they are of another size.
        """
        shape, at = list(self.place_pixels.shape), self._refined_at
        refined = self._squares(REFINED, 4, _count(at, shape[0]))
        if list(refined.shape[1:]) != shape[1:]:
            raise UserError(
                f"{self.folder / REFINED} is {list(refined.shape)}, and the images are {shape}",
                HINT,
            )
        return refined if at is None else Replaced(self.place_pixels, refined, at)

    @cached_property
    def _refined_at(self) -> np.ndarray | None:
        """Row of the refined arrays for each place, int64 [K·N], -1 where it was not refined; None
        where all were, in their order."""
        rows = self.refined_rows
        if rows is None:
            return None
        at = np.full((self.crops, len(self)), -1, np.int64)
        at[:, rows] = np.arange(self.crops * len(rows)).reshape(self.crops, -1)
        return at.reshape(-1)

    @cached_property
    def crops(self) -> int:
        """Views K of each image that are stored, the whole among them: 1 without crops."""
        if not (self.folder / CROP_LOGITS).is_file():
            return 1
        return 1 + self.crop_logits.shape[1]

    @cached_property
    def crop_logits(self) -> np.ndarray:
        """Logits of the teacher for the K − 1 crops of each image, float32 [N, K − 1, C].

        Those of the whole where an image is too small for so many.
        """
        return self._finite(CROP_LOGITS, len(self), 3)

    @cached_property
    def crop_boxes(self) -> np.ndarray:
        """Where crops were cut, float32 [N, K − 1, 4]: left, top, right and bottom in pixels of
        the picture; NaN where the whole stands in for a crop."""
        return self._array(CROP_BOXES, 3, len(self))

    @cached_property
    def place_pixels(self) -> Pixels:
        """Images and their crops, uint8 [K·N, S, S, 3]: crop k of row r is at place k·N + r.

        Crop 0 is the whole image, so that a row is its own place. An image that is too small for
        so many crops has the whole in place of those that it lacks.
        """
        if self.crops == 1:
            return self.pixels
        shape = (len(self), self.crops - 1)
        crops: Pixels
        if (self.folder / CROP_JPEGS).is_file():
            ends = self._array(CROP_ENDS, 2, len(self))
            if ends.dtype != np.int64 or ends.shape != shape:
                what = f"{ends.dtype} {list(ends.shape)}, not int64 {list(shape)}"
                raise UserError(f"{self.folder / CROP_ENDS} is {what}", HINT)
            crops = JpegPixels.open(self.folder / CROP_JPEGS, np.asarray(ends).reshape(-1))
        else:
            found = self._squares(CROPS, 5, len(self))
            crops = found.reshape(-1, *found.shape[2:])
        if len(crops) != shape[0] * shape[1] or crops.shape[1:] != self.pixels.shape[1:]:
            raise UserError(
                f"{self.folder} has {len(crops):,} crops of {crops.shape[1]} pixels for"
                f" {len(self):,} images of {self.pixels.shape[1]}, {shape[1]} each",
                HINT,
            )
        return WithCrops(self.pixels, crops)

    @cached_property
    def place_logits(self) -> np.ndarray:
        """Logits of the teacher for `place_pixels`, float32 [K·N, C]: read whole if K is not 1."""
        if self.crops == 1:
            return self.logits
        return np.concatenate([self.logits, *self.crop_logits.swapaxes(0, 1)])

    def centre(self, side: int) -> Pixels:
        """Images as the teacher and the student take them, uint8 [N, side, side, 3].

        Raises:
            UserError: what is stored is smaller.
        """
        if side > self.pixels.shape[1]:
            raise UserError(
                f"{self.folder} has images of {self.pixels.shape[1]} pixels, the network takes"
                f" {side}",
                HINT,
            )
        return centred(self.pixels, side)

    @cached_property
    def features(self) -> np.ndarray:
        """Pooled last feature maps of the teacher [N, D]: float16, or float32 beyond its range."""
        return self._array(FEATURES, 2, len(self))

    @cached_property
    def logits(self) -> np.ndarray:
        """Logits of the teacher for whole images, float32 [N, C], all of them finite."""
        return self._finite(LOGITS, len(self))

    @cached_property
    def refined_logits(self) -> np.ndarray:
        """Logits of the teacher for `refined_pixels`, float32 [K·N, C], all of them finite."""
        at = self._refined_at
        found = self._finite(REFINED_LOGITS, _count(at, self.crops * len(self)))
        if at is None:
            return found
        logits = np.array(self.place_logits)
        logits[at >= 0] = found[at[at >= 0]]
        return logits

    @property
    def index(self) -> Path:
        """The FAISS index over the features."""
        return self.folder / INDEX

    def score(self, column: str, parameter: str) -> np.ndarray:
        """A score of each image, float32 [N].

        Args:
            parameter: key of params.yaml that makes `embed` write it.

        Raises:
            UserError: it was not written.
        """
        if column not in self.images.column_names:
            raise UserError(
                f"{self.folder / IMAGES} has no column '{column}'", f"set {parameter} and {HINT}"
            )
        return self.images[column].to_numpy().astype(np.float32)

    def add_scores(self, scores: Mapping[str, np.ndarray]) -> None:
        """Writes the table anew with more columns [N]; this object stays as it was opened."""
        columns = {name: self.images[name] for name in self.images.column_names}
        write_images(self.folder, columns | dict(scores), self.class_names)

    def _squares(self, name: str, dimensions: int, rows: int) -> np.ndarray:
        """Images of a file, uint8 [rows, S, S, 3], or with crops of each [rows, K, S, S, 3]."""
        pixels = self._array(name, dimensions, rows)
        shape = pixels.shape
        if pixels.dtype != np.uint8 or shape[-3] != shape[-2] or shape[-1] != 3:
            what = "[N, S, S, 3]" if dimensions == 4 else "[N, K, S, S, 3]"
            raise UserError(
                f"{self.folder / name} is {pixels.dtype} {list(shape)}, not uint8 {what}", HINT
            )
        return pixels

    def _finite(self, name: str, rows: int, dimensions: int = 2) -> np.ndarray:
        """Logits of a file, [rows, C] or [rows, K, C]; row r is of the image r % N."""
        logits = self._array(name, dimensions, rows)
        within = tuple(range(1, dimensions))
        starts = range(0, len(logits), BLOCK)
        wrong = [~np.isfinite(logits[at : at + BLOCK]).all(axis=within) for at in starts]
        found = np.flatnonzero(np.concatenate([np.zeros(0, bool), *wrong]))
        if len(found):
            raise UserError(
                f"{self.folder / name} has values that are not finite in {len(found):,} of"
                f" {rows:,} rows, first in row {found[0]} ({self.ids[found[0] % len(self)]})",
                "run `dvc repro teacher embed`, which look at what they write",
            )
        return logits

    def _array(self, name: str, dimensions: int, rows: int) -> np.ndarray:
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{path} not found", HINT)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}", HINT) from None
        if array.ndim != dimensions:
            raise UserError(f"{path} has shape {list(array.shape)}, not {dimensions}-d", HINT)
        if len(array) != rows:
            crops = f" with {self.crops} views each" if rows != len(self) else ""
            raise UserError(
                f"{path} has {len(array):,} rows, {self.folder / IMAGES} {len(self):,}{crops}", HINT
            )
        return array


def _count(at: np.ndarray | None, places: int) -> int:
    """Rows of the refined arrays."""
    return places if at is None else int(at.max(initial=-1)) + 1


def has_pixels(folder: Path) -> bool:
    """Whether a folder of embeddings holds pixels in any store."""
    return any(all((folder / name).is_file() for name in names) for names in STORES.values())


def write_images(
    folder: Path,
    columns: Mapping[str, pa.Array | pa.ChunkedArray | np.ndarray],
    class_names: Sequence[str],
) -> None:
    """Writes the table of a folder of embeddings.

    Args:
        columns: `row`, `id`, `label` and scores, of N values each.
        class_names: of the C classes of the logits, in order; kept in the schema's metadata.
    """
    named = {CLASS_NAMES: json.dumps(list(class_names), ensure_ascii=False).encode()}
    write_table(folder / IMAGES, pa.table(dict(columns)).replace_schema_metadata(named))
