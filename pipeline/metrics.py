"""Metrics of an evaluation as reports/metrics.json holds them: their types, and the one reader."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kd3_pipeline.jsonfile import read_json

HINT = "run `dvc repro evaluate`"
Fraction = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=-100, le=100)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(gt=0)]


class Values(BaseModel):
    """Figures that are what they say: no text for a number, nothing infinite."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Latency(Values):
    """Milliseconds a batch takes; percentiles over many runs."""

    device: str
    threads: Count
    batch: Count
    p50: Amount
    p95: Amount


class NetworkMetrics(Values):
    """One network on the test set; accuracies and their 95% intervals are fractions.

    The top-5 accuracies are None under six classes, `macs` of a program; `nll` is in nats. `mean`
    and `std` are of what it is fed, and `cut` is where its features are taken.
    """

    architecture: str
    cut: Literal["map", "vector", "logits"]
    input_size: Count
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parameters: Count
    macs: Count | None
    megabytes: Amount
    latency_ms: tuple[Latency, ...]
    accuracy: Fraction
    accuracy_low: Fraction
    accuracy_high: Fraction
    top5: Fraction | None
    top5_low: Fraction | None
    top5_high: Fraction | None
    nll: Amount
    brier: Amount
    ece: Fraction
    commonest_class: str  # of its answers
    commonest_share: Fraction


class StudentMetrics(NetworkMetrics):
    """The student, with a temperature that was fitted without labels, and calibration with it."""

    temperature: Temperature
    nll_tempered: Amount
    brier_tempered: Amount
    ece_tempered: Fraction


class Group(Values):
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


class Bin(Values):
    """The test images of which a network is `low` to `high` sure; None where there are none."""

    low: Fraction
    high: Fraction
    images: Count
    confidence: Fraction | None
    accuracy: Fraction | None


class CorruptionError(Values):
    """Mean errors over all corruptions.

    `relative` is the student's in percent of the teacher's; None where the teacher never errs.
    """

    teacher: Fraction
    student: Fraction
    relative: Amount | None


class LeftOut(Values):
    """Images of a test set that were not measured, by reason."""

    broken: Count
    unlabelled: Count
    other_class: Count  # of classes that the teacher does not have


class Metrics(Values):
    """All figures; the agreements are None where the teacher is never right, or never wrong.

    `leaked` and `contaminated` count test images found in the crawl and in what trained the
    student, None where nobody looked. `warnings` are lines on what the figures should not be read
    without.
    """

    test_set: str
    test_images: Count
    left_out: LeftOut
    class_names: tuple[str, ...]
    classes_measured: Count
    teacher: NetworkMetrics
    student: StudentMetrics
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
    warnings: tuple[str, ...]


def read_metrics(path: Path) -> Metrics:
    """The metrics that `evaluate` wrote.

    Raises:
        UserError: it is missing, or a key of it is missing or has a value that cannot be.
    """
    return read_json(Metrics, path, HINT)
