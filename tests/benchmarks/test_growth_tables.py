from functools import partial

import pyarrow.parquet as pq
import pytest

from benchmarks.growth_tables import EPOCHS, STAGES, dedup, markdown

GIGABYTES = 16  # that ten million rows may take in any stage


def figures(rows, folder, timed):
    stages = [partial(dedup, radius=4), *STAGES[1:]]
    return [one for stage in stages for one in stage(rows, folder, timed)]


def test_every_stage_is_counted_and_reads_what_those_before_it_wrote(tmp_path):
    found = figures(300, tmp_path, True)
    tables = ["provenance", "verdicts", "summary", "contact sheet", "selection", "all"]
    assert [one.table for one in found] == tables
    assert all(one.bytes > 0 and one.seconds is not None for one in found)
    assert markdown(found).count("\n") == 1 + len(tables)
    verdicts = pq.read_table(tmp_path / "verdicts.parquet")
    assert verdicts["reason"].to_pylist().count("near-duplicate") == 30
    kept = pq.read_table(tmp_path / "selection.parquet")["kept"]
    assert {len(row) for row in kept.to_pylist()} == {EPOCHS}


@pytest.mark.slow
def test_a_million_rows_take_what_ten_million_may_of_a_machine(tmp_path):
    for one in figures(1_000_000, tmp_path, False):
        assert one.bytes * 10_000_000 < GIGABYTES * 10**9, one
