import json
import sys

from benchmarks import pretrained_start


def test_a_smoke_run_pairs_both_starts_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    command = ["pretrained_start", "--smoke", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    pretrained_start.main()
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["start"]) for row in rows] == [
        (0, "random"),
        (0, "pretrained"),
        (1, "random"),
        (1, "pretrained"),
    ]
    assert len({row["steps"] for row in rows}) == 1
    table = capsys.readouterr().out.splitlines()[-6:]
    assert table[0] == "| | seed 0 | seed 1 | gain |"
    pretrained_start.main()
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 4
    assert capsys.readouterr().out.splitlines()[-6:] == table


def test_the_gain_is_paired_by_seed_with_its_interval():
    rows = [
        {"seed": seed, "start": start, "accuracy": value, "agreement": value}
        for seed, start, value in (
            (0, "random", 0.5),
            (0, "pretrained", 0.51),
            (1, "random", 0.6),
            (1, "pretrained", 0.62),
            (2, "random", 0.55),
            (2, "pretrained", 0.58),
            (3, "random", 0.9),  # has no partner yet
        )
    ]
    table = pretrained_start.table(rows)
    assert table[2] == "| accuracy, random start | 50.0 | 60.0 | 55.0 |  |"
    assert table[3] == "| accuracy, pretrained start | 51.0 | 62.0 | 58.0 | +2.0 ± 2.5 |"
