"""Where the candidates went: counts from the first search result to the last selection."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.report.inputs import read_columns, read_epochs, read_teacher_classes

REASONS = {
    "duplicate": "same bytes as another",
    "http_error": "HTTP error",
    "timeout": "timed out",
    "connection": "no connection",
    "not_an_image": "not an image",
    "too_many_pixels": "too many pixels",
    "forbidden_address": "address not allowed",
    "not_needed": "not needed: class full",
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
    """The flow of one class; `agree` is the share of embedded images the teacher sees so."""

    name: str
    candidates: int
    stored: int
    kept: int
    selected: int
    agree: float | None


@dataclass(frozen=True)
class Images:
    """The stored images, joined by position: entry i of every array is row i of the dedup file.

    `predicted` is -1 and `times` is -1 for images that distillation did not use; `times` is -1
    for those that it held out, too.
    """

    table: pa.Table
    labels: np.ndarray
    kept: np.ndarray
    predicted: np.ndarray
    times: np.ndarray
    held_out: int
    epochs: int


@dataclass(frozen=True)
class Flow:
    """Steps, rows by class (in label order), and remarks on counts that do not add up."""

    steps: tuple[Step, ...]
    classes: tuple[ClassFlow, ...]
    names: dict[int, str]
    remarks: tuple[str, ...] = field(default=())


def read_images(dedup: Path, selection: Path) -> Images:
    """Join the dedup and selection files on the image id.

    Raises:
        UserError: a file is missing or malformed, or the two are of different runs.
    """
    columns = ["id", "shard", "row", "label", "kept", "reason", "duplicate_of", "distance"]
    table = read_columns(dedup, "dedup", columns)
    used = read_columns(selection, "distill", ["id", "predicted", "held_out", "times_kept"])
    at = pc.index_in(used.column("id"), value_set=table.column("id").combine_chunks())
    if at.null_count:
        raise UserError(
            f"{selection} has {at.null_count:,} images that {dedup} does not",
            "they are of different runs: run `pipeline distill` again",
        )
    positions = at.to_numpy().astype(np.int64)
    predicted = np.full(table.num_rows, -1, np.int64)
    times = np.full(table.num_rows, -1, np.int64)
    predicted[positions] = used.column("predicted").to_numpy()
    held_out = used.column("held_out").to_numpy()
    times[positions] = np.where(held_out, -1, used.column("times_kept").to_numpy())
    return Images(
        table=table,
        labels=table.column("label").to_numpy(),
        kept=table.column("kept").to_numpy().astype(bool),
        predicted=predicted,
        times=times,
        held_out=int(held_out.sum()),
        epochs=read_epochs(selection),
    )


def _losses(counts: dict[str, int]) -> tuple[Loss, ...]:
    named = [
        Loss(REASONS.get(reason, reason.replace("_", " ") or "no reason given"), count)
        for reason, count in counts.items()
        if count
    ]
    return tuple(sorted(named, key=lambda loss: (-loss.count, loss.reason)))


def _by_label(labels: np.ndarray) -> Counter[int]:
    values, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def read_flow(crawl: Path, embed: Path, images: Images, class_names: tuple[str, ...]) -> Flow:
    """Count candidates, stored, kept and selected images, in all and by class."""
    manifest = read_columns(crawl / "manifest.parquet", "crawl", ["label", "class", "outcome"])
    groups = manifest.group_by(["label", "class", "outcome"]).aggregate([([], "count_all")])
    outcomes: Counter[str] = Counter()
    candidates: Counter[int] = Counter()
    names = dict(enumerate(class_names))
    for group in groups.to_pylist():
        label = -1 if group["label"] is None else group["label"]
        outcomes[group["outcome"] or ""] += group["count_all"]
        candidates[label] += group["count_all"]
        names.setdefault(label, group["class"] or "")
    names[-1] = "no class"

    stored, kept = len(images.kept), int(images.kept.sum())
    used, selected = int((images.times >= 0).sum()), int((images.times > 0).sum())
    reasons = images.table.filter(pc.invert(images.table.column("kept"))).column("reason")
    dropped = Counter(reason or "" for reason in reasons.to_pylist())
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
        step("Kept", "left after near-duplicates are out", kept, dropped),
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
        )
        for label in sorted(set(candidates) | set(counts["stored"]))
    )
    return Flow(steps, rows, names, tuple(remarks))
