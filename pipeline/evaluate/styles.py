"""Labelled images in several styles, to see how far a network gets from what it was trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.console import Advance, no_progress
from pipeline.errors import UserError
from pipeline.images import Frame
from pipeline.imagesource.entries import hidden_in
from pipeline.labelled import LabelledImages, load_labelled, places
from pipeline.store import open_parquet, read_table

COLUMNS = ("style", "domain")


@dataclass(frozen=True)
class Style:
    """Images of one style: pixels uint8 [N, S, S, 3], labels int64 [N] of the teacher's classes."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray


def load_styles(
    source: str, frame: Frame, class_names: list[str], advance: Advance = no_progress
) -> tuple[list[Style], int]:
    """The styles in order of their names, and how many images are of classes that are not known.

    Args:
        source: a folder FOLDER/STYLE/CLASS/*, or a .parquet file with the columns image, label
            (with names, as Hugging Face writes them) and style or domain.
        class_names: the teacher's; images of other classes are left out.
        advance: called for each image that is decoded.

    Raises:
        UserError: nothing of the kind is there, an image is broken, or no class is known.
    """
    path = Path(source)
    if path.is_dir():
        found = {
            folder.name: load_labelled(str(folder), "test", frame, 0, 0, advance)
            for folder in sorted(path.iterdir())
            if folder.is_dir() and not hidden_in([folder.name])
        }
    elif path.suffix == ".parquet":
        found = _parquet(path, frame, advance)
    else:
        raise UserError(f"no styles at {source}: expected a .parquet file or a folder of folders")
    styles, ignored = [], 0
    for name, images in found.items():
        labels = places(images, class_names, f"{source}: {name}")[images.labels]
        ignored += int((labels < 0).sum())
        if (labels >= 0).any():
            styles.append(Style(name, images.pixels[labels >= 0], labels[labels >= 0]))
    if not styles:
        theirs = sorted({name for images in found.values() for name in images.class_names})
        raise UserError(
            f"{source}: none of its classes ({', '.join(theirs[:12])}) is one of the teacher's"
            f" ({', '.join(class_names[:12])})",
            "name its classes as the teacher's, or set evaluate.styles to nothing",
        )
    return styles, ignored


def _parquet(path: Path, frame: Frame, advance: Advance) -> dict[str, LabelledImages]:
    with open_parquet(path) as file:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
    if not columns:
        raise UserError(f"{path} has no column 'style' or 'domain'")
    images = load_labelled(str(path), "test", frame, 0, 0, advance)
    if not images.class_names:
        raise UserError(f"{path}: its labels have no names, so none can be matched")
    of = np.array([str(name) for name in read_table(path, columns[:1])[columns[0]].to_pylist()])
    return {
        str(name): LabelledImages(
            images.pixels[of == name], images.labels[of == name], images.class_names
        )
        for name in np.unique(of)
    }
