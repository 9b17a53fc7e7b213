"""Search of caption tables: rows a minute, growth and memory, beside a plain loop, in one run.

    python -m benchmarks.captions                       # 5 million rows: a few minutes, 1.5 GB
    python -m benchmarks.captions --sizes 5000,10000 --loop-rows 5000     # a look

The table is made up: a vocabulary of --words words whose frequencies follow Zipf's law, captions
of 3 to 60 words (median 10), 2% of which name one of 20 classes, addresses, similarities, sizes,
licences and marks in the layout of LAION; Parquet files of 500,000 rows at most, in row groups of
100,000. It is the same for a seed, and is kept if --folder is given.

Each size is searched in a fresh process on one core, with one thread; its peak is the whole
process's resident memory (Linux), and the exponent is the slope of a line through the logarithms of
rows and CPU seconds, which other work on the machine disturbs less than those of the clock. The
ratio to the loop is one of CPU seconds, too. The loop is Python's own: it reads the same files row
by row, with one regular expression for all queries, and keeps the same number of rows in heaps.
"""

import argparse
import heapq
import json
import math
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kd3_pipeline.classes import ImageClass
from kd3_pipeline.console import no_progress
from kd3_pipeline.crawl.captions.search import SURPLUS, search_captions
from kd3_pipeline.params import Crawl

CLASSES = [
    ImageClass(name, (name, *more))
    for name, *more in (
        ["airplane", "passenger jet"],
        ["apple", "red apple"],
        ["badger", "european badger"],
        ["bicycle"],
        ["bridge", "suspension bridge"],
        ["butterfly"],
        ["castle", "medieval castle"],
        ["cat", "kitten"],
        ["chair", "wooden chair"],
        ["dog", "puppy"],
        ["fire truck", "fire engine"],
        ["guitar", "electric guitar"],
        ["hot dog"],
        ["lighthouse"],
        ["mushroom"],
        ["red fox", "vulpes vulpes"],
        ["roe deer"],
        ["sailing boat", "sailboat"],
        ["tractor"],
        ["truck", "lorry"],
    )
]
NAMED = 0.02  # share of captions that name a class
PART_ROWS, GROUP_ROWS, DRAWN_ROWS = 500_000, 100_000, 50_000
LICENCES = ["?"] * 8 + ["https://creativecommons.org/licenses/by/4.0/", "CC0"]
TAGS = ["UNLIKELY"] * 97 + ["UNSURE"] * 2 + ["NSFW"]
WANTED = {"rows_per_minute": 1e6, "exponent": 1.05, "peak_mb": 500}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sizes", default="500000,1000000,2500000,5000000", help="rows")
    options.add_argument("--loop-rows", type=int, default=500_000, help="of the plain loop")
    options.add_argument("--words", type=int, default=100_000, help="of the vocabulary")
    options.add_argument("--per-class", type=int, default=400)
    options.add_argument("--folder", type=Path, help="where to keep the table")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    sizes = sorted(int(size) for size in given.sizes.split(","))
    found: dict[str, Any] = {
        "processor": processor(),
        "versions": {name: version(name) for name in ("pyarrow", "numpy")},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        table = Table(folder, max(sizes), given.words, given.seed)
        found["table"] = table.about()
        found["runs"] = [in_fresh_process(searched, table.first(n), given) for n in sizes]
        if given.loop_rows:
            few = table.first(given.loop_rows)
            found["loop"] = in_fresh_process(looped, few, given)
            found["beside"] = in_fresh_process(searched, few, given)
    print(markdown(found))
    text = json.dumps({"options": vars(given)} | found, indent=2, default=str)
    print(f"\n```json\n{text}\n```")
    if given.json:
        given.json.write_text(text + "\n")


class Table:
    """A made-up caption table in a folder, of `rows` rows; made where it is not there yet."""

    def __init__(self, folder: Path, rows: int, words: int, seed: int) -> None:
        self.rows, self.folder = rows, folder / f"{rows}-{words}-{seed}"
        if not self.folder.is_dir():
            making = folder / f"making-{os.getpid()}"
            making.mkdir(parents=True)
            vocabulary = made_up_words(words, seed)
            for part, start in enumerate(range(0, rows, PART_ROWS)):
                count = min(PART_ROWS, rows - start)
                write_part(making / f"part-{part:05d}.parquet", vocabulary, start, count, seed)
            making.rename(self.folder)

    def first(self, rows: int) -> list[Path]:
        """The files of the first rows, the last of them cut."""
        files = sorted(self.folder.glob("part-*.parquet"))
        whole, rest = divmod(rows, PART_ROWS)
        if rest and rows < self.rows:
            cut = self.folder / f"first-{rows}-{whole:05d}.parquet"
            pq.write_table(pq.read_table(files[whole]).slice(0, rest), cut)
            return [*files[:whole], cut]
        return files[: whole + bool(rest)]

    def about(self) -> dict[str, Any]:
        """Its size, and how long captions are."""
        files = sorted(self.folder.glob("part-*.parquet"))
        captions = pq.read_table(files[0], columns=["TEXT"])["TEXT"]
        return {
            "rows": self.rows,
            "mb": sum(file.stat().st_size for file in files) / 1e6,
            "caption_letters": {
                "median": pc.quantile(pc.utf8_length(captions), 0.5)[0].as_py(),
                "p95": pc.quantile(pc.utf8_length(captions), 0.95)[0].as_py(),
            },
        }


def made_up_words(count: int, seed: int) -> pa.Array:
    """Distinct words of 2 to 12 letters, the frequent ones short; a few have accents."""
    draws = np.random.default_rng(seed)
    letters = np.array(list("eeeaaaiioouutttnnnrrrsssllddmmkkpbghfvcyzwjxqéöß"))
    found: dict[str, None] = {}
    while len(found) < count:
        length = min(12, 2 + int(math.log2(2 + len(found)) / 2) + int(draws.integers(0, 4)))
        found.setdefault("".join(draws.choice(letters, length)))
    return pa.array(found)


def write_part(path: Path, vocabulary: pa.Array, start: int, count: int, seed: int) -> None:
    """One file of the table."""
    chunks = [
        made_up_rows(vocabulary, start + at, min(DRAWN_ROWS, count - at), seed)
        for at in range(0, count, DRAWN_ROWS)
    ]
    pq.write_table(pa.concat_tables(chunks), path, row_group_size=GROUP_ROWS)


def made_up_rows(vocabulary: pa.Array, start: int, count: int, seed: int) -> pa.Table:
    """Rows from number `start` on, by seed and `start` alone."""
    draws = np.random.default_rng([seed, start])
    lengths = np.clip(np.exp(draws.normal(np.log(10), 0.6, count)), 3, 60).astype(np.int64)
    weights = 1 / (np.arange(len(vocabulary)) + 2.7)
    shares = np.cumsum(weights / weights.sum())
    words = np.searchsorted(shares, draws.random(lengths.sum()) * shares[-1])
    # words of the classes stand behind those of the vocabulary
    queries = [query for one in CLASSES for query in one.queries]
    ends = np.cumsum(lengths)
    named = np.flatnonzero(draws.random(count) < NAMED)
    places = (ends - lengths)[named] + draws.integers(0, lengths[named])
    words[places] = len(vocabulary) + draws.integers(0, len(queries), len(named))
    text = pa.concat_arrays([vocabulary, pa.array(queries)]).take(pa.array(words))
    lists = pa.ListArray.from_arrays(pa.array(np.r_[0, ends].astype(np.int32)), text)
    captions = pc.binary_join(lists, " ")
    numbers = pa.array(np.arange(start, start + count)).cast(pa.string())
    hosts = pa.array(draws.zipf(1.5, count) % 20_000).cast(pa.string())
    urls = pc.binary_join_element_wise(
        *("https://images-", hosts, ".example/photos/2021/", numbers, "-large.jpg"), ""
    )
    return pa.table(
        {
            "SAMPLE_ID": np.arange(start, start + count),
            "URL": urls,
            "TEXT": pc.utf8_capitalize(captions),
            "HEIGHT": (200 * np.exp(draws.normal(1, 0.7, count))).astype(np.int32),
            "WIDTH": (200 * np.exp(draws.normal(1, 0.7, count))).astype(np.int32),
            "LICENSE": pa.array(LICENCES).take(pa.array(draws.integers(0, 10, count))),
            "NSFW": pa.array(TAGS).take(pa.array(draws.integers(0, 100, count))),
            "similarity": (0.3 + 0.04 * np.abs(draws.normal(0, 1, count))).astype(np.float32),
        }
    )


def searched(files: Sequence[Path], given: argparse.Namespace) -> dict[str, Any]:
    """Ours on these files, in this process on one core."""
    on_one_core()
    with tempfile.TemporaryDirectory() as scratch:
        for place, file in enumerate(files):
            Path(scratch, f"{place:05d}.parquet").symlink_to(file.absolute())
        section = Crawl(engine="captions", source=scratch, per_class=given.per_class)
        clock = Clock()
        found = search_captions(section, CLASSES, no_progress, workers=1)
        times = clock.times()
    return {
        "rows": found.remarks.rows,
        **times,
        "peak_mb": peak_mb(),
        "matched": sum(found.matched),
        "kept": len(found.best),
    }


def looped(files: Sequence[Path], given: argparse.Namespace) -> dict[str, Any]:
    """A plain loop over the same rows with the same rules."""
    on_one_core()
    labels = {query: at for at, one in enumerate(CLASSES) for query in one.queries}
    longest_first = sorted(labels, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)
    best: list[list[tuple[Any, ...]]] = [[] for _ in CLASSES]
    rows = matched = 0
    clock = Clock()
    for row in rows_of(files):
        rows += 1
        found = pattern.search(row["TEXT"])
        if not found:
            continue
        matched += 1
        if row["NSFW"] != "UNLIKELY" or min(row["WIDTH"], row["HEIGHT"]) < 16:
            continue
        heap = best[labels[found[1].lower()]]
        entry = (row["similarity"], -len(row["TEXT"]), -rows, row["URL"], row["LICENSE"])
        if len(heap) < SURPLUS * given.per_class:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    times = clock.times()
    kept = sum(map(len, best))
    return {
        "rows": rows,
        **times,
        "peak_mb": peak_mb(),
        "matched": matched,
        "kept": kept,
    }


def rows_of(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    columns = ["URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "NSFW", "similarity"]
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(10_000, columns=columns, use_threads=False):
            yield from batch.to_pylist()


class Clock:
    """Seconds since it was made, by the clock and of this process's CPU time."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def times(self) -> dict[str, float]:
        """The seconds so far."""
        cpu = time.process_time() - self._cpu
        return {"seconds": time.perf_counter() - self._clock, "cpu": cpu}


def on_one_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def processor() -> str:
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else 'unknown'}, {os.cpu_count()} cores"


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(work, *arguments).result()


def exponent(runs: Sequence[dict[str, Any]]) -> float | None:
    """Slope of log CPU seconds over log rows; None for one size."""
    if len(runs) < 2:
        return None
    rows, seconds = ([math.log(run[key]) for run in runs] for key in ("rows", "cpu"))
    return float(np.polyfit(rows, seconds, 1)[0])


def markdown(found: dict[str, Any]) -> str:
    """Tables for RESULTS.md."""
    runs = found["runs"]
    lines = ["| rows | s | CPU s | million rows a minute | peak MB | match | kept |"]
    lines += ["|---|---|---|---|---|---|---|", *map(_line, runs)]
    goals = {
        "rows_per_minute": min(60 * run["rows"] / run["seconds"] for run in runs),
        "exponent": exponent(runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
    }
    lines += ["", "| goal | bound | measured | |", "|---|---|---|---|"]
    for name, bound in WANTED.items():
        value = goals[name]
        if value is None:
            lines.append(f"| {name} | {bound:,} |  | not measured |")
            continue
        met = value >= bound if name == "rows_per_minute" else value <= bound
        lines.append(f"| {name} | {bound:,} | {value:,.2f} | {'met' if met else '**missed**'} |")
    if loop := found.get("loop"):
        ratio = loop["cpu"] / found["beside"]["cpu"]
        lines += ["", "| arm | rows | s | CPU s | peak MB | match |", "|---|---|---|---|---|---|"]
        for name, run in (("captions", found["beside"]), ("plain loop", loop)):
            cells = f"{run['rows']:,} | {run['seconds']:.2f} | {run['cpu']:.2f}"
            lines.append(f"| {name} | {cells} | {run['peak_mb']:.0f} | {run['matched']:,} |")
        lines += ["", f"captions is {ratio:.1f} times as fast as the plain loop."]
    return "\n".join(lines)


def _line(run: dict[str, Any]) -> str:
    speed = 60 * run["rows"] / run["seconds"] / 1e6
    counts = f"{run['matched']:,} | {run['kept']:,}"
    times = f"{run['seconds']:.1f} | {run['cpu']:.1f} | {speed:.1f} | {run['peak_mb']:.0f}"
    return f"| {run['rows']:,} | {times} | {counts} |"


if __name__ == "__main__":
    main()
