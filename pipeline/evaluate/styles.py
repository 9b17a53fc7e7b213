"""Labelled images in several styles, to see how far a network gets from what it was trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.imagesource.entries import hidden_in
from kd3_pipeline.imagesource.table import columns_told
from kd3_pipeline.labelled import AS_IT_IS, LabelledImages, Reading, load_labelled
from kd3_pipeline.labelled.matching import NothingKnown
from kd3_pipeline.pixelstore import Pixels
from kd3_pipeline.store import open_parquet, read_table

COLUMNS = ("style", "domain")


@dataclass(frozen=True)
class Style:
    """Images of one style: pixels uint8 [N, S, S, 3], labels int64 [N] of the teacher's classes."""

    name: str
    pixels: Pixels
    labels: np.ndarray


def load_styles(
    source: str,
    frame: Frame,
    class_names: Sequence[str],
    advance: Advance = no_progress,
    reading: Reading = AS_IT_IS,
    most: int = 0,
) -> tuple[list[Style], list[str]]:
    """The styles in order of their names, and what is to be told of them.

    Args:
        source: a folder FOLDER/STYLE/CLASS/*, or a .parquet file with the columns image, label
            (with names, as Hugging Face writes them) and style or domain, or as `reading` says.
        class_names: the teacher's; images of other classes are left out.
        advance: called for each image that is decoded.
        most: images to read of a style, or of a file; 0 is all.

    Raises:
        UserError: nothing of the kind is there, too many images are broken, or no class is known.
    """
    path, told = Path(source), list[str]()
    if path.is_dir():
        folders = [one for one in sorted(path.iterdir()) if one.is_dir()]
        folders = [one for one in folders if not hidden_in([one.name])]
        styles = list(_folders(folders, frame, class_names, advance, reading, told, most))
        if not styles:
            raise _none_known(source, told, class_names)
    elif path.suffix == ".parquet":
        styles = _parquet(path, frame, class_names, advance, reading, told, most)
    else:
        raise UserError(f"no styles at {source}: expected a .parquet file or a folder of folders")
    return styles, told


def _folders(
    folders: Sequence[Path],
    frame: Frame,
    class_names: Sequence[str],
    advance: Advance,
    reading: Reading,
    told: list[str],
    most: int,
) -> Iterator[Style]:
    for folder in folders:
        try:
            images = load_labelled(
                str(folder),
                "test",
                frame,
                most,
                0,
                advance,
                reading=reading,
                class_names=class_names,
            )
        except NothingKnown as error:
            told.append(f"{error.images:,} images are left out: {error}")
            continue
        told += images.notes
        yield Style(folder.name, images.pixels, images.labels)


def _none_known(source: str, told: Sequence[str], class_names: Sequence[str]) -> UserError:
    reason = f" ({'; '.join(told)})" if told else ""
    return UserError(
        f"{source}: none of its classes is one of the teacher's"
        f" ({', '.join(class_names[:12])}){reason}",
        "name its classes as the teacher's, or set evaluate.styles to nothing",
    )


def _parquet(
    path: Path,
    frame: Frame,
    class_names: Sequence[str],
    advance: Advance,
    reading: Reading,
    told: list[str],
    most: int,
) -> list[Style]:
    with open_parquet(path) as file:
        there = file.schema_arrow.names
    column = reading.columns.get("style") or next((one for one in COLUMNS if one in there), "")
    if column not in there:
        missing = f"'{column}'" if column else "'style' or 'domain'"
        raise UserError(
            f"{path} has no column {missing}: {columns_told(path, 'label')[0]}",
            "set evaluate.columns to {style: COLUMN}",
        )
    images: LabelledImages = load_labelled(
        str(path), "test", frame, most, 0, advance, reading=reading, class_names=class_names
    )
    told += images.notes
    values = read_table(path, [column])[column].to_pylist()
    of = np.array([str(values[row]) for row in images.rows.tolist()])
    return [
        Style(str(name), images.pixels[of == name], images.labels[of == name])
        for name in np.unique(of)
    ]
