"""Reading the files of the earlier stages: a missing or malformed one is a `UserError`."""

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import UserError


@dataclass(frozen=True)
class Curves:
    """Numeric columns of the training log, NaN where a cell is empty; `other` holds the rest."""

    epochs: list[float]
    columns: dict[str, list[float]]
    other: tuple[str, ...]


def require(path: Path, stage: str) -> Path:
    """Return `path`, or raise UserError when it is not there."""
    if not path.exists():
        raise UserError(f"the report needs {path}, which is missing", f"run `pipeline {stage}`")
    return path


def malformed(path: Path, what: object) -> UserError:
    """The error for a file that is there but is not what its stage writes."""
    return UserError(f"{path}: {what}", "run the stage that writes it again")


def read_columns(
    path: Path, stage: str, columns: list[str], where: ds.Expression | None = None
) -> pa.Table:
    """Read some columns of a Parquet file, and only the rows that satisfy `where`."""
    require(path, stage)
    try:
        absent = sorted(set(columns) - set(pq.read_schema(path).names))
        if absent:
            raise malformed(path, f"has no column {', '.join(absent)}")
        return pq.read_table(path, columns=columns, filters=where)
    except (pa.ArrowException, OSError) as error:
        raise malformed(path, error) from error


def read_history(selection: Path) -> np.ndarray:
    """Read which image was trained on in which epoch, bool [N, epochs]: the `kept` lists."""
    lists = read_columns(selection, "distill", ["kept"]).column("kept")
    try:
        lengths = set(pc.list_value_length(lists).unique().to_pylist())
        flat = pc.list_flatten(lists).cast(pa.bool_()).to_numpy()
        return flat.astype(bool).reshape(len(lists), *(lengths or {0}))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise malformed(selection, f"column kept: {error}") from error


def read_thresholds(path: Path, epochs: int) -> dict[int, list[float]]:
    """Read the thresholds of the selection, label -> a value an epoch; empty if it had none.

    Raises:
        UserError: missing, malformed, or not of a distillation of so many epochs.
    """
    table = read_columns(path, "distill", ["epoch", "label", "threshold"]).sort_by("epoch")
    found: dict[int, list[float]] = {}
    for label, value in zip(
        table.column("label").to_pylist(), table.column("threshold").to_pylist(), strict=True
    ):
        found.setdefault(label, []).append(value)
    if any(len(values) != epochs for values in found.values()):
        raise malformed(path, f"has not a threshold for each of {epochs:,} epochs and class")
    return found


def read_array(path: Path, rows: int) -> np.ndarray:
    """Open the matrix of a .npy file, which has at least `rows` rows, without reading it."""
    require(path, "embed")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise malformed(path, error) from error
    if array.ndim != 2 or len(array) < rows:
        raise malformed(path, f"has shape {array.shape}, too small for {rows} images")
    return array


def read_teacher_classes(embed: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (label, class the teacher sees), int64 arrays with one entry an embedded image."""
    images = read_columns(embed / "images.parquet", "embed", ["row", "label"])
    rows = images.column("row").to_numpy()
    logits = read_array(embed / "logits.npy", int(rows.max(initial=-1)) + 1)
    seen = [
        np.argmax(logits[start : start + 65536], axis=1) for start in range(0, len(logits), 65536)
    ]
    classes = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    return images.column("label").to_numpy(), classes[rows]


def read_csv(path: Path, stage: str, needed: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a CSV file that has the columns `needed`."""
    require(path, stage)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (csv.Error, ValueError, OSError) as error:
        raise malformed(path, error) from error
    for name in needed:
        if name not in header:
            raise malformed(path, f"has no column {name}")
    rows = [row for row in rows if row]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise malformed(path, f"row {number} has {len(row)} cells instead of {len(header)}")
    return header, rows


def _numbers(cells: list[str]) -> list[float] | None:
    try:
        values = [float(cell) if cell.strip() else math.nan for cell in cells]
    except ValueError:
        return None
    return [value if math.isfinite(value) else math.nan for value in values]


def read_curves(path: Path) -> Curves:
    """Read the training log: one row an epoch, any numeric columns beside `epoch`."""
    header, rows = read_csv(path, "distill", ("epoch",))
    columns = {
        name: _numbers([row[index] for row in rows])
        for index, name in enumerate(header)
        if name != "epoch"
    }
    epoch = header.index("epoch")
    epochs = _numbers([row[epoch] for row in rows])
    if epochs is None or any(math.isnan(value) for value in epochs):
        raise malformed(path, "column epoch holds something else than numbers")
    return Curves(
        epochs=epochs,
        columns={name: values for name, values in columns.items() if values is not None},
        other=tuple(name for name, values in columns.items() if values is None),
    )


def read_confusions(path: Path) -> Counter[tuple[str, str]]:
    """Count the pairs (actual class, class the student saw) in `predictions.csv`."""
    header, rows = read_csv(path, "evaluate", ("actual", "student", "teacher"))
    actual, student = header.index("actual"), header.index("student")
    return Counter((row[actual], row[student]) for row in rows)
