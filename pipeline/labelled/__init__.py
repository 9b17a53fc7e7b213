"""Labelled images, and the one place that reads them.

A demo teacher is trained on them and a student tested; `dedup` looks at their pixels alone,
`export` at what a student of 8 bits loses. Nothing that trains a student may import this:
distillation must not see a label.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled.files import LabelledImages, OwnImages, Reading, Split, meant, sample
from kd3_pipeline.labelled.labels import Labels
from kd3_pipeline.labelled.matching import matched

DOWNLOADS = Path("data/torchvision")
PUBLIC = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}  # unpacked in DOWNLOADS
AS_IT_IS = Reading()


def load_labelled(
    source: str,
    split: Split,
    frame: Frame,
    images: int,
    seed: int,
    advance: Advance = no_progress,
    *,
    reading: Reading = AS_IT_IS,
    class_names: Sequence[str] = (),
) -> LabelledImages:
    """Labelled images from `source`, as a network of that `frame` sees them.

    Args:
        source: `demo`, `cifar10`, `cifar100`, a .parquet file, a tar, a folder of class folders,
            or of another layout that docs/files.md has.
        images: how many to take, drawn by `seed`; 0 takes all.
        advance: called for each image that is decoded or drawn.
        class_names: the teacher's. The labels are then indices of these, and images of classes
            that are not among them are left out and told.

    Raises:
        UserError: no such source, more of its images are broken than `reading` allows, a label is
            none, or its classes are not the teacher's (as `kd3_pipeline.labelled.matching`).
        ExternalError: a public data set that cannot be downloaded.
    """
    if source == "demo":
        from kd3_pipeline.demo.domains import original_images
        from kd3_pipeline.demo.shapes import CLASS_NAMES

        drawn = frame.resize or frame.side
        pixels, labels = original_images(split, images or 10_000, drawn, seed, advance)
        inside = slice((drawn - frame.side) // 2, (drawn + frame.side) // 2)
        found = LabelledImages(pixels[:, inside, inside], labels, list(CLASS_NAMES))
        return _known_of(found, class_names, source, reading)
    if source in PUBLIC:
        found = _torchvision(source, split, frame, images, seed)
        return _known_of(found, class_names, source, reading)
    path = Path(source)
    if not path.exists() and path.suffix != ".parquet":
        raise UserError(
            f"{source} not found: expected labelled images, as a folder, .tar or .parquet"
        )
    own = OwnImages(path, split, reading, class_names, advance)
    return own.read(frame, images, seed, advance)


def to_be_downloaded(source: str) -> bool:
    """Tells whether reading this source means to download it first."""
    return source in PUBLIC and not (DOWNLOADS / PUBLIC[source]).is_dir()


def check_classes(
    names: Sequence[str], class_names: Sequence[str], source: str, reading: Reading = AS_IT_IS
) -> list[str]:
    """Whether classes by their names alone are the teacher's: what is to be told, in lines.

    Args:
        names: of a source that is not here yet.
        class_names: the teacher's.

    Raises:
        UserError: as `kd3_pipeline.labelled.matching.matched`.
    """
    labels = meant(Labels(np.arange(len(names)), list(names)), reading)
    about = (class_names, source, reading.section, reading.alike_names)
    return matched(labels, *about).notes


def _known_of(
    found: LabelledImages, class_names: Sequence[str], source: str, reading: Reading
) -> LabelledImages:
    """The images of a public set, by the teacher's classes."""
    if not class_names:
        return found
    labels = matched(
        meant(Labels(found.labels, found.class_names), reading),
        class_names,
        source,
        reading.section,
        reading.alike_names,
    )
    known = labels.labels >= 0
    left = {"other_class": int((~known).sum())} if not known.all() else {}
    pixels = found.pixels if known.all() else found.pixels[known]
    return LabelledImages(
        pixels,
        labels.labels[known],
        labels.names,
        tuple(labels.notes),
        left_out=left,
        total=max(0, found.total - int((~known).sum())),
    )


def _torchvision(source: str, split: Split, frame: Frame, images: int, seed: int) -> LabelledImages:
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
    chosen = sample(len(data), images, seed)
    pixels = data.data[chosen]
    if frame != Frame(pixels.shape[1], frame.fit):
        pixels = np.stack([frame.of(Image.fromarray(image)) for image in pixels])
    labels = np.array(data.targets, np.int64)[chosen]
    return LabelledImages(pixels, labels, list(data.classes), total=len(data))
