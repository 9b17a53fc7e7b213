"""The benchmark of growth: it runs, and no table of the crawl takes more than it may."""

import json

import pytest

from benchmarks import growth

MOST = {"manifest": 800, "summary": 300}  # bytes a candidate, at the peak


@pytest.mark.parametrize("rows", [4_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_crawls_tables_grow_as_columns(tmp_path, capsys, rows):
    growth.main(["--rows", str(rows), "--stages", "crawl", "--json", str(tmp_path / "out.json")])
    found = {one["table"]: one for one in json.loads((tmp_path / "out.json").read_text())}
    assert {name: one["rows"] for name, one in found.items() if name in MOST} == dict.fromkeys(
        MOST, rows
    )
    assert {
        name: found[name]["peak"] for name, most in MOST.items() if found[name]["peak"] > most
    } == {}
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found)


def test_what_is_counted_is_what_is_there():
    kept, figure = growth.measured("stage", "bytes", 100, lambda: bytearray(100_000))
    assert len(kept) == 100_000
    assert 1000 <= figure.stays <= figure.peak < 1100
