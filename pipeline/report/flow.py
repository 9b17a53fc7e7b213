"""Flow of the images: counts from the first search result to the last selection, with reasons."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from kd3_pipeline.classcheck import labels_among
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.manifest import STORED, read_manifest
from kd3_pipeline.report.stored import Images

REASONS = {
    "duplicate": "same bytes as another",
    "placeholder": "placeholder for what is gone",
    "http_error": "HTTP error",
    "timeout": "timed out",
    "connection": "no connection",
    "certificate": "certificate not trusted",
    "tls": "no common TLS",
    "unknown_host": "no such host",
    "malformed": "answered, but unreadable",
    "not_an_image": "not an image",
    "too_many_pixels": "too many pixels",
    "damaged": "data missing or overwritten",
    "forbidden_address": "address not allowed",
    "forbidden_dns": "name leads to no public address",
    "not_now": "refused for the moment",
    "blocked": "on the blocklist",
    "forgotten": "dropped on request",
    "not_needed": "not needed: class full",
    "opted_out": "site opts out",
    "robots": "refused by robots.txt",
    "leaked": "shows a test image",
    "low-information": "shows next to nothing",
    "unreadable": "cannot be read",
}


@dataclass(frozen=True)
class Loss:
    """Images left out for one reason."""

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

    `moved` counts images that dedup gave it, less those that it took: of what repeats an image that
    was found for another class. `losses` has a count for each of the flow's `reasons`.
    """

    name: str
    candidates: int
    stored: int
    moved: int
    kept: int
    selected: int
    agree: float | None
    losses: tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """Steps, rows by class (in label order), and remarks on counts that do not add up.

    `names` are those that the crawl asked for, by its labels; `known` gives each label's class
    among those of the networks, -1 for none.
    """

    steps: tuple[Step, ...]
    reasons: tuple[str, ...]
    classes: tuple[ClassFlow, ...]
    names: dict[int, str]
    known: dict[int, int]
    remarks: tuple[str, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether dedup gave any image to another class."""
        return any(row.moved for row in self.classes)


@dataclass(frozen=True)
class Candidates:
    """Candidates of the crawl by label and outcome; label -1 is that of those without a class."""

    counts: Counter[tuple[int, str]]
    names: dict[int, str]  # classes asked for

    @property
    def lost(self) -> Counter[tuple[int, str]]:
        """Those that gave no stored image."""
        return Counter({key: count for key, count in self.counts.items() if key[1] != STORED})


def read_candidates(manifest: Path) -> Candidates:
    """Counts of the manifest's rows.

    Raises:
        UserError: as `read_manifest`.
    """
    keys = ["label", "class", "outcome"]
    groups = read_manifest(manifest, keys).group_by(keys, use_threads=False)
    counts: Counter[tuple[int, str]] = Counter()
    names: dict[int, str] = {}
    for group in groups.aggregate([([], "count_all")]).to_pylist():
        label = -1 if group["label"] is None else group["label"]
        counts[label, group["outcome"] or ""] += group["count_all"]
        names.setdefault(label, group["class"] or "")
    return Candidates(counts, names)


def _told(reason: str) -> str:
    return REASONS.get(reason, reason.replace("_", " ") or "no reason given")


def _losses(counts: Mapping[str, int]) -> tuple[Loss, ...]:
    named = [Loss(_told(reason), count) for reason, count in counts.items() if count]
    return tuple(sorted(named, key=lambda loss: (-loss.count, loss.reason)))


def _by_label(labels: np.ndarray) -> Counter[int]:
    values, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _by_reason(counts: Counter[tuple[int, str]]) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for (_, reason), count in counts.items():
        reasons[reason] += count
    return reasons


def count_flow(
    candidates: Candidates, embeddings: Embeddings, images: Images, class_names: tuple[str, ...]
) -> Flow:
    """Candidates, stored, kept and selected images, in all and by class.

    An image counts for the class asked for; once dedup looked at it, for the one that it gave it.
    """
    names = candidates.names | {-1: "no class"}
    known = {-1: -1} | labels_among(candidates.names, class_names)
    dropped = _dropped(images)
    lost = candidates.lost + dropped
    reasons = [reason for reason, _ in _by_reason(lost).most_common()]
    stored = sum(count for (_, outcome), count in candidates.counts.items() if outcome == STORED)
    remarks: tuple[str, ...] = ()
    if stored != len(images.kept):
        remarks = (
            f"The crawl's manifest counts {stored:,} stored images, "
            f"the dedup file {len(images.kept):,}: they are of different runs.",
        )
    return Flow(
        steps=_steps(candidates, images, dropped),
        reasons=tuple(map(_told, reasons)),
        classes=_by_class(candidates, embeddings, images, names, known, lost, reasons),
        names=names,
        known=known,
        remarks=remarks,
    )


def _dropped(images: Images) -> Counter[tuple[int, str]]:
    """Stored images that dedup did not keep, by label and reason."""
    out = images.table.filter(pc.invert(images.table.column("kept"))).select(["label", "reason"])
    groups = out.group_by(["label", "reason"], use_threads=False).aggregate([([], "count_all")])
    counts: Counter[tuple[int, str]] = Counter()
    for group in groups.to_pylist():
        counts[group["label"], group["reason"] or ""] += group["count_all"]
    return counts


def _steps(
    candidates: Candidates, images: Images, dropped: Counter[tuple[int, str]]
) -> tuple[Step, ...]:
    total = candidates.counts.total()
    stored, kept = len(images.kept), int(images.kept.sum())
    used, selected = int((images.times >= 0).sum()), int((images.times > 0).sum())

    def step(name: str, note: str, count: int, losses: Mapping[str, int]) -> Step:
        return Step(name, note, count, count / total if total else 0.0, _losses(losses))

    return (
        step("Candidates", "addresses the searches returned", total, {}),
        step("Stored", "fetched, decoded, each once", stored, _by_reason(candidates.lost)),
        step(
            "Kept",
            "left after near-duplicates and the unfit are out",
            kept,
            _by_reason(dropped),
        ),
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


def _by_class(
    candidates: Candidates,
    embeddings: Embeddings,
    images: Images,
    names: dict[int, str],
    known: dict[int, int],
    lost: Counter[tuple[int, str]],
    reasons: list[str],
) -> tuple[ClassFlow, ...]:
    """A row a class that has candidates or stored images, in the order of the labels."""
    found: Counter[int] = Counter()
    for (label, _), count in candidates.counts.items():
        found[label] += count
    stored = {label: candidates.counts[label, STORED] for label in found}
    judged = _by_label(images.labels)
    kept = _by_label(images.labels[images.kept])
    selected = _by_label(images.labels[images.times > 0])
    embedded = _by_label(embeddings.labels)
    labels = embeddings.labels
    agree = _by_label(labels[among(labels, known) == predicted(embeddings)])
    return tuple(
        ClassFlow(
            name=names.get(label, f"class {label}"),
            candidates=found[label],
            stored=stored.get(label, 0),
            moved=judged[label] - stored.get(label, 0),
            kept=kept[label],
            selected=selected[label],
            agree=agree[label] / embedded[label]
            if known.get(label, -1) >= 0 and embedded[label]
            else None,
            losses=tuple(lost[label, reason] for reason in reasons),
        )
        for label in sorted(set(found) | set(judged))
    )


def among(labels: np.ndarray, known: Mapping[int, int]) -> np.ndarray:
    """The class of the networks that each label of the crawl is, int64 [N]; -1 for none."""
    found, inverse = np.unique(labels, return_inverse=True)
    return np.array([known.get(label, -1) for label in found.tolist()], np.int64)[inverse]


def predicted(embeddings: Embeddings) -> np.ndarray:
    """The class that the teacher sees in each embedded image, int64 [N]."""
    logits = embeddings.logits
    parts = [np.argmax(logits[at : at + 65536], axis=1) for at in range(0, len(logits), 65536)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
