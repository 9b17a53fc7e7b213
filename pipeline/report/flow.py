"""Where the candidates went: counts from the first search result to the last selection."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline.report.inputs import read_columns, read_teacher_classes
from pipeline.report.stored import Images

REASONS = {
    "duplicate": "same bytes as another",
    "placeholder": "placeholder found at many addresses",
    "http_error": "HTTP error",
    "timeout": "timed out",
    "connection": "no connection",
    "not_an_image": "not an image",
    "too_many_pixels": "too many pixels",
    "forbidden_address": "address not allowed",
    "not_needed": "not needed: class full",
    "opted_out": "site opts out",
    "robots": "refused by robots.txt",
    "leaked": "shows a test image",
    "low-information": "shows next to nothing",
    "unreadable": "cannot be read",
}


@dataclass(frozen=True)
class Loss:
    """How many images were left out for one reason."""

    reason: str
    count: int


@dataclass(frozen=True)
class Step:
    """One step of the flow; `share` is a fraction of the candidates."""

    name: str
    note: str
    count: int
    share: float
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True)
class ClassFlow:
    """The flow of one class; `agree` is the share of embedded images the teacher sees so.

    `losses` has a count for each of the flow's `reasons`.
    """

    name: str
    candidates: int
    stored: int
    kept: int
    selected: int
    agree: float | None
    losses: tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """Steps, rows by class (in label order), and remarks on counts that do not add up."""

    steps: tuple[Step, ...]
    reasons: tuple[str, ...]
    classes: tuple[ClassFlow, ...]
    names: dict[int, str]
    remarks: tuple[str, ...] = field(default=())


def _told(reason: str) -> str:
    return REASONS.get(reason, reason.replace("_", " ") or "no reason given")


def _losses(counts: dict[str, int]) -> tuple[Loss, ...]:
    named = [Loss(_told(reason), count) for reason, count in counts.items() if count]
    return tuple(sorted(named, key=lambda loss: (-loss.count, loss.reason)))


def _by_label(labels: np.ndarray) -> Counter[int]:
    values, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def read_flow(crawl: Path, embed: Path, images: Images, class_names: tuple[str, ...]) -> Flow:
    """Count candidates, stored, kept and selected images, in all and by class.

    An image counts for the class asked for; once it is stored, for the one that dedup gave it.
    """
    manifest = read_columns(crawl / "manifest.parquet", "crawl", ["label", "class", "outcome"])
    groups = manifest.group_by(["label", "class", "outcome"]).aggregate([([], "count_all")])
    outcomes: Counter[str] = Counter()
    candidates: Counter[int] = Counter()
    lost: Counter[tuple[int, str]] = Counter()  # (label, reason), of crawl and dedup
    names = dict(enumerate(class_names))
    for group in groups.to_pylist():
        label = -1 if group["label"] is None else group["label"]
        outcome, count = group["outcome"] or "", group["count_all"]
        outcomes[outcome] += count
        candidates[label] += count
        if outcome != "stored":
            lost[label, outcome] += count
        names.setdefault(label, group["class"] or "")
    names[-1] = "no class"

    stored, kept = len(images.kept), int(images.kept.sum())
    used, selected = int((images.times >= 0).sum()), int((images.times > 0).sum())
    dropped: Counter[str] = Counter()
    out = images.table.filter(pc.invert(images.table.column("kept"))).select(["label", "reason"])
    for row in out.group_by(["label", "reason"]).aggregate([([], "count_all")]).to_pylist():
        dropped[row["reason"] or ""] += row["count_all"]
        lost[row["label"], row["reason"] or ""] += row["count_all"]
    total = manifest.num_rows

    def step(name: str, note: str, count: int, losses: dict[str, int]) -> Step:
        return Step(name, note, count, count / total if total else 0.0, _losses(losses))

    steps = (
        step("Candidates", "addresses the searches returned", total, {}),
        step(
            "Stored",
            "fetched, decoded, each once",
            stored,
            {name: count for name, count in outcomes.items() if name != "stored"},
        ),
        step("Kept", "left after near-duplicates and the unfit are out", kept, dropped),
        step(
            "Selected at least once",
            f"trained on in one of {images.epochs:,} epochs or more",
            selected,
            {
                "never selected": used - selected,
                "held out to measure agreement": images.held_out,
                "not given to distillation": kept - used - images.held_out,
            },
        ),
    )
    remarks = []
    if outcomes["stored"] != stored:
        remarks.append(
            f"The crawl's manifest counts {outcomes['stored']:,} stored images, "
            f"the dedup file {stored:,}: they are of different runs."
        )
    labels, seen = read_teacher_classes(embed)
    counts = {
        "stored": _by_label(images.labels),
        "kept": _by_label(images.labels[images.kept]),
        "selected": _by_label(images.labels[images.times > 0]),
        "embedded": _by_label(labels),
        "agree": _by_label(labels[labels == seen]),
    }
    each: Counter[str] = Counter()
    for (_, reason), count in lost.items():
        each[reason] += count
    reasons = [reason for reason, _ in each.most_common()]
    rows = tuple(
        ClassFlow(
            name=names.get(label, f"class {label}"),
            candidates=candidates[label],
            stored=counts["stored"][label],
            kept=counts["kept"][label],
            selected=counts["selected"][label],
            agree=(
                counts["agree"][label] / counts["embedded"][label]
                if label >= 0 and counts["embedded"][label]
                else None
            ),
            losses=tuple(lost[label, reason] for reason in reasons),
        )
        for label in sorted(set(candidates) | set(counts["stored"]))
    )
    return Flow(steps, tuple(map(_told, reasons)), rows, names, tuple(remarks))
