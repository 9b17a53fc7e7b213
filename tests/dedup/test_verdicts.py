import random

import numpy as np

from pipeline.dedup.hashing import HashedImage
from pipeline.dedup.verdicts import COLUMNS, judge, summarise


def image(name, value, width=30, size=100, error=""):
    return HashedImage(name, 0, int(name[1:]), 3, width, 20, size, value, error)


IMAGES = [
    image("a0", 0b0000),
    image("a1", 0b0011, width=40),
    image("a2", 1 << 63),
    image("a3", 0, error="OSError: image file is truncated"),
    image("a4", 0b0111, width=35),
    image("a5", 1 << 63, size=200),
    image("a6", 0xFF << 20),
]


def test_each_image_has_a_verdict_in_order():
    rows = judge(IMAGES, 2).to_pylist()
    assert [row["id"] for row in rows] == [one.id for one in IMAGES]
    assert [
        (row["kept"], row["reason"], row["group"], row["duplicate_of"], row["distance"])
        for row in rows
    ] == [
        (False, "near-duplicate", 0, "a1", 2),
        (True, "", 0, None, None),
        (False, "near-duplicate", 1, "a5", 0),
        (False, "unreadable", -1, None, None),
        (False, "near-duplicate", 0, "a1", 1),
        (True, "", 1, None, None),
        (True, "", 2, None, None),
    ]
    assert [row["hash"] for row in rows] == [one.hash for one in IMAGES]
    assert list(rows[0]) == list(COLUMNS)


def test_counts_add_up():
    assert summarise(judge(IMAGES, 2)) == {
        "images": 7,
        "kept": 3,
        "near_duplicates": 3,
        "unreadable": 1,
        "groups_of_several": 2,
    }


def test_no_images_give_an_empty_table():
    table = judge([], 4)
    assert (table.num_rows, table.column_names) == (0, list(COLUMNS))
    assert summarise(table)["kept"] == 0


def test_only_unreadable_images_are_all_named():
    table = judge([image("a0", 0, error="x"), image("a1", 0, error="y")], 4)
    assert table["reason"].to_pylist() == ["unreadable"] * 2
    assert table["kept"].to_pylist() == [False] * 2


def test_what_is_kept_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 2**63, 20, dtype=np.uint64)
    images = [
        image(f"a{n}", int(bases[n % 20]) ^ 1 << int(rng.integers(64)), size=n % 7)
        for n in range(200)
    ]

    def kept(order):
        return {
            (row["id"], row["kept"], row["duplicate_of"]) for row in judge(order, 2).to_pylist()
        }

    expected = kept(images)
    for seed in range(3):
        random.Random(seed).shuffle(images)
        assert kept(images) == expected
