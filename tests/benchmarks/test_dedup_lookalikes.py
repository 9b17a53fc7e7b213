import pytest

from benchmarks.dedup_lookalikes import APART, exponent, markdown, measured, sign
from kd3_pipeline.dedup.judgement import Rules

RULES = Rules(12, 0.85, 0.93, 2, "drop")


@pytest.mark.parametrize(("kind", "total", "most"), [("copies", 50, 5), ("mixed", 100, 10)])
def test_copies_are_taken_for_what_they_are(kind, total, most):
    row = measured(kind, total, RULES)
    assert row["kept"] <= most
    assert row["seconds"] > row["verifying"] > 0
    assert total - most <= row["verified"] <= 3 * total


def test_signs_that_are_told_apart_all_stay_and_many_are_capped():
    row = measured(APART, 30, RULES)
    assert row["kept"] == 30 and row["capped"]


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
