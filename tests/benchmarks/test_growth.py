"""The benchmark of growth: it runs, and no table of the crawl takes more than it may."""

import json

import pytest

from benchmarks import growth

MOST = {  # bytes a candidate, or a sealed image
    ("manifest", "peak"): 800,
    ("summary", "peak"): 300,
    ("journal", "peak"): 650,
    ("placeholders", "peak"): 150,
    ("sealed", "stays"): 60,  # one shard at a time is more, for a moment
}


@pytest.mark.parametrize("rows", [5_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_crawls_tables_grow_as_columns(tmp_path, capsys, rows):
    growth.main(["--rows", str(rows), "--stages", "crawl", "--json", str(tmp_path / "out.json")])
    found = {one["table"]: one for one in json.loads((tmp_path / "out.json").read_text())}
    assert {found[name]["rows"] for name in ("manifest", "journal")} == {rows}
    beyond = {key for key, most in MOST.items() if found[key[0]][key[1]] > most}
    assert beyond == set()
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found)


def test_what_is_counted_is_what_is_there():
    kept, figure = growth.measured("stage", "bytes", 100, lambda: bytearray(100_000))
    assert len(kept) == 100_000
    assert 1000 <= figure.stays <= figure.peak < 1100
