"""Where work runs is no part of a stage's result: nothing is stale for it, and all is the same."""

from pathlib import Path

from tests.stages.workspace import fresh_copy, run, stages_run

NAMES = (
    *("data/dedup", "data/embed", "reports/dedup.json", "reports/embed.json"),
    *("reports/coverage.csv", "reports/classes.csv"),
)


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for name in NAMES for path in (folder / name, *(folder / name).glob("*"))]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()
    }


def test_another_engine_makes_no_stage_stale_and_gives_the_same_bytes(project, tmp_path):
    folder = fresh_copy(project, tmp_path)
    expected = contents(folder)
    assert len(expected) >= 10
    done = run(folder, "pipeline", "--engine", "processes:2", "repro")
    assert stages_run(done) == ["inputs"]
    again = ("repro", "--single-item", "--force", "dedup", "embed")
    done = run(folder, "pipeline", "--engine", "processes:3", *again)
    assert stages_run(done) == ["dedup", "embed"]
    assert contents(folder) == expected


def test_an_engine_that_is_none_is_told_before_anything_is_done(tmp_path):
    done = run(tmp_path, "pipeline", "--engine", "threads:2", "repro", check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: engine 'threads:2': expected processes:N (0: one for each core), ray:HOST:PORT or"
        " dask:HOST:PORT: see --engine, PIPELINE_ENGINE, RAY_ADDRESS, DASK_ADDRESS\n"
    )
