"""What `evaluate` measured: `metrics.json` and its tables, checked as they are read."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.report.inputs import malformed, read_csv, require

Fraction = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=-100, le=100)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Latency(_Values):
    """Milliseconds a batch takes; percentiles over many runs."""

    device: str
    threads: Count
    batch: Count
    p50: Amount
    p95: Amount


class Network(_Values):
    """One network on the test set; accuracies and their 95% intervals are fractions.

    The top-5 accuracies are None under six classes. The last four are the student's: a temperature
    that was fitted without labels, and calibration with it.
    """

    architecture: str
    accuracy: Fraction
    accuracy_low: Fraction
    accuracy_high: Fraction
    top5: Fraction | None
    top5_low: Fraction | None
    top5_high: Fraction | None
    nll: Amount
    brier: Amount
    ece: Fraction
    parameters: Count
    macs: Count
    megabytes: Amount
    latency_ms: tuple[Latency, ...]
    temperature: Amount | None = None
    nll_tempered: Amount | None = None
    brier_tempered: Amount | None = None
    ece_tempered: Fraction | None = None


class Student(Network):
    """The student, whose temperature is known."""

    temperature: Amount
    nll_tempered: Amount
    brier_tempered: Amount
    ece_tempered: Fraction


class Group(_Values):
    """Accuracy on some of the test images, by class or style; None where there are no images."""

    name: str
    images: Count
    teacher: Fraction | None
    student: Fraction | None

    @property
    def difference(self) -> float | None:
        """Student minus teacher, in percentage points."""
        if self.teacher is None or self.student is None:
            return None
        return 100 * (self.student - self.teacher)


class Bin(_Values):
    """The test images of which the network is `low` to `high` sure."""

    low: Fraction
    high: Fraction
    images: Count
    confidence: Fraction | None
    accuracy: Fraction | None


class CorruptionError(_Values):
    """Mean errors over all corruptions; `relative` is the student's in percent of the teacher's."""

    teacher: Fraction
    student: Fraction
    relative: Amount


class Metrics(_Values):
    """What `evaluate` measured; the agreements are None where the teacher is never right or wrong.

    `leaked` and `contaminated` count test images found in the crawl and in what trained the
    student, None where nobody looked.
    """

    test_set: str
    test_images: Count
    class_names: tuple[str, ...]
    teacher: Network
    student: Student
    gap_points: Points
    gap_low: Points
    gap_high: Points
    only_teacher_right: Count
    only_student_right: Count
    mcnemar_p: Fraction
    agreement: Fraction
    agreement_teacher_right: Fraction | None
    agreement_teacher_wrong: Fraction | None
    kl: Amount
    per_class: tuple[Group, ...]
    leaked: Count | None
    contaminated: Count | None
    calibration: tuple[Bin, ...]
    calibration_tempered: tuple[Bin, ...]
    styles: tuple[Group, ...]
    corruption_error: CorruptionError | None


def latency_rows(
    metrics: Metrics,
) -> list[tuple[tuple[str, int, int], Latency | None, Latency | None]]:
    """Latencies of teacher and student by (device, threads, batch)."""
    networks = (metrics.teacher, metrics.student)
    measured = [
        {(one.device, one.threads, one.batch): one for one in network.latency_ms}
        for network in networks
    ]
    keys = dict.fromkeys(key for of_network in measured for key in of_network)
    return [(key, *(of_network.get(key) for of_network in measured)) for key in keys]


def read_metrics(path: Path) -> Metrics:
    """Read `metrics.json`.

    Raises:
        UserError: it is missing, or a key of it is missing or has a value that cannot be.
    """
    require(path, "evaluate")
    try:
        return Metrics.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise malformed(path, f"{place}: {first['msg']}" if place else first["msg"]) from None
    except OSError as error:
        raise malformed(path, error) from error


class Corruption(_Values):
    """Accuracies under one corruption at one severity."""

    corruption: str
    severity: Literal[1, 2, 3, 4, 5]
    teacher: Fraction
    student: Fraction


def read_corruptions(path: Path) -> tuple[Corruption, ...]:
    """Read `corruptions.csv`: one row a kind and severity, none where nothing was corrupted."""
    names = tuple(Corruption.model_fields)
    header, rows = read_csv(path, "evaluate", names)
    found = []
    for number, row in enumerate(rows, start=2):
        cells = dict(zip(header, row, strict=True))
        try:
            found.append(
                Corruption(
                    corruption=cells["corruption"],
                    severity=int(cells["severity"]),
                    teacher=float(cells["teacher"]),
                    student=float(cells["student"]),
                )
            )
        except ValueError as error:  # a ValidationError is one
            raise malformed(path, f"row {number}: {str(error).splitlines()[0]}") from None
    return tuple(found)


def by_kind(corruptions: tuple[Corruption, ...]) -> tuple[Group, ...]:
    """Mean accuracies of each kind over its severities; `images` counts the severities."""
    kinds: dict[str, list[Corruption]] = {}
    for one in corruptions:
        kinds.setdefault(one.corruption, []).append(one)
    return tuple(
        Group(
            name=name.replace("_", " "),
            images=len(rows),
            teacher=math.fsum(row.teacher for row in rows) / len(rows),
            student=math.fsum(row.student for row in rows) / len(rows),
        )
        for name, rows in kinds.items()
    )
