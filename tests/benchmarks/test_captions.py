"""The benchmark of caption tables: its table is made up as it says, and both arms find the same."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import captions


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "PART_ROWS", 2000)
    monkeypatch.setattr(captions, "DRAWN_ROWS", 500)
    # a process of its own would take longer than all else, and this one keeps its cores
    monkeypatch.setattr(captions, "in_fresh_process", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(captions, "on_one_core", lambda: None)


def test_a_small_run_prints_tables_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = f"--sizes 1500,4500 --loop-rows 3000 --words 500 --folder {tmp_path} --json {out}"
    monkeypatch.setattr("sys.argv", ["captions", *options.split()])
    captions.main()
    found, text = json.loads(out.read_text()), capsys.readouterr().out
    assert text.endswith(f"```json\n{out.read_text()}```\n")
    assert [run["rows"] for run in found["runs"]] == [1500, 4500]
    assert found["loop"]["rows"] == found["beside"]["rows"] == 3000
    assert found["loop"]["matched"] == found["beside"]["matched"] > 30
    assert found["loop"]["kept"] == found["beside"]["kept"]
    ratio = found["loop"]["cpu"] / found["beside"]["cpu"]
    assert f"captions is {ratio:.1f} times as fast as the plain loop." in text
    speed = min(60 * run["rows"] / run["seconds"] for run in found["runs"])
    assert f"| rows_per_minute | 1,000,000.0 | {speed:,.2f} | " in text


def test_the_table_is_of_its_seed_alone_and_has_rows_that_name_a_class(tmp_path: Path) -> None:
    one = captions.Table(tmp_path / "one", 3000, 300, 1)
    two = captions.Table(tmp_path / "two", 3000, 300, 1)
    other = captions.Table(tmp_path / "other", 3000, 300, 2)
    read = [pa.concat_tables(map(pq.read_table, table.first(3000))) for table in (one, two, other)]
    assert read[0].equals(read[1]) and not read[0].equals(read[2])
    assert [len(pq.read_table(path)) for path in one.first(2500)] == [2000, 500]
    queries = [query for kind in captions.CLASSES for query in kind.queries]
    texts = read[0]["TEXT"].to_pylist()
    named = sum(any(query in text.lower() for query in queries) for text in texts)
    assert 0.01 < named / len(texts) < 0.04
    assert 30 < one.about()["caption_letters"]["median"] < 90


def test_the_exponent_is_the_slope() -> None:
    runs = [{"rows": rows, "cpu": 3e-6 * rows**1.2} for rows in (100, 500, 10_000)]
    assert captions.exponent(runs) == pytest.approx(1.2)
    assert captions.exponent(runs[:1]) is None
