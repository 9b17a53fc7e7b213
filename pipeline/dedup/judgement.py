"""Judgement of each stored image: kept or dropped, with the reason and what it looks like."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.dedup.fingerprints import Fingerprints
from kd3_pipeline.dedup.grouping import Grouping, best_first, elect, members, twins, with_twins
from kd3_pipeline.dedup.leakage import Leaks
from kd3_pipeline.dedup.near import QUARTER
from kd3_pipeline.dedup.stars import Stars, Terms, find_members, find_stars
from kd3_pipeline.dedup.verifier import Verify
from kd3_pipeline.manifest import ARRIVED, DUPLICATE, scan_manifest
from kd3_pipeline.verdicts import LEAKED, LOW_INFORMATION, NEAR_DUPLICATE, SCHEMA, UNREADABLE

DROP = "drop"  # of low_information
UNLABELLED = -1
NO_ISSUES: Mapping[str, np.ndarray] = MappingProxyType({})
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
            UserError: as `kd3_pipeline.manifest.read_manifest`.
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
class Rules:
    """Which images are dropped."""

    radius: int  # bits between hashes up to which images are compared on pixels
    similarity: float  # of pixels, from which two images are one
    similarity_across: float  # the same, for two that were found for different classes
    compared: int  # images that are kept with which one is compared, the nearest; 0 is all
    low_information: str  # keep or drop, of what shows nothing
    drop: Sequence[str] = ()  # issues
    blank_range: int = 16  # levels of a channel, up to which an image shows nothing
    turned: bool = True  # copies turned by 90° or 180° are looked for


def judge(
    fingerprints: Fingerprints,
    verify: Verify,
    rules: Rules,
    provenance: Provenance,
    leaks: Leaks | None = None,
    issues: Mapping[str, np.ndarray] = NO_ISSUES,
    rank: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    advance: Advance = no_progress,
) -> pa.Table:
    """One row an image, in order: kept, or the reason, and which image it duplicates.

    An image that shows a test image goes, and with it all that look like it. Of the others that
    look alike one is kept. Pairs of images found for different classes are one only where they are
    very much alike; else both are kept, and which it resembles is told. An image that several
    classes brought takes the label of most addresses, over its whole group; its own if that leaves
    a choice.

    Args:
        verify: rows i and j of images (int64 [P]) -> their similarity (float32 [P]).
        issues: by name, bool [N].
        rank: takes rows of images (int64 [M], rising), all those in groups of several, and the
            group of each (int64 [M]); returns how they rank (M numbers, the least the best), by
            which one of a group is kept. By default, and of equals, it is the first by
            `grouping.best_first`.
        advance: called with the number of images that are compared.

    Returns:
        Table as `kd3_pipeline.verdicts.SCHEMA`.
    """
    images, hashes = fingerprints.images, fingerprints.hashes
    if not rules.turned:
        hashes = hashes[:, :QUARTER]
    reason, test_image = _first_reasons(fingerprints, rules, leaks, issues)
    rough = _rank(images, provenance)
    order = np.argsort(rough)
    leaked = order[(test_image >= 0)[order] & fingerprints.comparable[order]]
    free = order[(reason == "")[order] & fingerprints.comparable[order]]
    first = twins(fingerprints, np.concatenate([leaked, free]))

    terms = Terms(rules.radius, rules.similarity, rules.compared)
    leaked, alone = (rows[first[rows] == rows] for rows in (leaked, free))
    like = with_twins(find_members(hashes, leaked, alone, terms, verify), first)
    reason[free[test_image[like.centre[free]] >= 0]] = LEAKED
    first = np.where(reason == "", first, np.arange(len(first)))
    alone = alone[reason[alone] == ""]
    advance(len(reason) - len(alone))

    classes = _Classes(images, first, provenance)
    terms = replace(terms, needed=lambda i, j: classes.differ(i, j) * rules.similarity_across)
    stars = find_stars(hashes, alone, terms, verify, advance)
    stars = with_twins(stars, first)
    several = members(stars)
    if rank is not None and len(several):
        best = np.lexsort((rough[several], rank(several, stars.centre[several])))
        rough[several[best]] = np.arange(len(several))
    grouping = elect(stars, rough, hashes, verify)
    reason[grouping.kept != np.arange(len(reason))] = NEAR_DUPLICATE
    edges = _Edges.of(reason, test_image, grouping, like)
    capped = stars.capped | (like.capped & (reason == ""))
    return _table(fingerprints, reason, edges, grouping, capped, issues, provenance)


def _first_reasons(
    fingerprints: Fingerprints, rules: Rules, leaks: Leaks | None, issues: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Why images go whatever they look like, or nothing (str objects), and the test image that
    each shows, or -1."""
    images = fingerprints.images
    reason = np.full(images.num_rows, "", object)
    for name in reversed(rules.drop):
        reason[issues[name]] = name
    if rules.low_information == DROP:
        reason[fingerprints.blank(rules.blank_range)] = LOW_INFORMATION
    reason[[bool(error) for error in images["error"].to_pylist()]] = UNREADABLE
    test_image = np.full(images.num_rows, -1, np.int64)
    if leaks is not None:
        test_image[leaks.image] = leaks.test
    reason[test_image >= 0] = LEAKED
    return reason, test_image


def _rank(images: pa.Table, provenance: Provenance) -> np.ndarray:
    """Place of each image among all, int64 [N], 0 the best to keep."""
    ids = images["id"].to_pylist()
    areas = images["width"].to_numpy().astype(np.int64) * images["height"].to_numpy()
    facts = [provenance.facts.get(id, 0) for id in ids]
    return best_first(areas, images["size"].to_numpy(), facts, ids)


class _Classes:
    """The classes for which images were found, twins together."""

    def __init__(self, images: pa.Table, first: np.ndarray, provenance: Provenance) -> None:
        found: dict[int, set[int]] = {}
        own = zip(images["id"].to_pylist(), images["label"].to_pylist(), strict=True)
        for (id, label), row in zip(own, first.tolist(), strict=True):
            labels = set(provenance.labels.get(id) or [label])
            found.setdefault(row, set()).update(labels - {UNLABELLED})
        self.sets = list({frozenset(labels) for labels in found.values()})
        number = {labels: place for place, labels in enumerate(self.sets)}
        self.number = np.array([number[frozenset(found[row])] for row in first.tolist()], np.int64)

    def differ(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Whether both of a pair were found for classes, and none of them is the same: bool [P]."""
        both = self.number[i] * len(self.sets) + self.number[j]
        kinds, of = np.unique(both, return_inverse=True)
        one, other = np.divmod(kinds, max(len(self.sets), 1))
        apart = [
            bool(self.sets[a] and self.sets[b]) and self.sets[a].isdisjoint(self.sets[b])
            for a, b in zip(one.tolist(), other.tolist(), strict=True)
        ]
        return np.array(apart, bool)[of]


@dataclass(frozen=True)
class _Edges:
    """For each image another that tells about it, -1 for none, and how like that it is."""

    other: np.ndarray  # int64 [N]
    distance: np.ndarray  # int32 [N]
    similarity: np.ndarray  # float32 [N]
    test_image: np.ndarray  # int64 [N], -1 for none

    @classmethod
    def of(
        cls, reason: np.ndarray, test_image: np.ndarray, grouping: Grouping, like: Stars
    ) -> "_Edges":
        """From the test images of those that show one, and the stars of leaked images."""
        rows = np.arange(len(reason))
        duplicates = grouping.kept != rows
        other = np.where(duplicates, grouping.kept, grouping.resembles)
        distance, similarity = grouping.distance.copy(), grouping.similarity.copy()
        leaked = np.flatnonzero((test_image < 0) & (reason == LEAKED))
        other[leaked] = like.centre[leaked]
        distance[leaked], similarity[leaked] = like.distance[leaked], like.similarity[leaked]
        shown = test_image.copy()
        shown[leaked] = test_image[other[leaked]]
        return cls(other, distance, similarity, shown)


def _table(
    fingerprints: Fingerprints,
    reason: np.ndarray,
    edges: _Edges,
    grouping: Grouping,
    capped: np.ndarray,
    issues: Mapping[str, np.ndarray],
    provenance: Provenance,
) -> pa.Table:
    rows = fingerprints.images.to_pylist()
    hashes = fingerprints.hashes[:, 0].tolist()
    labels = _labels(rows, grouping.kept, provenance)
    for k, row in enumerate(rows):
        other = int(edges.other[k])
        id = rows[other]["id"] if other >= 0 else None
        row |= {
            "label": labels[k].most,
            "labels": labels[k].all,
            "hash": hashes[k],
            "kept": not reason[k],
            "reason": str(reason[k]),
            "group": int(grouping.group[k]),
            "duplicate_of": id if reason[k] else None,
            "looks_like": None if reason[k] else id,
            "distance": int(edges.distance[k]) if other >= 0 else None,
            "similarity": float(edges.similarity[k]) if other >= 0 else None,
            "test_image": int(edges.test_image[k]) if edges.test_image[k] >= 0 else None,
            "comparable": bool(fingerprints.comparable[k]),
            "capped": bool(capped[k]),
            "issues": [name for name, found in issues.items() if found[k]],
        }
    return pa.Table.from_pylist(
        [{name: row[name] for name in SCHEMA.names} for row in rows], schema=SCHEMA
    )


@dataclass(frozen=True)
class Votes:
    """The classes for which an image was found, and the one that it takes."""

    most: int
    all: list[int]


def _labels(
    rows: Sequence[Mapping[str, Any]], kept: np.ndarray, provenance: Provenance
) -> list[Votes]:
    """Each image's classes over its group."""
    of_group: dict[int, Counter[int]] = {}
    for row, best in zip(rows, kept.tolist(), strict=True):
        own = provenance.labels.get(row["id"]) or Counter([row["label"]])
        of_group.setdefault(best, Counter()).update(own)
    votes = []
    for row, best in zip(rows, kept.tolist(), strict=True):
        counts = of_group[best]
        most = max(counts, key=lambda label: (counts[label], label == row["label"], -label))
        votes.append(Votes(most, sorted(counts)))
    return votes


def summarise(
    table: pa.Table, provenance: Provenance, class_names: Mapping[int, str], radius: int
) -> dict[str, Any]:
    """Counts for a person and for `dvc metrics`, overall and by class."""
    rows = table.drop_columns(["id", "hash"]).to_pylist()
    by_label: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    return {
        **_counts(rows, provenance.repeated.total()),
        "radius": radius,
        "groups_of_several": len({row["group"] for row in rows if row["reason"] == NEAR_DUPLICATE}),
        "label_conflicts": sum(row["kept"] and len(row["labels"]) > 1 for row in rows),
        "issues": _issues(rows),
        "classes": [
            {"name": class_names.get(label, ""), **_counts(some, provenance.repeated[label])}
            | {"issues": _issues(some)}
            for label, some in sorted(by_label.items())
        ],
    }


def _counts(rows: Sequence[Mapping[str, Any]], repeated: int) -> dict[str, int]:
    reasons = Counter(row["reason"] for row in rows)
    named = (NEAR_DUPLICATE, LEAKED, LOW_INFORMATION, UNREADABLE, "")
    return {
        "images": len(rows),
        "exact_duplicates": repeated,
        "near_duplicates": reasons[NEAR_DUPLICATE],
        "leaked": reasons[LEAKED],
        "low_information": reasons[LOW_INFORMATION],
        "unreadable": reasons[UNREADABLE],
        "with_issues": reasons.total() - sum(reasons[name] for name in named),
        "kept": reasons[""],
        "not_compared": sum(row["kept"] and not row["comparable"] for row in rows),
        "capped": sum(row["capped"] for row in rows),
        "across_classes": sum(row["looks_like"] is not None for row in rows),
    }


def _issues(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """For each issue the images that have it, and those dropped for it."""
    found = Counter(name for row in rows for name in row["issues"])
    dropped = Counter(row["reason"] for row in rows)
    return {name: {"found": found[name], "dropped": dropped[name]} for name in sorted(found)}
