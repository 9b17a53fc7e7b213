"""Which stored images are kept, and why the others are not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.console import Advance, no_progress
from pipeline.dedup.fingerprints import Prints
from pipeline.dedup.grouping import groups
from pipeline.dedup.leakage import Leaks
from pipeline.dedup.near import candidate_pairs
from pipeline.dedup.verify import similarity

NEAR_DUPLICATE = "near-duplicate"
LEAKED = "leaked"
LOW_INFORMATION = "low-information"
UNREADABLE = "unreadable"
PAIRS_AT_ONCE = 2048
COLUMNS = {
    "id": pa.string(),
    "shard": pa.int32(),
    "row": pa.int32(),
    "label": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "hash": pa.uint64(),
    "kept": pa.bool_(),
    "reason": pa.string(),
    "group": pa.int64(),
    "duplicate_of": pa.string(),
    "distance": pa.int32(),
    "similarity": pa.float32(),
    "test_image": pa.int64(),
    "labels": pa.list_(pa.int64()),
}


@dataclass(frozen=True)
class Sources:
    """What the crawl's manifest knows of each stored image."""

    labels: Mapping[str, Counter[int]]  # id -> how many addresses brought it for each class
    provenance: Mapping[str, int]  # id -> fields that say where it is from
    repeated: Counter[int]  # label -> addresses that gave bytes which were there already

    @classmethod
    def of(cls, manifest: pa.Table) -> "Sources":
        """From `manifest.parquet`."""
        labels: dict[str, Counter[int]] = {}
        provenance: dict[str, int] = {}
        repeated: Counter[int] = Counter()
        told = ("page_url", "title", "licence", "licence_url", "creator")
        for row in manifest.select(["id", "label", "outcome", *told]).to_pylist():
            if row["outcome"] not in ("stored", "duplicate"):
                continue
            labels.setdefault(row["id"], Counter())[row["label"]] += 1
            provenance[row["id"]] = max(
                provenance.get(row["id"], 0), sum(bool(row[name]) for name in told)
            )
            repeated[row["label"]] += row["outcome"] == "duplicate"
        return cls(labels, provenance, repeated)


@dataclass(frozen=True)
class Pairs:
    """Pairs i < j of images whose hashes are near, and how alike their pixels are."""

    i: np.ndarray  # int64 [P]
    j: np.ndarray  # int64 [P]
    distance: np.ndarray  # int32 [P], bits
    similarity: np.ndarray  # float32 [P], -1 to 1


def verified_pairs(prints: Prints, radius: int, advance: Advance = no_progress) -> Pairs:
    """All pairs of images near by any key, each compared on pixels."""
    readable = np.array([not error for error in prints.images["error"].to_pylist()], bool)
    i, j, distance = candidate_pairs(prints.hashes, radius, readable & ~prints.flat)
    alike = np.empty(len(i), np.float32)
    for start in range(0, len(i), PAIRS_AT_ONCE):
        a, b = (side[start : start + PAIRS_AT_ONCE] for side in (i, j))
        alike[start : start + len(a)] = similarity(
            prints.grey[a], prints.trim[a], prints.grey[b], prints.trim[b]
        )
        advance(len(a))
    return Pairs(i, j, distance, alike)


def judge(
    prints: Prints, pairs: Pairs, least: float, sources: Sources, leaks: Leaks | None = None
) -> pa.Table:
    """One row an image, in order: kept, or the reason, and which image it duplicates.

    An image that shows a test image goes, and with it all that look like it. Of the others that
    look alike the best is kept: most pixels, then most bytes, then best known origin, then by id.
    An image that several classes brought takes the label of most addresses, over its whole group;
    its own if that leaves a choice.

    Args:
        least: similarity from which two pictures are one.
    """
    rows = prints.images.to_pylist()
    total = len(rows)
    alike = pairs.similarity >= least
    i, j, distance, similar = (
        part[alike] for part in (pairs.i, pairs.j, pairs.distance, pairs.similarity)
    )
    shown = np.full(total, -1, np.int64)
    if leaks is not None:
        shown[leaks.image] = leaks.test
    reason = np.full(total, "", object)
    reason[prints.flat] = LOW_INFORMATION
    reason[[bool(row["error"]) for row in rows]] = UNREADABLE
    reason[shown >= 0] = LEAKED
    of = _looks_leaked(shown, i, j, similar)
    reason[of >= 0] = LEAKED
    shown[of >= 0] = shown[of[of >= 0]]

    free = (reason[i] == "") & (reason[j] == "")
    order = sorted(
        range(total),
        key=lambda k: (
            -rows[k]["width"] * rows[k]["height"],
            -rows[k]["size"],
            -sources.provenance.get(rows[k]["id"], 0),
            rows[k]["id"],
        ),
    )
    rank = np.empty(total, np.int64)
    rank[order] = np.arange(total)
    grouping = groups(total, i[free], j[free], similar[free], rank)
    duplicates = grouping.representative != np.arange(total)
    reason[duplicates] = NEAR_DUPLICATE
    of[duplicates] = grouping.representative[duplicates]
    pair = {(a, b): n for n, (a, b) in enumerate(zip(i.tolist(), j.tolist(), strict=True))}

    labels = _labels(rows, grouping.representative, sources)
    for k, (row, other) in enumerate(zip(rows, of.tolist(), strict=True)):
        edge = pair[min(k, other), max(k, other)] if other >= 0 else None
        row |= {
            "label": labels[k].most,
            "labels": labels[k].all,
            "hash": int(prints.hashes[k, 0]),
            "kept": not reason[k],
            "reason": str(reason[k]),
            "group": int(grouping.group[k]),
            "duplicate_of": None if edge is None else rows[other]["id"],
            "distance": None if edge is None else int(distance[edge]),
            "similarity": None if edge is None else float(similar[edge]),
            "test_image": int(shown[k]) if shown[k] >= 0 else None,
        }
    return pa.Table.from_pylist(
        [{name: row[name] for name in COLUMNS} for row in rows], schema=pa.schema(COLUMNS.items())
    )


def _looks_leaked(
    shown: np.ndarray, i: np.ndarray, j: np.ndarray, similar: np.ndarray
) -> np.ndarray:
    """For each image the leaked one that it is most like, -1 for none and for leaked ones."""
    of = np.full(len(shown), -1, np.int64)
    one, other = np.concatenate([i, j]), np.concatenate([j, i])
    order = np.argsort(np.concatenate([similar, similar]), kind="stable")
    order = order[(shown[one[order]] >= 0) & (shown[other[order]] < 0)]
    of[other[order]] = one[order]  # the last one written is the most alike
    return of


@dataclass(frozen=True)
class Votes:
    """The classes for which an image was found, and the one that it takes."""

    most: int
    all: list[int]


def _labels(
    rows: Sequence[Mapping[str, Any]], representative: np.ndarray, sources: Sources
) -> list[Votes]:
    """Each image's classes over its group."""
    of_group: dict[int, Counter[int]] = {}
    for row, best in zip(rows, representative.tolist(), strict=True):
        own = sources.labels.get(row["id"]) or Counter([row["label"]])
        of_group.setdefault(best, Counter()).update(own)
    votes = []
    for row, best in zip(rows, representative.tolist(), strict=True):
        counts = of_group[best]
        most = max(counts, key=lambda label: (counts[label], label == row["label"], -label))
        votes.append(Votes(most, sorted(counts)))
    return votes


def summarise(
    table: pa.Table, sources: Sources, class_names: Mapping[int, str], radius: int
) -> dict[str, Any]:
    """Counts for a person and for `dvc metrics`, overall and by class."""
    rows = table.select(["label", "reason", "group", "labels", "kept"]).to_pylist()
    by_label: dict[int, Counter[str]] = {}
    for row in rows:
        by_label.setdefault(row["label"], Counter())[row["reason"]] += 1
    return {
        **_counts(Counter(row["reason"] for row in rows), sources.repeated.total()),
        "radius": radius,
        "groups_of_several": len({row["group"] for row in rows if row["reason"] == NEAR_DUPLICATE}),
        "label_conflicts": sum(row["kept"] and len(row["labels"]) > 1 for row in rows),
        "classes": [
            {"name": class_names.get(label, ""), **_counts(counts, sources.repeated[label])}
            for label, counts in sorted(by_label.items())
        ],
    }


def _counts(reasons: Counter[str], repeated: int) -> dict[str, int]:
    return {
        "images": reasons.total(),
        "exact_duplicates": repeated,
        "near_duplicates": reasons[NEAR_DUPLICATE],
        "leaked": reasons[LEAKED],
        "low_information": reasons[LOW_INFORMATION],
        "unreadable": reasons[UNREADABLE],
        "kept": reasons[""],
    }
