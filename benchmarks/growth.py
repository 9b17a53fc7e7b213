"""Growth: bytes of memory, and CPU seconds, that a row of each stage's tables takes.

    python -m benchmarks.growth --rows 1000000 --radius 4

Rows are synthetic. Hashes are given and at random, but that every tenth image is the copy of
another, so that no image is fetched or decoded: what pictures take is not in here.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.allocated import Figure
from benchmarks.growth_crawl import crawl
from benchmarks.growth_tables import dedup, report, selection

# from a number of rows, a folder and whether to time it; each reads what those before have written
STAGES: dict[str, Callable[[int, Path, bool], list[Figure]]] = {
    "crawl": crawl,
    "dedup": dedup,
    "distill": selection,
    "report": report,
}


def markdown(figures: Sequence[Figure]) -> str:
    lines = [
        "| stage | table | rows | bytes a row that stay | at the peak | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for one in figures:
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        cells = f"{one.rows:,} | {one.stays:,.0f} | {one.peak:,.0f} | {seconds}"
        lines.append(f"| {one.stage} | {one.table} | {cells} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--radius", type=int, help="of dedup; by default that of so many rows")
    parser.add_argument("--timed", action="store_true", help="each work runs twice, once uncounted")
    options = parser.parse_args(words)
    stages = STAGES | {"dedup": partial(dedup, radius=options.radius)}
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in options.stages:
            for one in stages[stage](options.rows, Path(folder), options.timed):
                print(json.dumps(asdict(one)), flush=True)
                figures.append(one)
    print(f"\n{markdown(figures)}")


if __name__ == "__main__":
    main()
