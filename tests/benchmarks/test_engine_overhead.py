"""The benchmark of engines: it runs, and compares what both arms give."""

import sys

from benchmarks import engine_overhead


def test_a_small_run_tells_the_ratio(monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PIPELINE_ENGINE", "processes:1")
    options = ["--workers", "1", "--images", "250", "--side", "32", "--repeat", "1"]
    monkeypatch.setattr(sys, "argv", ["engine_overhead", *options])
    engine_overhead.main()
    assert (
        capsys.readouterr().out.splitlines()[1].startswith("ratio after the first of 3 results: ")
    )
