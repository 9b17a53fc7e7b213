"""The table: its rows are valid, none is run twice, and every figure comes from a line of JSON."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.cifar10 import __main__ as program
from benchmarks.cifar10.projects import Projects
from benchmarks.cifar10.results import append_result, read_results
from benchmarks.cifar10.rows import DATA, KINDS, Row, digest, read_rows
from benchmarks.cifar10.speed import estimates, place
from benchmarks.cifar10.tables import NONE, interval, rendered, table
from kd3_pipeline.errors import UserError
from kd3_stages.code import ROOT

ON = {"commit": "a" * 40, "processor": "a CPU", "threads": 1, "torch": "2.0", "python": "3.12"}
PLAN: dict[str, Any] = {
    "preset": "demo",
    "common": {"crawl.engine": "files", "distill.batch_size": 32},
    "teachers": {"resnet20": {"teacher.architecture": "resnet20"}},
    "pools": {"originals": {"crawl.source": "DATA/a"}, "web": {"crawl.source": "DATA/b"}},
    "methods": {
        "kd": {"distill.objective": "kd"},
        "kd3-before": {"distill.objective": "kd3"},
        "stored": {"embed.store": "jpeg"},
        "labels": {"teacher.source": "train", "teacher.data": "KEPT"},
    },
}
ENTRY = {"pairs": ["resnet20-resnet8"], "pools": ["web"], "methods": ["kd"], "seeds": 2}


def rows_of(folder: Path, *entries: dict[str, Any], **changes: Any) -> list[Row]:
    path = folder / "plan.yaml"
    given = [ENTRY | {"steps": [10]} | entry for entry in entries or [{}]]
    path.write_text(yaml.safe_dump(PLAN | {"rows": {"cpu": given}} | changes))
    return read_rows(path, "cpu")


def result_of(row: Row, accuracy: float, **ran: Any) -> dict[str, Any]:
    of_run = {"steps": 10, "seconds": 2.0, "parameters": 78_042, "agreement": 0.5, "leaked": 3}
    return {
        "key": row.key,
        "row": row.name,
        "pair": row.pair,
        "ran": of_run | {"accuracy": accuracy, "images": 900, "test_images": 100} | ran,
        "on": ON,
    }


@pytest.mark.parametrize("file", ["rows.yaml", "smoke.yaml"])
def test_every_row_of_the_table_has_parameters_that_there_are(file: str) -> None:
    rows = read_rows(program.HERE / file, "cpu")
    if file == "rows.yaml":
        rows += read_rows(program.HERE / file, "gpu")
        pairs = {row.pair for row in rows}
        assert len(pairs) == 5 and len({row.pool for row in rows}) == 4
        main = [row for row in rows if row.pair == "resnet56-resnet8" and row.pool == "web-100k"]
        assert {row.seed for row in main} == {0, 1, 2, 3, 4}
    of_distill = [row for row in rows if not row.with_labels]
    assert len({row.name for row in rows}) == len(rows)
    same = {"kd3-now", "refined"}  # two names of one method
    assert len({(row.key, row.method in same or row.method) for row in of_distill}) == len(
        {row.key for row in of_distill}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pools": ["wbe"]}, "'wbe' is none of pools: originals, web"),
        ({"methods": ["kd4"]}, "'kd4' is none of methods"),
        ({"pairs": ["resnet9-resnet8"]}, "'resnet9' is none of teachers"),
        ({"steps": []}, "neither steps nor seconds"),
        ({"seed": 3}, "seed: Extra inputs are not permitted"),
        ({"methods": ["labels"], "steps": [], "seconds": [60]}, "by steps alone"),
    ],
)
def test_a_row_that_nothing_explains_is_an_error(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        rows_of(tmp_path, changes)


def test_a_parameter_that_there_is_not_is_an_error_with_its_row(tmp_path: Path) -> None:
    wrong = PLAN["methods"] | {"kd": {"distill.objectiv": "kd"}}
    with pytest.raises(UserError, match=r"resnet20-resnet8.web.kd.10-steps.*'objective'"):
        rows_of(tmp_path, methods=wrong)


def test_rows_share_an_embed_unless_their_method_changes_it(tmp_path: Path) -> None:
    before, kd, stored, labels = (
        rows_of(tmp_path, {"methods": [name]})[0]
        for name in ("kd3-before", "kd", "stored", "labels")
    )
    assert before.project == kd.project
    assert len({before.project, stored.project, labels.project}) == 3
    other = rows_of(tmp_path, {"pools": ["originals"]})[0]
    assert other.project != kd.project


def test_a_row_is_another_one_with_other_parameters_and_not_with_another_name(
    tmp_path: Path,
) -> None:
    kd = rows_of(tmp_path)[0]
    changed = PLAN["methods"] | {"kd": {"distill.objective": "kd", "distill.lr": 0.5}}
    assert rows_of(tmp_path, methods=changed)[0].key != kd.key
    renamed = PLAN["methods"] | {"hinton": PLAN["methods"]["kd"]}
    assert rows_of(tmp_path, {"methods": ["hinton"]}, methods=renamed)[0].key == kd.key
    assert rows_of(tmp_path, {"steps": [20]})[0].key != kd.key


def test_done_rows_are_not_run_again_and_a_changed_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    class Recorded(Projects):
        def run(self, row: Row, originals: Row | None = None, again: bool = False) -> Path:
            ran.append(row.name)
            return tmp_path

    monkeypatch.setattr(program, "collected", lambda row, *about: result_of(row, 0.5))
    projects, results = Recorded(tmp_path, tmp_path), tmp_path / "deep/results.jsonl"
    rows = rows_of(tmp_path)
    assert program.run_rows(rows, {}, projects, results) == 2
    assert program.run_rows(rows, read_results(results), projects, results) == 0
    changed = PLAN["methods"] | {"kd": {"distill.objective": "kd", "distill.lr": 0.5}}
    rows = [*rows, *rows_of(tmp_path, {"seeds": 1}, methods=changed)]
    assert program.run_rows(rows, read_results(results), projects, results) == 1
    assert ran == [*(row.name for row in rows[:2]), rows[2].name]
    assert len(results.read_text().splitlines()) == 3
    assert program.run_rows(rows, read_results(results), projects, results, again=True) == 3


def test_a_row_with_labels_needs_one_that_cleans_its_images(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"methods": ["labels"]}, {"pools": ["originals"]})
    with pytest.raises(UserError, match="no row without labels"):
        program.of_same_pool(rows[0], rows)
    rows = rows_of(tmp_path, {"methods": ["labels"]}, {"methods": ["kd"]})
    assert program.of_same_pool(rows[0], rows).method == "kd"


def test_a_listing_has_what_is_done_and_how_long_the_rest_takes(tmp_path: Path) -> None:
    here = {"on": ON | dict(zip(("processor", "threads"), place(), strict=True))}
    rows = rows_of(tmp_path, {"steps": [10, 6000]}, {"methods": ["kd3-before"]})
    append_result(tmp_path / "results.jsonl", result_of(rows[2], 0.5, seconds=600.0) | here)
    done = read_results(tmp_path / "results.jsonl")
    times = estimates(rows, list(done.values()), tmp_path)
    assert times == {rows[2].group: 6000 * 600.0 / 10}
    lines = program.listing(rows, done, tmp_path).splitlines()
    (known,) = [line for line in lines if rows[2].group in line]
    assert "1 of 2" in known and "100.0 h" in known
    assert sum("not measured" in line for line in lines) == 2


def test_make_table_lists_rows_without_running_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table", "--data", str(tmp_path), "--work", str(tmp_path / "work"), "--list"]
    monkeypatch.setattr("sys.argv", words)
    program.main()
    assert "resnet56-resnet8.web-100k.kd3-now" in capsys.readouterr().out
    assert not (tmp_path / "work").exists()


def test_without_data_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["table"])
    monkeypatch.delenv(program.VARIABLE, raising=False)
    with pytest.raises(UserError, match="--data nor TABLE_DATA"):
        program.main()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([80.0], "80.00"),
        ([1.0, 2.0, 3.0], "2.00 ± 2.48"),  # 4.303 / √3
        ([0.0, 2.0], "1.00 ± 12.71"),
    ],
)
def test_intervals_are_those_of_students_t(values: list[float], text: str) -> None:
    assert interval(values) == text


def test_differences_of_a_table_are_paired_by_seed(tmp_path: Path) -> None:
    methods = {"methods": ["kd", "kd3-before"], "seeds": 3}
    rows = rows_of(tmp_path, methods, methods | {"pools": ["originals"]})
    accuracy = {
        ("web", "kd"): [0.50, 0.61],  # the third seed has not run
        ("web", "kd3-before"): [0.51, 0.64, 0.90],
        ("originals", "kd3-before"): [0.70, 0.71, 0.72],
    }
    done = {
        row.key: result_of(row, runs[row.seed])
        for row in rows
        for runs in [accuracy.get((row.pool, row.method), [])]
        if row.seed < len(runs)
    }
    lines = table(rows, done).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:5]]
    assert cells[0][:6] == [
        *("web, 900", "kd", "50.00, 61.00", "55.50 ± 69.88"),
        *("-15.00 ± 63.53", "-2.00 ± 12.71"),
    ]
    assert cells[1][5] == "" and cells[1][4].startswith("-2.67 ± 46.89")
    assert cells[2][4:6] == ["", ""] and cells[2][0] == "originals, 900"
    assert "a CPU, 1 threads" in lines[-1] and "aaaaaaa" in lines[-1]


def test_results_of_rows_that_were_changed_are_in_no_table(tmp_path: Path) -> None:
    (old,) = rows_of(tmp_path, {"seeds": 1})
    changed = PLAN["methods"] | {"kd": {"distill.objective": "kd", "distill.lr": 0.5}}
    (new,) = rows_of(tmp_path, {"seeds": 1}, methods=changed)
    page = "<!-- table: resnet20-resnet8 10-steps -->\nolder\n<!-- end of table -->\nrest\n"
    text = rendered(page, [new], {old.key: result_of(old, 0.5)})
    assert text == page.replace("older\n", NONE)
    assert "50.00" in rendered(page, [old], {old.key: result_of(old, 0.5)})


def all_rows() -> list[Row]:
    return [row for kind in KINDS for row in read_rows(program.ROWS, kind)]


@pytest.mark.parametrize("page", program.PAGES, ids=lambda page: page.name)
def test_figures_of_the_tables_come_from_lines_of_json(page: Path) -> None:
    text, done = page.read_text("utf-8"), read_results(program.RESULTS)
    assert rendered(text, all_rows(), done) == text, "run `make table RENDER=1`"
    known = {f"{100 * one['ran']['accuracy']:.2f}" for one in done.values()}
    for marked in re.findall(r"<!-- table: .*?<!-- end of table -->", text, re.DOTALL):
        lines = [line for line in marked.splitlines() if re.match(r"\| (web|originals)", line)]
        for line in lines:
            assert set(line.split("|")[3].strip().split(", ")) <= known


def test_every_line_of_json_says_what_was_run() -> None:
    for line in program.RESULTS.read_text("utf-8").splitlines():
        one = json.loads(line)
        unit = "steps" if "steps" in one else "seconds"
        assert one["key"] == digest([one["preset"], one["settings"], unit, one[unit]])
        assert re.fullmatch(r"[0-9a-f]{40}\+?", one["on"]["commit"])
        assert one["ran"]["steps"] > 0 and one["ran"]["parameters"] > 0


def test_the_data_sets_of_the_rows_are_where_they_are_said_to_be() -> None:
    folder = os.environ.get(program.VARIABLE)
    if not folder:
        pytest.skip(f"{program.VARIABLE} names no folder of data sets (docs/table.md)")
    values = [value for row in all_rows() for value in row.settings.values()]
    named = {value for value in values if isinstance(value, str) and value.startswith(DATA)}
    assert [at for at in named if not (Path(folder) / at.removeprefix(DATA)).exists()] == []


@pytest.mark.slow
def test_a_row_that_was_killed_goes_on_and_ends_with_the_same_student(tmp_path: Path) -> None:
    """A row of the smoke run: at once, and with a kill in the middle of its distillation."""
    row = ("--only", "web.kd3-now.*seed0")
    command = [sys.executable, "-m", "benchmarks.cifar10", "--smoke", *row, "--work"]

    def run(work: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, str(work)], cwd=ROOT, capture_output=True, text=True)

    whole = run(tmp_path / "a")
    assert whole.returncode == 0, whole.stderr
    work = tmp_path / "b"
    with subprocess.Popen([*command, str(work)], cwd=ROOT, start_new_session=True) as process:
        until = time.monotonic() + 200
        while not list(work.glob("smoke/projects/*/.cache/distill/*")):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, 9)
    done = run(work)
    assert done.returncode == 0, done.stderr
    one, two = (read_results(tmp_path / name / "smoke/results.jsonl") for name in "ab")
    assert one.keys() == two.keys() and len(one) == 1
    for key, result in one.items():
        for name in ("accuracy", "agreement", "steps", "parameters", "leaked"):
            assert two[key]["ran"][name] == result["ran"][name]
    assert sum(result["ran"]["starts"] for result in two.values()) == 2


def test_rows_of_seconds_have_the_steps_of_their_pace_and_are_those_rows(tmp_path: Path) -> None:
    paces = {"resnet20-resnet8": {"kd": 300, "labels": 100}}
    timed, paced = (
        rows_of(tmp_path, {"steps": [], "seconds": [60]}, **more)[0]
        for more in ({}, {"paces": paces})
    )
    assert (timed.steps, timed.settings["distill.budget"]) == (None, "60s")
    assert (paced.steps, paced.settings["distill.budget"]) == (200, "200 steps")
    assert (paced.unit, paced.length) == ("seconds", 60)
    assert paced.key == rows_of(tmp_path, {"steps": [200]})[0].key != timed.key
    of_labels = {"methods": ["labels"], "steps": [], "seconds": [60]}
    assert rows_of(tmp_path, of_labels, paces=paces)[0].steps == 600
