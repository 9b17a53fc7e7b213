"""Step of `pipeline predict`: the likeliest classes of images."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kd3_pipeline.console import Advance, Console, printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.export.model import BATCH, Model, open_model
from kd3_pipeline.formats import HEAD
from kd3_pipeline.imagesource.decoding import decoded
from kd3_pipeline.imagesource.entries import Entry, counted
from kd3_pipeline.imagesource.kinds import is_parquet, is_tar
from kd3_pipeline.imagesource.source import Source, open_source
from kd3_pipeline.labelled.names import listed_names
from kd3_pipeline.paramfile import read_params
from kd3_stages import paths
from kd3_stages.steps.consent import consented

MOST_BYTES = 2**31  # of an image of the user's own
CELLS = ("class", "confidence")  # of each answer in a row of CSV


def run(
    images: list[str],
    model: Path,
    k: int,
    *,
    trust: bool,
    class_names: str,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Prints the `k` likeliest classes of each image, of files, folders, tars and tables.

    Raises:
        UserError: a file is no whole image, or the model may run code and was not trusted.
    """
    if model.suffix == ".pt2" and not trust and not _is_ours(model):
        raise UserError(
            f"{model} is not as this project's export wrote it, and a .pt2 file can run code",
            "add --trust if you know who made it, or take the .onnx or .safetensors file",
        )
    if trust:
        from kd3_pipeline.models.own import ANY, allow

        allow(ANY)
    elif model.parent == paths.EXPORT and paths.PARAMS.is_file():  # the project's own student
        consented(read_params(paths.PARAMS))
    console = Console(as_json=as_json)
    student = _named(open_model(model), class_names)
    with console.progress("predict: looking for images") as advance:
        sources = [_source(image, advance) for image in images]
    with console.progress("predict", sum(map(len, sources))) as advance:
        rows = list(_classified(sources, student, k, advance))
    if not rows:
        raise UserError(f"no image in {', '.join(images)}", "give files, or folders that have some")
    found = [row for row in rows if "classes" in row]
    failed = [printable(f"{row['file']}: {row['error']}") for row in rows if "error" in row]
    if found or as_json:
        counts = Counter(row["classes"][0]["name"] for row in found)
        values = {"model": str(model), "images": rows, "counts": dict(counts.most_common())}
        several = [source for source in sources if isinstance(source, Source)]
        for line in (line for source in several for line in source.lines()):
            console.note(line)
        if several:
            console.note(f"{len(found):,} of {len(rows):,} images are read: {counted(counts)}")
        console.result(_table(found, k) if as_csv else "\n".join(map(_line, found)), values)
    if failed:
        raise UserError("\n".join(failed))


def _named(student: Model, class_names: str) -> Model:
    """The model with the names of a file, if one is given."""
    if not class_names:
        return student
    names, own = listed_names(class_names, "--class-names"), student.class_names
    if len(names) != len(own):
        raise UserError(f"{class_names} has {len(names)} names, and the model {len(own)} classes")
    return replace(student, class_names=names)


class _File:
    """An image by itself."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __len__(self) -> int:
        return 1

    def entries(self) -> Iterator[Entry]:
        try:
            yield Entry(self._path, self._path, Path(self._path).read_bytes())
        except OSError as error:
            yield Entry(self._path, self._path, outcome=error.strerror or str(error))


def _source(image: str, advance: Advance) -> Source | _File:
    path = Path(image)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except IsADirectoryError:
        return open_source(path, MOST_BYTES, advance=advance)
    except OSError:
        return _File(image)  # which says why it cannot be read
    many = is_tar(image, head) or is_parquet(image, head)
    return open_source(path, MOST_BYTES, advance=advance) if many else _File(image)


def _entries(sources: Sequence[Source | _File]) -> Iterator[Entry]:
    for source in sources:
        if isinstance(source, Source):
            yield from source.read(range(len(source)))
        else:
            yield from source.entries()


def _classified(
    sources: Sequence[Source | _File], student: Model, k: int, advance: Advance
) -> Iterator[dict[str, Any]]:
    """Each image with its likeliest classes, or with what is wrong with it; in order."""
    images = decoded(_entries(sources), student.frame)
    while batch := list(islice(images, BATCH)):
        whole = [image for _, image in batch if not isinstance(image, str)]
        shares = iter(student.confidences(np.stack(whole)) if whole else ())
        for entry, image in batch:
            if isinstance(image, str):
                error = image if entry.outcome else f"not a whole image: {image}"
                yield {"file": entry.place, "error": error}
            else:
                yield {"file": entry.place, "classes": _likeliest(next(shares), student, k)}
        advance(len(batch))


def _likeliest(shares: np.ndarray, student: Model, k: int) -> list[dict[str, Any]]:
    best = (-shares).argsort(kind="stable")[:k].tolist()
    return [
        {"name": student.class_names[place], "confidence": round(shares[place], 4)}
        for place in best
    ]


def _line(row: dict[str, Any]) -> str:
    shown = (f"{one['confidence']:.3f} {one['name']}" for one in row["classes"])
    return printable("  ".join([row["file"], *shown]))


def _table(rows: Sequence[dict[str, Any]], k: int) -> str:
    """The answers as CSV: the file, then each class with its confidence."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    shown = max((len(row["classes"]) for row in rows), default=k)
    writer.writerow(["file", *(f"{name}_{n}" for n in range(1, shown + 1) for name in CELLS)])
    for row in rows:
        cells = [
            cell for one in row["classes"] for cell in (printable(one["name"]), one["confidence"])
        ]
        writer.writerow([printable(row["file"]), *cells])
    return out.getvalue().rstrip("\n")


def _is_ours(model: Path) -> bool:
    checks = paths.EXPORT / "checks.json"
    if not model.is_file() or not checks.is_file():
        return not model.is_file()  # that it is missing is said by who opens it
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    try:
        files = json.loads(checks.read_text("utf-8"))["files"]
        return digest in {one["sha256"] for one in files}
    except (ValueError, KeyError, TypeError):  # then nothing vouches for it
        return False
