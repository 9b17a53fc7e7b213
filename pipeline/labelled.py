"""Labelled images, and the one place that reads them.

A demo teacher is trained on them and a student tested; `dedup` looks at their pixels alone,
`export` at what a student of 8 bits loses. Nothing that trains a student may import this:
distillation must not see a label.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.console import Advance, no_progress
from pipeline.errors import ExternalError, UserError
from pipeline.images import ImageError, decode, to_square
from pipeline.store import open_parquet

DOWNLOADS = Path("data/torchvision")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
Split = Literal["train", "test"]


@dataclass(frozen=True)
class LabelledImages:
    """Pixels uint8 [N, S, S, 3], labels int64 [N], and the names that the labels count."""

    pixels: np.ndarray
    labels: np.ndarray
    class_names: list[str]  # empty where the source has none


def load_labelled(
    source: str,
    split: Split,
    size: int,
    images: int,
    seed: int,
    advance: Advance = no_progress,
) -> LabelledImages:
    """Labelled images from `source`, at `size` pixels.

    Args:
        source: `demo`, `cifar10`, `cifar100`, a .parquet file, or a folder of class folders.
        images: how many to take, drawn by `seed`; 0 takes all.
        advance: called for each image that is decoded or drawn.

    Raises:
        UserError: no such source, or an image or label in it is broken (it is named).
        ExternalError: a public data set that cannot be downloaded.
    """
    if source == "demo":
        from pipeline.demo.domains import original_images
        from pipeline.demo.shapes import CLASS_NAMES

        pixels, labels = original_images(split, images or 10_000, size, seed, advance)
        return LabelledImages(pixels, labels, list(CLASS_NAMES))
    if source in ("cifar10", "cifar100"):
        return _torchvision(source, split, size, images, seed)
    path = Path(source)
    if path.is_dir():
        return _folder(path, size, images, seed, advance)
    if path.suffix == ".parquet":
        return _parquet(path, size, images, seed, advance)
    raise UserError(f"no labelled images at {source}: expected a .parquet file or a folder")


def match_labels(images: LabelledImages, class_names: Sequence[str], source: str) -> np.ndarray:
    """The labels as indices of the teacher's `class_names`, whose order may be another.

    Raises:
        UserError: the names are not the same; both lists are shown.
    """
    if not images.class_names:
        if images.labels.max(initial=-1) >= len(class_names):
            raise UserError(
                f"{source} has label {images.labels.max()}, but the teacher has"
                f" {len(class_names)} classes: {_list(class_names)}"
            )
        return images.labels
    if sorted(images.class_names) != sorted(class_names):
        raise UserError(
            f"the classes of {source} ({_list(images.class_names)}) are not the teacher's"
            f" ({_list(class_names)})",
            "set teacher.class_names in the order of the teacher's outputs",
        )
    place = {name: index for index, name in enumerate(class_names)}
    return np.array([place[name] for name in images.class_names], np.int64)[images.labels]


def _sample(total: int, images: int, seed: int) -> np.ndarray:
    """Rows to take, in order: int64."""
    if not images or images >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, images, replace=False))


def _pixels(data: bytes | None, size: int, place: str) -> np.ndarray:
    try:
        return to_square(decode(data or b""), size, "crop")
    except ImageError as error:
        raise UserError(f"{place}: not a whole image: {error}") from None


def _parquet(path: Path, size: int, images: int, seed: int, advance: Advance) -> LabelledImages:
    with open_parquet(path) as file:
        for name in ("image", "label"):
            if name not in file.schema_arrow.names:
                raise UserError(f"{path} has no column '{name}'")
        names = _names(file.schema_arrow.metadata or {})
        chosen = set(_sample(file.metadata.num_rows, images, seed).tolist())
        pixels, labels, row = [], [], 0
        for batch in file.iter_batches(batch_size=1000, columns=["image", "label"]):
            for image, label in zip(batch.column("image"), batch.column("label"), strict=True):
                if row in chosen:
                    value = image.as_py()
                    data = value.get("bytes") if isinstance(value, dict) else value
                    pixels.append(_pixels(data, size, f"{path}: row {row}"))
                    advance(1)
                    labels.append(_label(label.as_py(), names, f"{path}: row {row}"))
                row += 1
    if not labels:
        raise UserError(f"{path} has no rows")
    return LabelledImages(np.stack(pixels), np.array(labels, np.int64), names)


def _label(value: object, names: Sequence[str], place: str) -> int:
    if not isinstance(value, int) or value < 0 or (names and value >= len(names)):
        classes = f"{len(names)} classes" if names else "a class number"
        raise UserError(f"{place}: label {value!r} is not one of {classes}")
    return value


def _names(metadata: dict[bytes, bytes]) -> list[str]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, ValueError, TypeError):
        return []


def _folder(path: Path, size: int, images: int, seed: int, advance: Advance) -> LabelledImages:
    names = sorted(child.name for child in path.iterdir() if child.is_dir())
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((path / name).rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise UserError(f"{path} has no class folders with images")
    chosen = [files[index] for index in _sample(len(files), images, seed)]
    pixels = []
    for file, _ in chosen:
        pixels.append(_pixels(file.read_bytes(), size, str(file)))
        advance(1)
    return LabelledImages(
        np.stack(pixels), np.array([label for _, label in chosen], np.int64), names
    )


def _torchvision(source: str, split: Split, size: int, images: int, seed: int) -> LabelledImages:
    from PIL import Image
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[source]
    try:
        data = kind(DOWNLOADS, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise ExternalError(
            f"{source} cannot be downloaded to {DOWNLOADS}: {error}",
            "put it there by hand, or name a .parquet file",
        ) from None
    chosen = _sample(len(data), images, seed)
    pixels = data.data[chosen]
    if size != pixels.shape[1]:
        pixels = np.stack([to_square(Image.fromarray(image), size, "crop") for image in pixels])
    return LabelledImages(pixels, np.array(data.targets, np.int64)[chosen], list(data.classes))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f", … {len(names)} in all" if len(names) > 12 else "")
