from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.allocated import allocated
from kd3_pipeline.dedup.fingerprints import Fingerprints, fingerprint_images, zeros
from kd3_pipeline.dedup.judgement import Rules, judge, summarise
from kd3_pipeline.dedup.leakage import Leaks
from kd3_pipeline.dedup.provenance import SCHEMA as FOUND
from kd3_pipeline.dedup.provenance import Provenance
from kd3_pipeline.dedup.verifier import verifier
from kd3_pipeline.manifest import SCHEMA as MANIFEST
from kd3_pipeline.store import write_table
from kd3_pipeline.verdicts import SCHEMA
from tests.dedup.pictures import jpeg, scene

SIDES = [30, 40, 35, 50, 30, 20, 60]  # of images 0 to 6
NOWHERE = Provenance()
RULES = Rules(12, 0.85, 0.93, 64, "drop")
KEPT = (True, "", None)


def fingerprints(errors=(), blank=(), faint=(), labels=None):
    """Of images whose whole hashes are 2, 4, … bits apart, and that have nothing else in common."""
    total = len(SIDES)
    images = pa.table(
        {
            "id": [f"id{k}" for k in range(total)],
            "shard": pa.array([0] * total, pa.int32()),
            "row": pa.array(range(total), pa.int32()),
            "label": pa.array(labels or [3] * total, pa.int64()),
            "width": pa.array(SIDES, pa.int32()),
            "height": pa.array(SIDES, pa.int32()),
            "size": pa.array([100] * total, pa.int64()),
            "error": ["broken" if k in errors else "" for k in range(total)],
        }
    )
    hashes = np.random.default_rng(0).integers(0, 2**64, (total, 4), dtype=np.uint64)
    hashes[:, 0] = 4 ** np.arange(total) - 1
    whole = np.tile(np.float32([0, 0, 1, 1]), (total, 1))
    known = {
        "hashes": hashes,
        "trim": whole,
        "cut": whole,
        "range": np.array([0 if k in blank else 255 for k in range(total)], np.uint8),
        "comparable": np.array([k not in [*blank, *faint] for k in range(total)]),
    }
    return Fingerprints(images, **zeros(total) | known)


def found(*rows, repeated=None):
    """Rows of id, label, addresses, facts."""
    columns = dict(zip(FOUND.names, zip(*rows, strict=True), strict=True))
    return Provenance(pa.table(columns, schema=FOUND), Counter(repeated or {}))


def judged(alike, prints=None, rules=RULES, provenance=NOWHERE, **more):
    """The verdicts where the pairs {(i, j): similarity} are alike, and all others not."""

    def verify(i, j):
        pairs = zip(i.tolist(), j.tolist(), strict=True)
        return np.array([alike.get(pair, alike.get(pair[::-1], 0)) for pair in pairs], np.float32)

    return judge(prints or fingerprints(), verify, rules, provenance, **more)


def verdicts(table):
    columns = ("kept", "reason", "duplicate_of")
    return [tuple(row[name] for name in columns) for row in table.to_pylist()]


def leaked(image, test):
    return Leaks(np.array([image]), np.array([test]), *np.float32([[0.9], [0.9], [0.1]]))


def test_only_pairs_that_look_alike_are_duplicates_and_the_largest_is_kept():
    table = judged({(0, 1): 0.9, (2, 3): 0.5})
    assert verdicts(table) == [(False, "near-duplicate", "id1")] + [KEPT] * 6
    row = table.to_pylist()[0]
    assert (row["distance"], round(row["similarity"], 3)) == (2, 0.9)
    assert row["group"] == table.to_pylist()[1]["group"]
    assert table.schema == SCHEMA


def test_pairs_beyond_the_radius_are_not_looked_at():
    rules = Rules(3, 0.85, 0.93, 64, "drop")
    assert verdicts(judged({(0, 1): 0.9, (2, 4): 0.9}, rules=rules))[2] == KEPT
    assert verdicts(judged({(0, 1): 0.9, (2, 4): 0.9}))[4] == (False, "near-duplicate", "id2")


def test_a_chain_does_not_pull_unlike_images_together():
    table = judged({(0, 1): 0.9, (0, 2): 0.9})
    # 0 is like both, 1 and 2 are not alike: the largest (1) takes 0, and 2 stays
    assert [row["kept"] for row in table.to_pylist()] == [False] + [True] * 6


def test_what_shows_a_test_image_goes_with_all_that_look_like_it():
    table = judged({(1, 6): 0.95, (0, 2): 0.9}, leaks=leaked(1, 7))
    rows = table.to_pylist()
    reasons = ["near-duplicate", "leaked", "", "", "", "", "leaked"]
    assert [row["reason"] for row in rows] == reasons
    assert (rows[1]["test_image"], rows[6]["test_image"]) == (7, 7)
    assert (rows[6]["duplicate_of"], rows[6]["distance"]) == ("id1", 10)
    assert rows[1]["duplicate_of"] is None


def test_a_leaked_image_takes_what_looks_like_it_from_a_nearer_and_better_one():
    alike = {(3, 4): 0.95, (1, 4): 0.9}
    assert verdicts(judged(alike))[4] == (False, "near-duplicate", "id3")
    assert verdicts(judged(alike, leaks=leaked(1, 7)))[4] == (False, "leaked", "id1")


def test_leaks_do_not_ask_for_classes():
    prints = fingerprints(labels=[3, 4, 3, 3, 3, 3, 3])
    assert verdicts(judged({(0, 1): 0.9}, prints, leaks=leaked(1, 7)))[0] == (
        False,
        "leaked",
        "id1",
    )


def test_twins_of_a_leaked_image_go_too():
    prints = fingerprints()
    prints.hashes[5] = prints.hashes[1]
    rows = judged({}, prints, leaks=leaked(1, 7)).to_pylist()
    assert [row["reason"] for row in rows] == ["", "leaked", "", "", "", "leaked", ""]
    assert (rows[5]["duplicate_of"], rows[5]["distance"], rows[5]["similarity"]) == ("id1", 0, 1)
    assert rows[5]["test_image"] == 7


def test_twins_are_one_whatever_the_verifier_says_and_share_a_star():
    prints = fingerprints()
    prints.hashes[5] = prints.hashes[1]
    found = verdicts(judged({(1, 3): 0.9}, prints))
    assert found[1] == found[5] == (False, "near-duplicate", "id3")
    assert verdicts(judged({}, prints))[5] == (False, "near-duplicate", "id1")


def test_what_is_broken_or_blank_is_named_and_groups_with_nothing():
    prints = fingerprints(errors=[0], blank=[0, 1])
    alike = {(0, 1): 1.0, (1, 2): 1.0, (2, 3): 1.0}
    reasons = [row["reason"] for row in judged(alike, prints).to_pylist()]
    assert reasons[:4] == ["unreadable", "low-information", "near-duplicate", ""]


def test_blank_images_stay_where_they_are_not_to_be_dropped_and_are_told():
    prints, rules = fingerprints(blank=[1, 2]), Rules(12, 0.85, 0.93, 64, "keep")
    table = judged({(1, 2): 1.0, (0, 1): 1.0}, prints, rules)
    assert verdicts(table) == [KEPT] * 7
    summary = summarise(table, NOWHERE, {3: "cat"}, 12)
    assert (summary["not_compared"], summary["low_information"]) == (2, 0)
    dropped = summarise(judged({}, prints), NOWHERE, {3: "cat"}, 12)
    assert (dropped["not_compared"], dropped["low_information"]) == (0, 2)


@pytest.mark.parametrize("low_information", ["keep", "drop"])
def test_what_cannot_be_compared_stays_and_is_in_no_pair(low_information):
    prints, rules = fingerprints(faint=[1]), Rules(12, 0.85, 0.93, 64, low_information)
    table = judged({(0, 1): 1.0, (1, 3): 1.0, (2, 3): 1.0}, prints, rules)
    assert verdicts(table)[:3] == [KEPT, KEPT, (False, "near-duplicate", "id3")]
    assert summarise(table, NOWHERE, {}, 12)["not_compared"] == 1


def test_named_issues_are_told_and_drop_an_image_only_where_they_are_asked_to():
    issues = {"blurred": np.arange(7) == 3, "dark": np.isin(np.arange(7), [2, 3])}
    alike = {(3, 4): 1.0}
    table = judged(alike, issues=issues)
    assert verdicts(table)[3:5] == [KEPT, (False, "near-duplicate", "id3")]
    assert table["issues"].to_pylist()[2:4] == [["dark"], ["blurred", "dark"]]
    summary = summarise(table, NOWHERE, {3: "cat"}, 12)
    assert summary["with_issues"] == 0
    for counts in (summary, *summary["classes"]):
        assert counts["issues"] == {
            "blurred": {"found": 1, "dropped": 0},
            "dark": {"found": 2, "dropped": 0},
        }

    rules = Rules(12, 0.85, 0.93, 64, "drop", ["blurred", "dark"])
    table = judged(alike, rules=rules, issues=issues)
    # its copy, which is not blurred, takes its place
    reasons = [row["reason"] for row in table.to_pylist()]
    assert reasons == ["", "", "dark", "blurred", "", "", ""]
    summary = summarise(table, NOWHERE, {3: "cat"}, 12)
    assert (summary["with_issues"], summary["kept"]) == (2, 5)
    assert summary["issues"]["dark"] == {"found": 2, "dropped": 1}


def test_of_two_classes_only_what_is_very_much_alike_is_one():
    prints = fingerprints(labels=[3, 4, 3, 4, 3, 3, 3])
    table = judged({(0, 1): 0.9, (2, 3): 0.95}, prints)
    rows = table.to_pylist()
    assert verdicts(table)[:3] == [KEPT, KEPT, (False, "near-duplicate", "id3")]
    assert (rows[0]["looks_like"], rows[0]["distance"]) == ("id1", 2)
    assert rows[0]["similarity"] == np.float32(0.9)
    assert [row["looks_like"] for row in rows[1:]] == [None] * 6
    summary = summarise(table, NOWHERE, {3: "cat", 4: "dog"}, 12)
    assert summary["across_classes"] == 1
    assert [one["across_classes"] for one in summary["classes"]] == [1, 0]


def test_an_image_that_both_classes_brought_is_of_both():
    prints = fingerprints(labels=[3, 4, 3, 3, 3, 3, 3])
    both = found(("id1", 4, 1, 0), ("id1", 3, 1, 0))
    alike = {(0, 1): 0.9}
    assert verdicts(judged(alike, prints, provenance=both))[0][2] == "id1"
    prints.hashes[5] = prints.hashes[1]  # a twin for class 3
    assert verdicts(judged(alike, prints))[0][2] == "id1"


def test_images_without_a_class_are_not_of_another():
    prints = fingerprints(labels=[3, -1, -1, -1, 3, 3, 3])
    table = judged({(0, 1): 0.9, (2, 3): 0.9}, prints)
    assert [row["duplicate_of"] for row in table.to_pylist()][:4] == ["id1", None, "id3", None]


def test_images_with_more_near_ones_than_are_compared_are_counted():
    table = judged({}, rules=Rules(64, 0.85, 0.93, 2, "drop"))
    assert sum(table["capped"].to_pylist()) == 4
    assert summarise(table, NOWHERE, {}, 64)["capped"] == 4
    assert not any(judged({}, rules=Rules(64, 0.85, 0.93, 0, "drop"))["capped"].to_pylist())


def test_the_class_of_most_addresses_wins_over_the_group():
    provenance = found(("id0", 3, 1, 0), ("id1", 3, 1, 0), ("id1", 5, 4, 0), repeated={5: 3})
    table = judged({(0, 1): 0.9}, provenance=provenance)
    rows = table.to_pylist()
    assert (rows[0]["label"], rows[1]["label"], rows[1]["labels"]) == (5, 5, [3, 5])
    summary = summarise(table, provenance, {3: "cat", 5: "dog"}, 12)
    assert summary["label_conflicts"] == 1
    assert summary["exact_duplicates"] == 3
    assert [one["name"] for one in summary["classes"]] == ["cat", "dog"]


def test_the_better_known_of_equal_images_is_kept():
    equal = found(("id4", 3, 1, 3))
    assert judged({(0, 4): 1.0}, provenance=equal)["duplicate_of"].to_pylist()[0] == "id4"


def test_a_rank_of_the_members_of_groups_chooses_what_is_kept():
    asked = []

    def rank(rows, groups):
        asked.append((rows.tolist(), len(set(groups.tolist()))))
        return -rows

    alike = {(0, 1): 0.9, (1, 2): 0.875, (0, 2): 0.5}
    rows = judged(alike, rank=rank).to_pylist()
    assert asked == [([0, 1, 2], 1)]
    assert [row["duplicate_of"] for row in rows] == ["id2", "id2", *[None] * 5]
    assert [row["similarity"] for row in rows[:3]] == [0.5, 0.875, None]
    assert [row["distance"] for row in rows[:3]] == [4, 2, None]


def test_of_those_that_rank_alike_the_largest_is_kept():
    rank = lambda rows, groups: np.where(rows == 1, 0.75, 0.5)  # noqa: E731
    rows = judged({(0, 1): 0.9, (1, 2): 0.9, (0, 2): 0.9}, rank=rank).to_pylist()
    assert [row["duplicate_of"] for row in rows[:3]] == ["id2", "id2", None]


def test_every_image_is_counted_once():
    counts = []
    issues = {"dark": np.arange(7) == 4}
    table = judged(
        {(0, 1): 0.9},
        fingerprints(errors=[5], blank=[6]),
        Rules(8, 0.85, 0.93, 64, "drop", ["dark"]),
        issues=issues,
        advance=counts.append,
    )
    summary = summarise(table, NOWHERE, {3: "cat"}, 8)
    parts = ("near_duplicates", "leaked", "low_information", "unreadable", "with_issues", "kept")
    assert [summary[name] for name in parts] == [1, 0, 1, 1, 1, 3]
    assert summary["images"] == sum(counts) == 7


@pytest.mark.parametrize("low_information", ["keep", "drop"])
def test_copies_of_real_pictures_are_found_by_the_verifier(low_information):
    files = [jpeg(scene(index), quality) for index in range(3) for quality in (95, 60, 30)]
    found, errors = fingerprint_images(files, "phash", exact=False)
    images = {"id": [f"{k}" for k in range(9)], "shard": [0] * 9, "row": range(9), "label": [0] * 9}
    images |= {"width": [400] * 9, "height": [300] * 9, "error": errors}
    table = pa.table(images | {"size": [len(file) for file in files]})
    prints = replace(found, images=table)
    rules = Rules(12, 0.85, 0.93, 64, low_information)
    kept = judge(prints, verifier(prints, None), rules, NOWHERE)["kept"].to_pylist()
    assert kept == [True, False, False] * 3  # the file of most bytes


def test_labels_are_those_of_most_addresses_however_many_there_are():
    draw = np.random.default_rng(5)
    total, classes = 400, [-1, 2, 3, 7]
    owner = draw.integers(0, 40, total)
    own = draw.choice(classes, total)
    rows = [
        (f"id{k}", label, int(draw.integers(1, 3)), 0)
        for k in range(0, total, 2)
        for label in draw.choice(classes, draw.integers(1, 4), replace=False).tolist()
    ]
    images = pa.table({"id": [f"id{k}" for k in range(total)], "label": own})
    votes = found(*rows, ("unknown", 9, 5, 0)).votes(images).summed(owner)

    expected: list[Counter[int]] = [Counter() for _ in range(40)]
    for id, label, addresses, _ in rows:
        expected[owner[int(id[2:])]][label] += addresses
    for k in range(1, total, 2):  # nothing is known of them but their own label
        expected[owner[k]][int(own[k])] += 1
    most = []
    for k in range(total):
        counts = expected[owner[k]]
        best = [label for label in sorted(counts) if counts[label] == max(counts.values())]
        most.append(own[k] if own[k] in best else best[0])
    assert votes.most(owner, own).tolist() == most
    assert votes.lists(owner).to_pylist() == [sorted(expected[group]) for group in owner]


def test_provenance_is_what_the_manifest_says_of_stored_images(tmp_path):
    def row(id, label, outcome, **more):
        facts = {"page_url": "", "title": "", "licence": ""} | more
        return (
            dict.fromkeys(MANIFEST.names) | {"id": id, "label": label, "outcome": outcome} | facts
        )

    rows = [
        row("a", 3, "stored", title="t"),
        row("b", 4, "stored", title="t", creator="c"),
        row("a", 3, "duplicate", title="t", licence="l", page_url="p"),
        row("a", 5, "duplicate"),
        row(None, 3, "timeout", title="t"),
    ]
    write_table(tmp_path / "manifest.parquet", pa.Table.from_pylist(rows, schema=MANIFEST))
    read = Provenance.read(tmp_path / "manifest.parquet")
    assert sorted(map(tuple, (row.values() for row in read.found.to_pylist()))) == [
        ("a", 3, 2, 3),
        ("a", 5, 1, 0),
        ("b", 4, 1, 2),
    ]
    assert read.repeated == {3: 1, 4: 0, 5: 1}
    assert read.facts_of(pa.array(["c", "b", "a"])).tolist() == [0, 2, 3]


def test_an_image_takes_less_than_a_kilobyte_while_it_is_judged(tmp_path):
    total = 20_000
    draw = np.random.default_rng(1)
    ids = pa.array([f"{k:064x}" for k in range(total)])
    columns = dict.fromkeys(["shard", "row", "width", "height"], np.zeros(total, np.int32))
    labels = draw.integers(0, 9, total)
    columns |= {"id": ids, "label": labels, "size": labels, "error": [""] * total}
    arrays = zeros(total)
    arrays["hashes"][:] = draw.integers(0, 2**64, arrays["hashes"].shape, dtype=np.uint64)
    arrays["comparable"][:], arrays["range"][:] = True, 255
    prints = Fingerprints(pa.table(columns), **arrays)
    manifest = {name: pa.nulls(total, MANIFEST.field(name).type) for name in MANIFEST.names}
    manifest |= {"id": ids, "label": labels, "outcome": ["stored"] * total, "title": ids}
    write_table(tmp_path / "manifest.parquet", pa.table(manifest, schema=MANIFEST))

    provenance, reading = allocated(lambda: Provenance.read(tmp_path / "manifest.parquet"))
    table, judging = allocated(lambda: judged({}, prints, replace(RULES, radius=4), provenance))
    _, telling = allocated(lambda: summarise(table, provenance, {}, 4))
    assert table["kept"].to_pylist() == [True] * total
    # as objects of Python 1.2, 3.3 and 0.8 KB
    assert (reading / total < 500, judging / total < 1000, telling / total < 200) == (True,) * 3
