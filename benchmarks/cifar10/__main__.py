"""Runs the rows of the table that are not done, and writes its tables.

    python -m benchmarks.cifar10 --list
    python -m benchmarks.cifar10 --only resnet56-resnet8.web-20k
    python -m benchmarks.cifar10 --smoke

A row that is done is not run again; one that was changed in rows.yaml is, and one that was
interrupted goes on. docs/table.md says which data sets `--data` holds.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.cifar10.drawn import draw_data
from benchmarks.cifar10.projects import Projects
from benchmarks.cifar10.results import Result, append_result, collected, read_results
from benchmarks.cifar10.rows import KINDS, Row, read_rows
from benchmarks.cifar10.speed import estimates, measure
from benchmarks.cifar10.tables import render, table
from kd3_pipeline.console import text_table
from kd3_pipeline.errors import PipelineError, UserError
from kd3_stages.code import ROOT

HERE = Path(__file__).parent
ROWS, RESULTS = HERE / "rows.yaml", HERE / "results.jsonl"
PAGES = (ROOT / "benchmarks/RESULTS.md", ROOT / "README.md")
WORK = ROOT / ".cache/table"
VARIABLE = "TABLE_DATA"  # environment variable of the folder of data sets


def main() -> None:
    args = _arguments()
    if args.smoke:
        smoke(args.work / "smoke", args.only)
        return
    if args.render:
        write_tables()
        return
    plan = read_rows(ROWS, "gpu" if args.gpu else "cpu", args.only)
    done = read_results(RESULTS)
    if args.speed:
        measure(plan, args.work)
    if args.list or args.speed:
        print(listing(plan, done, args.work))
        return
    run_rows(plan, done, Projects(args.work, _data(args.data)), RESULTS, args.again)
    write_tables()


def write_tables() -> None:
    """Writes the tables of all pages anew."""
    rows = [row for kind in KINDS for row in read_rows(ROWS, kind)]
    done = read_results(RESULTS)
    for page in PAGES:
        if render(page, rows, done):
            print(f"tables of {page.relative_to(ROOT)} written")


def run_rows(
    rows: list[Row],
    done: dict[str, Result],
    projects: Projects,
    results: Path,
    again: bool = False,
) -> int:
    """Runs the rows that are not done, or all `again`; returns how many those were."""
    waiting = list({row.key: row for row in rows if again or row.key not in done}.values())
    for number, row in enumerate(waiting, 1):
        print(f"{number} of {len(waiting)}: {row.name}", flush=True)
        originals = of_same_pool(row, rows) if row.with_labels else None
        folder = projects.run(row, originals, again)
        result = collected(row, folder, projects, originals)
        append_result(results, result)
        ran = result["ran"]
        agreement = "" if ran["agreement"] is None else f", agreement {ran['agreement']:.1%}"
        print(
            f"  {ran['steps']:,} steps, test accuracy {ran['accuracy']:.2%}{agreement}", flush=True
        )
    print(f"{len(waiting)} of {len(rows)} rows run, the others were done: {results}")
    return len(waiting)


def of_same_pool(row: Row, rows: list[Row]) -> Row:
    """A row without labels of the same pool: its project cleans the images of one with labels.

    Raises:
        UserError: there is none.
    """
    found = [one for one in rows if one.pool == row.pool and not one.with_labels]
    if not found:
        raise UserError(
            f"{row.name} is trained on what dedup leaves of '{row.pool}', and no row without labels"
            " is there that makes it",
            f"let --only take one too, as '{row.pair}.{row.pool}'",
        )
    return found[0]


def smoke(work: Path, only: str = "") -> None:
    """Draws images, runs a few rows of seconds, twice, and shows their table.

    Raises:
        SystemExit: a row that was done was run again.
    """
    draw_data(work / "data")
    rows, results = read_rows(HERE / "smoke.yaml", "cpu", only), work / "results.jsonl"
    projects = Projects(work, work / "data")
    run_rows(rows, read_results(results), projects, results)
    if run_rows(rows, read_results(results), projects, results):
        sys.exit("rows that were done have run again")
    done = read_results(results)
    print(table(rows, done))


def listing(rows: list[Row], done: dict[str, Result], work: Path) -> str:
    """The rows by group: seeds that are done, and how long the others take."""
    times = estimates(rows, list(done.values()), work)
    lines: list[list[str]] = []
    left: dict[str, float] = {}  # by key: two methods may be one yet
    for group in dict.fromkeys(row.group for row in rows):
        runs = [row for row in rows if row.group == group]
        missing = [row for row in runs if row.key not in done]
        seconds = times.get(group)
        left |= {row.key: seconds or 0.0 for row in missing}
        each = "not measured (--speed)" if seconds is None else _told(seconds)
        lines.append([group, f"{len(runs) - len(missing)} of {len(runs)}", each])
    lines.insert(0, ["row", "seeds done", "each seed takes"])
    rest = f"what is left of the measured ones: {_told(sum(left.values()))}, without embed"
    return f"{text_table(lines)}\n{rest}"


def _told(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"


def _data(given: Path | None) -> Path:
    if given is None:
        raise UserError(
            f"no folder of data sets: neither --data nor {VARIABLE} names one",
            "docs/table.md says what it holds; --smoke needs none",
        )
    if not given.is_dir():
        raise UserError(f"the folder of data sets {given} is not there", "docs/table.md")
    return given


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    named = os.environ.get(VARIABLE)
    parser.add_argument("--data", type=Path, default=Path(named) if named else None)
    parser.add_argument("--work", type=Path, default=WORK, help="where projects are kept")
    parser.add_argument("--only", default="", help="rows whose names this pattern finds")
    parser.add_argument("--gpu", action="store_true", help="the rows for a GPU")
    parser.add_argument("--again", action="store_true", help="also rows that are done")
    parser.add_argument("--list", action="store_true", help="what is done, how long the rest takes")
    parser.add_argument("--speed", action="store_true", help="measure steps, then list")
    parser.add_argument("--render", action="store_true", help="write the tables, run nothing")
    parser.add_argument("--smoke", action="store_true", help="a few rows on drawn images")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        print(f"table: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
