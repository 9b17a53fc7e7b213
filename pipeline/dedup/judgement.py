"""Judgement of each stored image: kept or dropped, with the reason and what it looks like."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.console import Advance, no_progress
from pipeline.dedup.fingerprints import Fingerprints
from pipeline.dedup.grouping import Grouping, best_first, groups
from pipeline.dedup.leakage import Leaks
from pipeline.dedup.near import candidate_pairs
from pipeline.dedup.verify import similarity
from pipeline.manifest import ARRIVED, DUPLICATE, scan_manifest
from pipeline.verdicts import LEAKED, LOW_INFORMATION, NEAR_DUPLICATE, SCHEMA, UNREADABLE

PAIRS_AT_ONCE = 2048
FACTS = ("page_url", "title", "licence", "licence_url", "creator")  # of where an image is from


@dataclass(frozen=True)
class Provenance:
    """Origins of the stored images, as the crawl's manifest tells them."""

    labels: Mapping[str, Counter[int]]  # id -> how many addresses brought it for each class
    facts: Mapping[str, int]  # id -> columns of FACTS that are filled, of its best candidate
    repeated: Counter[int]  # label -> addresses that gave bytes which the crawl had already

    @classmethod
    def read(cls, manifest: Path) -> "Provenance":
        """From `manifest.parquet`.

        Raises:
            UserError: as `pipeline.manifest.read_manifest`.
        """
        labels: dict[str, Counter[int]] = {}
        facts: dict[str, int] = {}
        repeated: Counter[int] = Counter()
        columns = ["id", "label", "outcome", *FACTS]
        for batch in scan_manifest(manifest, columns, pc.field("outcome").isin(ARRIVED)):
            for row in batch.to_pylist():
                id, known = row["id"], sum(bool(row[name]) for name in FACTS)
                labels.setdefault(id, Counter())[row["label"]] += 1
                facts[id] = max(facts.get(id, 0), known)
                repeated[row["label"]] += row["outcome"] == DUPLICATE
        return cls(labels, facts, repeated)


@dataclass(frozen=True)
class Pairs:
    """Pairs i < j of images whose hashes are near, and how alike their pixels are."""

    i: np.ndarray  # int64 [P]
    j: np.ndarray  # int64 [P]
    distance: np.ndarray  # int32 [P], bits
    similarity: np.ndarray  # float32 [P], -1 to 1

    def where(self, chosen: np.ndarray) -> "Pairs":
        """Some of them: bool [P]."""
        return Pairs(self.i[chosen], self.j[chosen], self.distance[chosen], self.similarity[chosen])


def verified_pairs(
    fingerprints: Fingerprints, radius: int, advance: Advance = no_progress
) -> Pairs:
    """All pairs of images near by any key, each compared on pixels."""
    readable = np.array([not error for error in fingerprints.images["error"].to_pylist()], bool)
    i, j, distance = candidate_pairs(fingerprints.hashes, radius, readable & ~fingerprints.flat)
    alike = np.empty(len(i), np.float32)
    for start in range(0, len(i), PAIRS_AT_ONCE):
        a, b = (side[start : start + PAIRS_AT_ONCE] for side in (i, j))
        alike[start : start + len(a)] = similarity(
            fingerprints.grey[a], fingerprints.trim[a], fingerprints.grey[b], fingerprints.trim[b]
        )
        advance(len(a))
    return Pairs(i, j, distance, alike)


def judge(
    fingerprints: Fingerprints,
    pairs: Pairs,
    least: float,
    provenance: Provenance,
    leaks: Leaks | None = None,
) -> pa.Table:
    """One row an image, in order: kept, or the reason, and which image it duplicates.

    An image that shows a test image goes, and with it all that look like it. Of the others that
    look alike the best is kept (`grouping.best_first`). An image that several classes brought
    takes the label of most addresses, over its whole group; its own if that leaves a choice.

    Args:
        least: similarity from which two pictures are one.

    Returns:
        Table as `pipeline.verdicts.SCHEMA`.
    """
    images = fingerprints.images
    alike = pairs.where(pairs.similarity >= least)
    test_image = np.full(images.num_rows, -1, np.int64)
    if leaks is not None:
        test_image[leaks.image] = leaks.test
    reason = np.full(images.num_rows, "", object)
    reason[fingerprints.flat] = LOW_INFORMATION
    reason[[bool(error) for error in images["error"].to_pylist()]] = UNREADABLE
    reason[test_image >= 0] = LEAKED
    original = _looks_leaked(test_image, alike)
    reason[original >= 0] = LEAKED
    test_image[original >= 0] = test_image[original[original >= 0]]

    free = alike.where((reason[alike.i] == "") & (reason[alike.j] == ""))
    rank = _rank(images, provenance)
    grouping = groups(images.num_rows, free.i, free.j, free.similarity, rank)
    duplicates = grouping.representative != np.arange(images.num_rows)
    reason[duplicates] = NEAR_DUPLICATE
    original[duplicates] = grouping.representative[duplicates]
    hashes = fingerprints.hashes[:, 0]
    return _table(images, hashes, reason, original, test_image, alike, grouping, provenance)


def _rank(images: pa.Table, provenance: Provenance) -> np.ndarray:
    """Place of each image among all, int64 [N], 0 the best to keep."""
    ids = images["id"].to_pylist()
    areas = images["width"].to_numpy().astype(np.int64) * images["height"].to_numpy()
    facts = [provenance.facts.get(id, 0) for id in ids]
    return best_first(areas, images["size"].to_numpy(), facts, ids)


def _table(
    images: pa.Table,
    hashes: np.ndarray,
    reason: np.ndarray,
    original: np.ndarray,
    test_image: np.ndarray,
    alike: Pairs,
    grouping: Grouping,
    provenance: Provenance,
) -> pa.Table:
    rows = images.to_pylist()
    edges = zip(alike.i.tolist(), alike.j.tolist(), strict=True)
    edge_of = {pair: number for number, pair in enumerate(edges)}
    labels = _labels(rows, grouping.representative, provenance)
    for k, (row, other) in enumerate(zip(rows, original.tolist(), strict=True)):
        edge = edge_of[min(k, other), max(k, other)] if other >= 0 else None
        row |= {
            "label": labels[k].most,
            "labels": labels[k].all,
            "hash": int(hashes[k]),
            "kept": not reason[k],
            "reason": str(reason[k]),
            "group": int(grouping.group[k]),
            "duplicate_of": None if edge is None else rows[other]["id"],
            "distance": None if edge is None else int(alike.distance[edge]),
            "similarity": None if edge is None else float(alike.similarity[edge]),
            "test_image": int(test_image[k]) if test_image[k] >= 0 else None,
        }
    return pa.Table.from_pylist(
        [{name: row[name] for name in SCHEMA.names} for row in rows], schema=SCHEMA
    )


def _looks_leaked(test_image: np.ndarray, alike: Pairs) -> np.ndarray:
    """For each image the leaked one that it is most like, -1 for none and for leaked ones."""
    original = np.full(len(test_image), -1, np.int64)
    one, other = np.concatenate([alike.i, alike.j]), np.concatenate([alike.j, alike.i])
    order = np.argsort(np.concatenate([alike.similarity, alike.similarity]), kind="stable")
    order = order[(test_image[one[order]] >= 0) & (test_image[other[order]] < 0)]
    original[other[order]] = one[order]  # the last one written is the most alike
    return original


@dataclass(frozen=True)
class Votes:
    """The classes for which an image was found, and the one that it takes."""

    most: int
    all: list[int]


def _labels(
    rows: Sequence[Mapping[str, Any]], representative: np.ndarray, provenance: Provenance
) -> list[Votes]:
    """Each image's classes over its group."""
    of_group: dict[int, Counter[int]] = {}
    for row, best in zip(rows, representative.tolist(), strict=True):
        own = provenance.labels.get(row["id"]) or Counter([row["label"]])
        of_group.setdefault(best, Counter()).update(own)
    votes = []
    for row, best in zip(rows, representative.tolist(), strict=True):
        counts = of_group[best]
        most = max(counts, key=lambda label: (counts[label], label == row["label"], -label))
        votes.append(Votes(most, sorted(counts)))
    return votes


def summarise(
    table: pa.Table, provenance: Provenance, class_names: Mapping[int, str], radius: int
) -> dict[str, Any]:
    """Counts for a person and for `dvc metrics`, overall and by class."""
    rows = table.select(["label", "reason", "group", "labels", "kept"]).to_pylist()
    by_label: dict[int, Counter[str]] = {}
    for row in rows:
        by_label.setdefault(row["label"], Counter())[row["reason"]] += 1
    return {
        **_counts(Counter(row["reason"] for row in rows), provenance.repeated.total()),
        "radius": radius,
        "groups_of_several": len({row["group"] for row in rows if row["reason"] == NEAR_DUPLICATE}),
        "label_conflicts": sum(row["kept"] and len(row["labels"]) > 1 for row in rows),
        "classes": [
            {"name": class_names.get(label, ""), **_counts(counts, provenance.repeated[label])}
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
