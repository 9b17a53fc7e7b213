"""CSV files and thresholds of the earlier stages, checked as they are read."""

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kd3_pipeline.errors import UserError
from kd3_pipeline.forecast import FORETELLING, Forecast, forecast
from kd3_pipeline.store import read_table


@dataclass(frozen=True)
class Curves:
    """Numeric columns of the training log, NaN where a cell is empty; `other` holds the rest."""

    epochs: list[float]
    columns: dict[str, list[float]]
    other: tuple[str, ...]

    @property
    def forecast(self) -> Forecast | None:
        """What a longer run would bring to the agreement; None where that cannot be told."""
        if not self.columns.keys() >= set(FORETELLING):
            return None
        return forecast(*(self.columns[name] for name in FORETELLING))


def malformed(path: Path, what: object, stage: str) -> UserError:
    """The error for a file that is there but is not what its stage writes."""
    return UserError(f"{path}: {what}", f"run `dvc repro {stage}`")


def read_thresholds(path: Path, epochs: int) -> dict[int, list[float]]:
    """The thresholds of the selection, label -> a value an epoch; empty if it had none.

    Raises:
        UserError: missing, malformed, or not of a distillation of so many epochs.
    """
    columns = ["epoch", "label", "threshold"]
    table = read_table(path, columns, "run `dvc repro distill`").sort_by("epoch")
    found: dict[int, list[float]] = {}
    for label, value in zip(
        table["label"].to_pylist(), table["threshold"].to_pylist(), strict=True
    ):
        found.setdefault(label, []).append(value)
    if any(len(values) != epochs for values in found.values()):
        raise malformed(
            path, f"has not a threshold for each of {epochs:,} epochs and class", "distill"
        )
    return found


def read_csv(path: Path, stage: str, needed: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file that has the columns `needed`.

    Raises:
        UserError: missing, malformed, or without such a column.
    """
    if not path.is_file():
        raise UserError(f"{path} not found", f"run `dvc repro {stage}`")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (csv.Error, ValueError, OSError) as error:
        raise malformed(path, error, stage) from error
    for name in needed:
        if name not in header:
            raise malformed(path, f"no column '{name}'", stage)
    rows = [row for row in rows if row]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            said = f"row {number} has {len(row)} cells instead of {len(header)}"
            raise malformed(path, said, stage)
    return header, rows


def _numbers(cells: list[str]) -> list[float] | None:
    try:
        values = [float(cell) if cell.strip() else math.nan for cell in cells]
    except ValueError:
        return None
    return [value if math.isfinite(value) else math.nan for value in values]


def read_curves(path: Path) -> Curves:
    """The training log: one row an epoch, any numeric columns beside `epoch`.

    Raises:
        UserError: missing, malformed, or an epoch is no number.
    """
    header, rows = read_csv(path, "distill", ("epoch",))
    columns = {
        name: _numbers([row[index] for row in rows])
        for index, name in enumerate(header)
        if name != "epoch"
    }
    epoch = header.index("epoch")
    epochs = _numbers([row[epoch] for row in rows])
    if epochs is None or any(math.isnan(value) for value in epochs):
        raise malformed(path, "column epoch holds something else than numbers", "distill")
    return Curves(
        epochs=epochs,
        columns={name: values for name, values in columns.items() if values is not None},
        other=tuple(name for name, values in columns.items() if values is None),
    )


def read_confusions(path: Path) -> Counter[tuple[str, str]]:
    """Counts of the pairs (actual class, class the student saw) in `predictions.csv`."""
    header, rows = read_csv(path, "evaluate", ("actual", "student", "teacher"))
    actual, student = header.index("actual"), header.index("student")
    return Counter((row[actual], row[student]) for row in rows)
