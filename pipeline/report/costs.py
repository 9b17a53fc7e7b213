"""Costs of the student by those of the teacher: ratios, and where it is no cheaper."""

from collections.abc import Iterator
from dataclasses import dataclass

from kd3_pipeline.metrics import Latency, Metrics
from kd3_pipeline.templates import percent

SLOWER = 1.1  # times the teacher's time: less is within what a measurement says


@dataclass(frozen=True)
class LatencyRow:
    """Times of teacher and student for one device, number of threads and batch."""

    device: str
    threads: int
    batch: int
    teacher: Latency | None
    student: Latency | None

    @property
    def ratio(self) -> float | None:
        """The student's median by the teacher's; None where one was not measured."""
        if not self.teacher or not self.student:
            return None
        return ratio(self.student.p50, self.teacher.p50)


def ratio(student: float | None, teacher: float | None) -> float | None:
    """The student's cost by the teacher's; None where there is nothing to divide by."""
    return student / teacher if student is not None and teacher else None


def latency_rows(metrics: Metrics) -> list[LatencyRow]:
    """Latencies of teacher and student by (device, threads, batch)."""
    teacher, student = (
        {(one.device, one.threads, one.batch): one for one in network.latency_ms}
        for network in (metrics.teacher, metrics.student)
    )
    keys = dict.fromkeys([*teacher, *student])
    return [LatencyRow(*key, teacher.get(key), student.get(key)) for key in keys]


def told(metrics: Metrics) -> str:
    """Parameters and multiply-adds of the student by the teacher's, as the end of a sentence.

    Empty where the teacher has no parameters that are counted.
    """
    sizes = ratio(metrics.student.parameters, metrics.teacher.parameters)
    if sizes is None:
        return ""
    work = ratio(metrics.student.macs, metrics.teacher.macs)
    text = f"with {_of_it(sizes)} parameters"
    if work is None:
        return text
    joined = "but" if sizes < 0.995 <= work else "and"
    return f"{text} {joined} {_of_it(work)} multiply-adds"


def not_cheap(metrics: Metrics) -> str:
    """A sentence on a student that takes as much to run as its teacher, or more; or nothing."""
    what = []
    work = ratio(metrics.student.macs, metrics.teacher.macs)
    if work is not None and work >= 1:
        what.append(f"{work:.2f} times the multiply-adds")
    what += list(_times(metrics))
    if not what:
        return ""
    listed = ", ".join(what[:-1]) + (" and " if len(what) > 1 else "") + what[-1]
    return f"The student is not cheaper to run: it takes {listed} of its teacher."


def _times(metrics: Metrics) -> Iterator[str]:
    for row in latency_rows(metrics):
        if row.ratio is not None and row.ratio >= SLOWER:
            yield f"{row.ratio:.1f} times the time for a batch of {row.batch:,} ({row.device})"


def _of_it(share: float) -> str:
    """A ratio before what it is a ratio of: 29% of the, as many, 2.5 times the."""
    if share < 0.995:
        return f"{percent(share, 0 if share >= 0.01 else 1)} of the"
    return "as many" if share < 1.005 else f"{share:.3g} times the"
