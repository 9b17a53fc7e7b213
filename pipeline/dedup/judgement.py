"""Judgement of each stored image: kept or dropped, with the reason and what it looks like."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from kd3_pipeline.dedup.provenance import UNLABELLED, Provenance, Votes
from kd3_pipeline.dedup.stars import Stars, Terms, find_members, find_stars
from kd3_pipeline.dedup.verifier import Verify
from kd3_pipeline.verdicts import LEAKED, LOW_INFORMATION, NEAR_DUPLICATE, SCHEMA, UNREADABLE

DROP = "drop"  # of low_information
NO_ISSUES: Mapping[str, np.ndarray] = MappingProxyType({})


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

    votes = provenance.votes(images)
    classes = _Classes(votes, first)
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
    return _table(fingerprints, reason, edges, grouping, capped, issues, votes)


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
    reason[pc.not_equal(images["error"], "").to_numpy()] = UNREADABLE
    test_image = np.full(images.num_rows, -1, np.int64)
    if leaks is not None:
        test_image[leaks.image] = leaks.test
    reason[test_image >= 0] = LEAKED
    return reason, test_image


def _rank(images: pa.Table, provenance: Provenance) -> np.ndarray:
    """Place of each image among all, int64 [N], 0 the best to keep."""
    areas = images["width"].to_numpy().astype(np.int64) * images["height"].to_numpy()
    facts = provenance.facts_of(images["id"])
    return best_first(areas, images["size"].to_numpy(), facts, images["id"])


class _Classes:
    """The classes for which images were found, twins together."""

    def __init__(self, votes: Votes, first: np.ndarray) -> None:
        asked = votes.label != UNLABELLED
        known = Votes(votes.of[asked], votes.label[asked], votes.addresses[asked]).summed(first)
        count = np.bincount(known.of, minlength=len(first))
        labels, of = np.unique(known.label, return_inverse=True)
        self.sets = [frozenset[int](), *(frozenset([label]) for label in labels.tolist())]
        self.number = np.zeros(len(first), np.int64)  # of the set: that of no class is the first
        self.number[known.of] = of + 1
        several = {sets: place for place, sets in enumerate(self.sets)}
        rows = np.flatnonzero(count > 1)
        starts = np.searchsorted(known.of, rows)
        for row, start in zip(rows.tolist(), starts.tolist(), strict=True):
            found = frozenset(known.label[start : start + count[row]].tolist())
            self.number[row] = several.setdefault(found, len(several))
        self.sets = list(several)
        self.number = self.number[first]

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
    votes: Votes,
) -> pa.Table:
    images = fingerprints.images
    votes, none = votes.summed(grouping.kept), edges.other < 0
    dropped = (reason != "").astype(bool)
    columns = {name: images[name] for name in ("id", "shard", "row", "width", "height")} | {
        "label": votes.most(grouping.kept, images["label"].to_numpy()),
        "labels": votes.lists(grouping.kept),
        "hash": np.ascontiguousarray(fingerprints.hashes[:, 0]),
        "kept": ~dropped,
        "reason": reason,
        "group": grouping.group,
        "duplicate_of": images["id"].take(pa.array(edges.other, mask=none | ~dropped)),
        "looks_like": images["id"].take(pa.array(edges.other, mask=none | dropped)),
        "distance": pa.array(edges.distance, mask=none),
        "similarity": pa.array(edges.similarity, mask=none),
        "test_image": pa.array(edges.test_image, mask=edges.test_image < 0),
        "comparable": fingerprints.comparable,
        "capped": capped,
        "issues": _names(issues, len(reason)),
    }
    return pa.table([_column(columns[field.name], field) for field in SCHEMA], schema=SCHEMA)


def _column(values: Any, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    """Values as a column in one piece, where it can be."""
    if isinstance(values, np.ndarray):
        return pa.array(values, field.type)
    return (values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values).cast(
        field.type
    )


def _names(issues: Mapping[str, np.ndarray], total: int) -> pa.ListArray:
    """The names of the issues of each of `total` images."""
    found = np.zeros((total, len(issues)), bool)
    for place, has in enumerate(issues.values()):
        found[:, place] = has
    ends = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
    names = pa.array(list(issues), pa.string()).take(pa.array(np.nonzero(found)[1]))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), names)


def summarise(
    table: pa.Table, provenance: Provenance, class_names: Mapping[int, str], radius: int
) -> dict[str, Any]:
    """Counts for a person and for `dvc metrics`, overall and by class."""
    labels, of = np.unique(table["label"].to_numpy(), return_inverse=True)
    near = table.filter(pc.equal(table["reason"], NEAR_DUPLICATE))
    several = pc.greater(pc.list_value_length(table["labels"]), 1)
    everything = np.zeros(table.num_rows, np.int64)
    by_class = zip(
        labels.tolist(),
        _counts(table, of, len(labels)),
        _issues(table, of, len(labels)),
        strict=True,
    )
    return {
        **_with_repeated(_counts(table, everything, 1)[0], provenance.repeated.total()),
        "radius": radius,
        "groups_of_several": pc.count_distinct(near["group"]).as_py(),
        "label_conflicts": pc.sum(pc.and_(table["kept"], several)).as_py() or 0,
        "issues": _issues(table, everything, 1)[0],
        "classes": [
            {
                "name": class_names.get(label, ""),
                **_with_repeated(counts, provenance.repeated[label]),
                "issues": issues,
            }
            for label, counts, issues in by_class
        ],
    }


def _with_repeated(counts: dict[str, int], repeated: int) -> dict[str, int]:
    return {"images": counts["images"], "exact_duplicates": repeated} | counts


def _counts(table: pa.Table, of: np.ndarray, classes: int) -> list[dict[str, int]]:
    """Counts of the images of each class; `of` is that of each image."""
    reason = {
        name: pc.equal(table["reason"], name).to_numpy()
        for name in (NEAR_DUPLICATE, LEAKED, LOW_INFORMATION, UNREADABLE, "")
    }
    kept = table["kept"].to_numpy()
    which = {
        "images": np.ones(len(kept), bool),
        "near_duplicates": reason[NEAR_DUPLICATE],
        "leaked": reason[LEAKED],
        "low_information": reason[LOW_INFORMATION],
        "unreadable": reason[UNREADABLE],
        "with_issues": ~np.logical_or.reduce(list(reason.values())),
        "kept": reason[""],
        "not_compared": kept & ~table["comparable"].to_numpy(),
        "capped": table["capped"].to_numpy(),
        "across_classes": table["looks_like"].is_valid().to_numpy(),
    }
    counts = {name: np.bincount(of[has], minlength=classes).tolist() for name, has in which.items()}
    return [{name: counts[name][one] for name in counts} for one in range(classes)]


def _issues(table: pa.Table, of: np.ndarray, classes: int) -> list[dict[str, dict[str, int]]]:
    """For each class and issue the images that have it, and those dropped for it."""
    names = table["issues"].combine_chunks()
    flat, owner = names.flatten(), of[pc.list_parent_indices(names).to_numpy()]
    found: list[dict[str, dict[str, int]]] = [{} for _ in range(classes)]
    for name in sorted(flat.unique().to_pylist()):
        has = np.bincount(owner[pc.equal(flat, name).to_numpy(False)], minlength=classes)
        dropped = of[pc.equal(table["reason"], name).to_numpy()]
        gone = np.bincount(dropped, minlength=classes)
        for one in np.flatnonzero(has).tolist():
            found[one][name] = {"found": int(has[one]), "dropped": int(gone[one])}
    return found
