from collections import Counter

import numpy as np
import pyarrow as pa

from pipeline.dedup.fingerprints import Fingerprints
from pipeline.dedup.judgement import Pairs, Provenance, judge, summarise
from pipeline.dedup.leakage import Leaks
from pipeline.verdicts import SCHEMA

SIDES = [30, 40, 35, 50, 30, 20, 60]  # of images 0 to 6
NOWHERE = Provenance({}, {}, Counter())


def fingerprints(errors=(), flat=()):
    total = len(SIDES)
    images = pa.table(
        {
            "id": [f"id{k}" for k in range(total)],
            "shard": pa.array([0] * total, pa.int32()),
            "row": pa.array(range(total), pa.int32()),
            "label": pa.array([3] * total, pa.int64()),
            "width": pa.array(SIDES, pa.int32()),
            "height": pa.array(SIDES, pa.int32()),
            "size": pa.array([100] * total, pa.int64()),
            "error": ["broken" if k in errors else "" for k in range(total)],
        }
    )
    return Fingerprints(
        images,
        np.zeros((total, 4), np.uint64),
        np.tile(np.float32([0, 0, 1, 1]), (total, 1)),
        np.array([k in flat for k in range(total)]),
        np.zeros((total, 64, 64), np.uint8),
        np.zeros((total, 32, 32, 3), np.uint8),
        np.ones(total, np.float32),
    )


def pairs(*edges):
    i, j, distance, similarity = zip(*edges, strict=True) if edges else ((),) * 4
    return Pairs(
        np.array(i, np.int64),
        np.array(j, np.int64),
        np.array(distance, np.int32),
        np.array(similarity, np.float32),
    )


def verdicts(table):
    columns = ("kept", "reason", "duplicate_of")
    return [tuple(row[name] for name in columns) for row in table.to_pylist()]


KEPT = (True, "", None)


def test_only_pairs_that_look_alike_are_duplicates_and_the_largest_is_kept():
    table = judge(fingerprints(), pairs((0, 1, 2, 0.9), (2, 3, 1, 0.5)), 0.85, NOWHERE)
    assert verdicts(table) == [(False, "near-duplicate", "id1")] + [KEPT] * 6
    row = table.to_pylist()[0]
    assert (row["distance"], round(row["similarity"], 3)) == (2, 0.9)
    assert table.schema == SCHEMA


def test_a_chain_does_not_pull_unlike_images_together():
    table = judge(fingerprints(), pairs((0, 1, 2, 0.9), (0, 2, 2, 0.9)), 0.85, NOWHERE)
    # 0 is like both, 1 and 2 are not alike: the largest (1) takes 0, and 2 stays
    assert [row["kept"] for row in table.to_pylist()] == [False] + [True] * 6


def test_what_shows_a_test_image_goes_with_all_that_look_like_it():
    leaked = Leaks(np.array([1]), np.array([7]), np.float32([0.9]), np.float32([0.9]))
    table = judge(fingerprints(), pairs((1, 6, 2, 0.95), (0, 2, 2, 0.9)), 0.85, NOWHERE, leaked)
    rows = table.to_pylist()
    assert [row["reason"] for row in rows] == [
        "near-duplicate",
        "leaked",
        "",
        "",
        "",
        "",
        "leaked",
    ]
    assert (rows[1]["test_image"], rows[6]["test_image"]) == (7, 7)
    assert rows[6]["duplicate_of"] == "id1"


def test_what_is_broken_or_blank_is_named_and_groups_with_nothing():
    table = judge(fingerprints(errors=[0], flat=[1]), pairs((2, 3, 0, 1.0)), 0.85, NOWHERE)
    assert [row["reason"] for row in table.to_pylist()][:3] == [
        "unreadable",
        "low-information",
        "near-duplicate",
    ]


def test_the_class_of_most_addresses_wins_over_the_group():
    provenance = Provenance(
        {"id0": Counter({3: 1}), "id1": Counter({3: 1, 5: 4})}, {}, Counter({5: 3})
    )
    table = judge(fingerprints(), pairs((0, 1, 2, 0.9)), 0.85, provenance)
    rows = table.to_pylist()
    assert (rows[0]["label"], rows[1]["label"], rows[1]["labels"]) == (5, 5, [3, 5])
    summary = summarise(table, provenance, {3: "cat", 5: "dog"}, 12)
    assert summary["label_conflicts"] == 1
    assert summary["exact_duplicates"] == 3
    assert [one["name"] for one in summary["classes"]] == ["cat", "dog"]


def test_the_better_known_of_equal_images_is_kept():
    equal = Provenance({}, {"id4": 3}, Counter())
    table = judge(fingerprints(), pairs((0, 4, 0, 1.0)), 0.85, equal)
    assert table["duplicate_of"].to_pylist()[0] == "id4"


def test_every_image_is_counted_once():
    table = judge(fingerprints(errors=[5], flat=[6]), pairs((0, 1, 2, 0.9)), 0.85, NOWHERE)
    summary = summarise(table, NOWHERE, {3: "cat"}, 8)
    parts = ("near_duplicates", "leaked", "low_information", "unreadable", "kept")
    assert [summary[name] for name in parts] == [1, 0, 1, 1, 4]
    assert summary["images"] == 7
