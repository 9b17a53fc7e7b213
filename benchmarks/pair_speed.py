"""All near pairs of N hashes: this search beside FAISS's flat binary index and imagededup's search.

    python -m benchmarks.pair_speed --sizes 10000 100000 1000000 --radii 4 8
    python -m benchmarks.pair_speed --sizes 10000000 --radii 4 --repeat 1 --imagededup PYTHON

Every run is a process of its own with one thread; arms take turns --repeat times and medians of
their CPU time are shown; a ratio is the median of the rounds' ratios. Hashes are random, a tenth of
them copies with 0 to 12 bits changed. Memory is the most that the process had, with Python and
numpy (about 60 MB) and the hashes. FAISS gets a sample of the queries where all would be more than
1e10 comparisons, and its time is scaled to all (*); imagededup gets 2,500 and 5,000 hashes, and the
longer time is scaled by N² (*). What FAISS finds is compared with what this search finds. The row
"4 keys" is the search over four keys an image, where half of the images have two keys alike.

imagededup needs an environment of its own: python3 -m venv /tmp/i && /tmp/i/bin/pip install
imagededup.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

FAISS_COMPARISONS = 10**10
IMAGEDEDUP_SIZES = (2500, 5000)
IMAGEDEDUP = """
import json, resource, sys, time
from imagededup.methods import PHash
hashes = json.load(sys.stdin)
names = {f"{n:08}.jpg": value for n, value in enumerate(hashes)}
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
hasher, before = PHash(verbose=False), cpu()
found = hasher.find_duplicates(
    encoding_map=names, max_distance_threshold=int(sys.argv[1]), num_dist_workers=1
)
print(json.dumps([cpu() - before, sum(map(len, found.values())) // 2]))
"""
Row = dict[str, Any]


def planted(total: int, seed: int) -> np.ndarray:
    """Random hashes, the first tenth of them copies of others with 0 to 12 bits changed."""
    draws = np.random.default_rng(seed)
    hashes = draws.integers(0, 2**64, total, dtype=np.uint64)
    copies = total // 10
    hashes[:copies] = hashes[draws.integers(copies, total, copies)]
    changes = draws.integers(0, 13, copies)
    for change in range(12):
        flips = np.uint64(1) << draws.integers(0, 64, copies, dtype=np.uint64)
        hashes[:copies] ^= np.where(change < changes, flips, np.uint64(0))
    return hashes


# The arms. Each runs alone in its process.


def ours(total: int, radius: int, seed: int, queries: int) -> Row:
    from kd3_pipeline.dedup.near import pairs_within

    hashes = planted(total, seed)
    started = time.process_time()
    i, j, _ = pairs_within(hashes, radius)
    seconds = time.process_time() - started
    neighbours = int((i < queries).sum() + (j < queries).sum())
    return {"seconds": seconds, "pairs": len(i), "neighbours": neighbours, "peak": peak()}


def four_keys(total: int, radius: int, seed: int, queries: int) -> Row:
    from kd3_pipeline.dedup.near import candidate_pairs

    hashes = np.stack([planted(total, seed + key) for key in range(4)], axis=1)
    hashes[::2, 1] = hashes[::2, 0]
    started = time.process_time()
    found = candidate_pairs(hashes, radius, np.ones(total, bool))
    seconds = time.process_time() - started
    return {"seconds": seconds, "pairs": len(found[0]), "peak": peak()}


def faiss_flat(total: int, radius: int, seed: int, queries: int) -> Row:
    import faiss

    faiss.omp_set_num_threads(1)
    rows = planted(total, seed).view(np.uint8).reshape(-1, 8)
    started = time.process_time()
    index = faiss.IndexBinaryFlat(64)
    index.add(rows)
    limits, _, _ = index.range_search(rows[:queries], radius + 1)  # it finds what is below
    seconds = (time.process_time() - started) * total / queries
    return {"seconds": seconds, "neighbours": int(limits[-1]) - queries, "peak": peak()}


def peak() -> int:
    """The most bytes that this process has had in memory (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


ARMS = {"ours": ours, "4 keys": four_keys, "FAISS flat": faiss_flat}


def alone(arm: str, *given: int) -> Row:
    """Runs an arm in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(ARMS[arm], *given).result()


def imagededup_seconds(python: str, radius: int, seed: int) -> dict[int, float]:
    """CPU seconds of imagededup's search, of all its processes, by the number of hashes."""
    seconds = {}
    for total in IMAGEDEDUP_SIZES:
        hashes = json.dumps([f"{value:016x}" for value in planted(total, seed).tolist()])
        ran = subprocess.run(
            [python, "-c", IMAGEDEDUP, str(radius)], input=hashes, capture_output=True, text=True
        )
        if ran.returncode:
            raise SystemExit(f"imagededup failed:\n{ran.stderr[-2000:]}")
        seconds[total], pairs = json.loads(ran.stdout.splitlines()[-1])
        found = alone("ours", total, radius, seed, 0)["pairs"]
        if pairs != found:
            raise SystemExit(f"imagededup finds {pairs} pairs of {total} hashes, ours {found}")
    return seconds


def tables(
    sizes: Sequence[int],
    radii: Sequence[int],
    repeat: int = 3,
    seed: int = 0,
    imagededup: str | None = None,
) -> tuple[str, list[Row]]:
    """Markdown for RESULTS.md, and a row of figures for each radius and size."""
    from kd3_pipeline.dedup.near import plan

    rows = []
    for radius in radii:
        theirs = imagededup_seconds(imagededup, radius, seed) if imagededup else {}
        for total in sizes:
            queries = min(total, max(FAISS_COMPARISONS // total, 100))
            rounds = [
                {arm: alone(arm, total, radius, seed, queries) for arm in ARMS}
                for _ in range(repeat)
            ]
            for one in rounds:
                if one["ours"]["neighbours"] != one["FAISS flat"]["neighbours"]:
                    raise SystemExit(f"{total} hashes, radius {radius}: FAISS finds others")
            row: Row = {"total": total, "radius": radius, "plan": str(plan(total, radius))}
            row["pairs"], row["faiss_queries"] = rounds[0]["ours"]["pairs"], queries
            for arm in ARMS:
                row[arm] = statistics.median(one[arm]["seconds"] for one in rounds)
                row[f"{arm}, peak"] = max(one[arm]["peak"] for one in rounds)
            row["ratio"] = statistics.median(
                one["FAISS flat"]["seconds"] / one["ours"]["seconds"] for one in rounds
            )
            if theirs:
                largest = max(theirs)
                row["imagededup"] = theirs[largest] * (total / largest) ** 2
                row["imagededup measured"] = theirs
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    return markdown(rows), rows


def markdown(rows: Sequence[Row]) -> str:
    lines = [
        "| N | radius | pairs | search | ours s | exponent | MB | FAISS flat s | ratio "
        "| imagededup s* | ratio | 4 keys s | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    before: Row | None = None
    for row in rows:
        exponent = ""
        if before and before["radius"] == row["radius"] and before["total"] < row["total"]:
            growth = math.log(row["ours"] / before["ours"])
            exponent = f"{growth / math.log(row['total'] / before['total']):.2f}"
        scaled = "*" * (row["faiss_queries"] < row["total"])
        theirs = row.get("imagededup")
        cells = [
            f"{row['total']:,}",
            row["radius"],
            f"{row['pairs']:,}",
            row["plan"].split(", ")[-1],
            f"{row['ours']:.3g}",
            exponent,
            f"{row['ours, peak'] / 1e6:.0f}",
            f"{row['FAISS flat']:.3g}{scaled}",
            f"{row['ratio']:.1f}",
            f"{theirs:.3g}" if theirs else "",
            f"{theirs / row['ours']:,.0f}" if theirs else "",
            f"{row['4 keys']:.3g}",
            f"{row['4 keys, peak'] / 1e6:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        before = row
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    options.add_argument("--radii", type=int, nargs="+", default=[4, 8])
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--imagededup", metavar="PYTHON", help="an interpreter that has it")
    options.add_argument("--out", type=Path, help="where to write the figures as JSON")
    given = options.parse_args()
    import faiss

    from benchmarks.limits import processor

    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "faiss": faiss.__version__,
        },
        "seed": given.seed,
        "repeat": given.repeat,
    }
    table, rows = tables(given.sizes, given.radii, given.repeat, given.seed, given.imagededup)
    print(table)
    if given.out:
        given.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    else:
        print(json.dumps(machine))


if __name__ == "__main__":
    main()
