"""Reading the files of the earlier stages: a missing or malformed one is a `UserError`."""

import csv
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import UserError


@dataclass(frozen=True)
class ModelScore:
    """One network on the test set; accuracy and its 95% interval are fractions."""

    architecture: str
    accuracy: float
    low: float
    high: float
    parameters: int


@dataclass(frozen=True)
class ClassScore:
    """Accuracy (fraction) on the test images of one class; None where there are no images."""

    name: str
    images: int
    teacher: float | None
    student: float | None

    @property
    def difference(self) -> float | None:
        """Student minus teacher, in percentage points."""
        if self.teacher is None or self.student is None:
            return None
        return 100 * (self.student - self.teacher)


@dataclass(frozen=True)
class Metrics:
    """What `evaluate` measured."""

    test_set: str
    test_images: int
    class_names: tuple[str, ...]
    teacher: ModelScore
    student: ModelScore
    gap_points: float
    agreement: float
    per_class: tuple[ClassScore, ...]


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


def read_epochs(selection: Path) -> int:
    """Number of epochs in a selection file: the length of its `kept` lists."""
    require(selection, "distill")
    try:
        for batch in pq.ParquetFile(selection).iter_batches(1, columns=["kept"]):
            return len(batch.column(0)[0].as_py())
    except (pa.ArrowException, OSError, IndexError, TypeError) as error:
        raise malformed(selection, error) from error
    return 0


def read_teacher_classes(embed: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (label, class the teacher sees), int64 arrays with one entry an embedded image."""
    images = read_columns(embed / "images.parquet", "embed", ["row", "label"])
    path = require(embed / "logits.npy", "embed")
    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise malformed(path, error) from error
    rows = images.column("row").to_numpy()
    if logits.ndim != 2 or (len(rows) and int(rows.max()) >= len(logits)):
        raise malformed(path, f"has shape {logits.shape}, too small for {len(rows)} images")
    seen = [
        np.argmax(logits[start : start + 65536], axis=1) for start in range(0, len(logits), 65536)
    ]
    classes = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    return images.column("label").to_numpy(), classes[rows]


def _number(value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{value!r} is not a number in the expected range")
    return float(value)


def _fraction(value: object) -> float:
    return _number(value, low=0, high=1)


def _model(values: dict[str, Any]) -> ModelScore:
    return ModelScore(
        architecture=str(values["architecture"]),
        accuracy=_fraction(values["accuracy"]),
        low=_fraction(values["accuracy_low"]),
        high=_fraction(values["accuracy_high"]),
        parameters=int(_number(values["parameters"], low=0)),
    )


def _class(values: dict[str, Any]) -> ClassScore:
    name = str(values["name"])
    images = int(_number(values["images"], low=0))
    if not images:
        return ClassScore(name, 0, None, None)
    return ClassScore(name, images, _fraction(values["teacher"]), _fraction(values["student"]))


def read_metrics(path: Path) -> Metrics:
    """Read `metrics.json`."""
    require(path, "evaluate")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Metrics(
            test_set=str(values["test_set"]),
            test_images=int(_number(values["test_images"], low=0)),
            class_names=tuple(str(name) for name in values["class_names"]),
            teacher=_model(values["teacher"]),
            student=_model(values["student"]),
            gap_points=_number(values["gap_points"], low=-100, high=100),
            agreement=_fraction(values["agreement"]),
            per_class=tuple(_class(row) for row in values["per_class"]),
        )
    except KeyError as error:
        raise malformed(path, f"has no key {error}") from error
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise malformed(path, error) from error


def _read_csv(path: Path, stage: str, needed: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
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
    header, rows = _read_csv(path, "distill", ("epoch",))
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
    header, rows = _read_csv(path, "evaluate", ("actual", "student", "teacher"))
    actual, student = header.index("actual"), header.index("student")
    return Counter((row[actual], row[student]) for row in rows)
