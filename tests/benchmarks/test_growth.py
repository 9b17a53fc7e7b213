"""The benchmark of growth: it runs, and no table takes more than it may."""

import json
from functools import partial

import pyarrow.parquet as pq
import pytest

from benchmarks import growth
from benchmarks.allocated import measured
from benchmarks.growth_tables import EPOCHS, dedup

MOST = {  # bytes a candidate, or a sealed image
    ("manifest", "peak"): 800,
    ("summary", "peak"): 300,
    ("journal", "peak"): 650,
    ("placeholders", "peak"): 150,
    ("sealed", "stays"): 60,  # one shard at a time is more, for a moment
}
MACHINE = 16 * 10**9  # bytes that ten million rows may take in any table


@pytest.mark.parametrize("rows", [5_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_crawls_tables_grow_as_columns(capsys, rows):
    growth.main(["--rows", str(rows), "--stages", "crawl"])
    lines = capsys.readouterr().out.splitlines()
    found = {one["table"]: one for one in map(json.loads, lines[: lines.index("")])}
    assert {found[name]["rows"] for name in ("manifest", "journal")} == {rows}
    assert {key for key, most in MOST.items() if found[key[0]][key[1]] > most} == set()
    assert len(lines) == 2 * len(found) + 3


def test_every_stage_is_counted_and_reads_what_those_before_it_wrote(tmp_path):
    stages = [partial(dedup, radius=4), growth.selection, growth.report]
    found = [one for stage in stages for one in stage(300, tmp_path, True)]
    tables = ["provenance", "verdicts", "summary", "contact sheet", "selection", "all"]
    assert [one.table for one in found] == tables
    assert all(one.peak >= one.stays and one.seconds is not None for one in found)
    assert growth.markdown(found).count("\n") == 1 + len(tables)
    verdicts = pq.read_table(tmp_path / "verdicts.parquet")
    assert verdicts["reason"].to_pylist().count("near-duplicate") == 30
    kept = pq.read_table(tmp_path / "selection.parquet")["kept"]
    assert {len(row) for row in kept.to_pylist()} == {EPOCHS}


@pytest.mark.slow
def test_a_million_rows_take_what_ten_million_may_of_a_machine(tmp_path):
    stages = [partial(dedup, radius=4), growth.selection, growth.report]
    for one in [one for stage in stages for one in stage(1_000_000, tmp_path, False)]:
        assert one.peak * 10_000_000 < MACHINE, one


def test_what_is_counted_is_what_is_there():
    kept, figure = measured("stage", "bytes", 100, lambda: bytearray(100_000))
    assert len(kept) == 100_000
    assert 1000 <= figure.stays <= figure.peak < 1100
