import pytest

from benchmarks.dedup_lookalikes import APART, exponent, markdown, measured, sign
from pipeline.dedup.judgement import Rules

RULES = Rules(12, 0.85, 0.93, 2, "drop")


@pytest.mark.parametrize(
    ("kind", "total", "kept"), [("copies", 50, 1), ("mixed", 100, 2), (APART, 30, 30)]
)
def test_copies_are_one_and_signs_that_are_told_apart_all_stay(kind, total, kept):
    row = measured(kind, total, RULES)
    assert row["kept"] == kept
    assert bool(row["capped"]) == (kind == APART)
    assert row["seconds"] > row["verifying"] > 0
    assert row["verified"] >= total - kept


def test_signs_are_all_different():
    assert len({sign(number, 100).tobytes() for number in range(100)}) == 100


def test_the_exponent_is_that_of_a_power():
    sizes = [1250, 2500, 5000]
    assert exponent(sizes, [3 * size**1.2 for size in sizes]) == pytest.approx(1.2)
    rows = [
        {"kind": "copies", "images": size, "verified": size, "kept": 1, "capped": 0}
        | {"seconds": 2 * size, "verifying": size}
        for size in sizes
    ]
    assert "copies: CPU time grows as N^1.00" in markdown(rows)
