"""Hashing beside imagehash and imagededup, then the pair search, in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.dedup_speed --imagededup /tmp/idd/bin/python
    OMP_NUM_THREADS=1 python -m benchmarks.dedup_speed --images 40 --repeats 3 --sizes

Hashing: real images (PACS) enlarged or reduced to JPEGs of each size. Arms take turns --repeats
times; CPU time of one process, medians, and a ratio is the median of the rounds' ratios. `hash
only` is what a hash alone takes; `fingerprint` is all of what dedup takes from the one decode: four
keys, border, flatness, 64x64 in grey and 32x32 in colour. Bits are those that differ from
imagehash's function on the upright picture in full. Two processes are timed by the wall clock on
shards, as dedup runs them, with and without their start; that needs two cores that are idle, the
CPU time of all processes beside it does not.

imagededup needs an environment of its own, with some GB of torch:

    python3 -m venv --without-pip /tmp/idd
    python3 -m pip --python /tmp/idd/bin/python install imagededup
"""

import argparse
import io
import itertools
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from kd3_pipeline.dedup.fingerprints import SMALL, fingerprint_images
from kd3_pipeline.dedup.hashing import SHAPES, hashes, lanczos, library_hash
from kd3_pipeline.dedup.shards import BATCH, fingerprint_shards
from kd3_pipeline.engine import Engine
from kd3_pipeline.images import decode, decode_reduced
from kd3_pipeline.store import StoredImage, shard_path, write_shards

PACS = Path(__file__).parents[2] / "shared/data/pacs-dog-horse/train.parquet"
SETS = {  # name: size, JPEG quality, deviation of the grain that is added
    "800x600": ((800, 600), 85, 0),
    "800x600 with grain": ((800, 600), 80, 8),
    "723x541": ((723, 541), 85, 0),
    "64x64": ((64, 64), 85, 0),
}
IMAGEDEDUP = """
import logging, sys, time
from pathlib import Path
logging.disable(logging.CRITICAL)
from imagededup.methods import PHash
method, files = PHash(verbose=False), sorted(Path(sys.argv[1]).iterdir())
method.encode_image(image_file=files[0])
start = time.process_time()
for file in files:
    method.encode_image(image_file=file)
print(time.process_time() - start)
"""
DOMAINS = ("photo", "art_painting")
SHARDS, FEW_SHARDS = 12, 2  # the time of a few is taken off, and with it the start of processes


def real_images(path: Path, total: int, seed: int) -> list[Image.Image]:
    """Photographs and paintings; a drawing's few colours make small files."""
    table = pq.read_table(path, columns=["image", "domain"])
    rows = [row for row, of in enumerate(table["domain"].to_pylist()) if of in DOMAINS]
    if total > len(rows):
        raise SystemExit(f"--images: there are {len(rows)}")
    chosen = np.random.default_rng(seed).permutation(rows)[:total]
    images = table["image"].combine_chunks().field("bytes")
    return [decode(images[int(row)].as_py()) for row in chosen]


def jpegs(images: Sequence[Image.Image], name: str, seed: int) -> list[bytes]:
    """The images at the size and quality of a set."""
    size, quality, grain = SETS[name]
    random, made = np.random.default_rng(seed), []
    for image in images:
        pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS)).astype(np.float32)
        pixels += random.normal(0, 1, (*pixels.shape[:2], 1)) * grain
        out = io.BytesIO()
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(out, "JPEG", quality=quality)
        made.append(out.getvalue())
    return made


def theirs(data: Sequence[bytes]) -> None:
    """As its README shows it."""
    for one in data:
        imagehash.phash(Image.open(io.BytesIO(one)))


def hash_only(data: Sequence[bytes]) -> None:
    """The whole picture's hash and its mirror image's, by the functions that fingerprints use."""
    for start in range(0, len(data), BATCH):
        pixels = []
        for one in data[start : start + BATCH]:
            small, box, _ = decode_reduced(one, SMALL, "L")
            pixels.append(lanczos(small, "phash", box))
        hashes(np.stack(pixels), "phash")


def fingerprints(data: Sequence[bytes], exact: bool = False) -> None:
    """All that dedup takes from the images."""
    for start in range(0, len(data), BATCH):
        fingerprint_images(data[start : start + BATCH], "phash", exact)


def cpu_ms(arm: Callable[[Sequence[bytes]], None], data: Sequence[bytes]) -> float:
    """CPU time for an image."""
    start = time.process_time()
    arm(data)
    return (time.process_time() - start) / len(data) * 1000


def hashing_tables(given: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    """Speed and bits, for each set."""
    images = real_images(given.data, given.images, given.seed)
    speed = ["| JPEGs | KB | arm | CPU ms an image | imagehash ÷ it |", "|---|---|---|---|---|"]
    bits = ["| JPEGs | hash | identical | mean bits | most | mirrored identical | most |"]
    bits.append("|---|---|---|---|---|---|---|")
    for name in SETS:
        data = jpegs(images, name, given.seed)
        arms: dict[str, Callable[[Sequence[bytes]], float]] = {
            "imagehash.phash": lambda data: cpu_ms(theirs, data),
            "hash only": lambda data: cpu_ms(hash_only, data),
            "fingerprint": lambda data: cpu_ms(fingerprints, data),
            "fingerprint, exact": lambda data: cpu_ms(lambda data: fingerprints(data, True), data),
        }
        with tempfile.TemporaryDirectory() as folder:
            if given.imagededup:
                for number, one in enumerate(data):
                    Path(folder, f"{number:06}.jpg").write_bytes(one)
                command = [given.imagededup, "-c", IMAGEDEDUP, folder]
                arms["imagededup PHash"] = lambda data, command=command: (
                    float(subprocess.check_output(command, text=True)) / len(data) * 1000
                )
            rounds = [{arm: run(data) for arm, run in arms.items()} for _ in range(given.repeats)]
        kilobytes = statistics.mean(map(len, data)) / 1000
        for arm in arms:
            middle = statistics.median(one[arm] for one in rounds)
            ratio = statistics.median(one["imagehash.phash"] / one[arm] for one in rounds)
            speed.append(f"| {name} | {kilobytes:.0f} | {arm} | {middle:.3f} | {ratio:.2f}× |")
        if given.imagededup:
            for arm in ("hash only", "fingerprint"):
                ratio = statistics.median(one["imagededup PHash"] / one[arm] for one in rounds)
                speed.append(f"| {name} | | imagededup ÷ {arm} | | {ratio:.2f}× |")
        found[name] = {"bytes": kilobytes * 1000, "cpu_ms": rounds}
        bits += bit_rows(name, data, found)
    return [*speed, "", *bits]


def bit_rows(name: str, data: Sequence[bytes], found: dict[str, Any]) -> list[str]:
    """How far the hashes of pictures decoded small are from the library's."""
    rows = []
    for kind in SHAPES:
        parts = [
            fingerprint_images(data[at : at + BATCH], kind, False)[0]
            for at in range(0, len(data), BATCH)
        ]
        ours = np.concatenate([part.hashes[:, [0, 3]] for part in parts])
        upright = [decode(one) for one in data]
        turned = [one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in upright]
        library = [[library_hash(one, kind) for one in side] for side in (upright, turned)]
        apart = np.bitwise_count(ours ^ np.array(library, np.uint64).T)
        same, most = (apart == 0).mean(axis=0), apart.max(axis=0)
        rows.append(
            f"| {name} | {kind} | {same[0]:.1%} | {apart[:, 0].mean():.2f} | {most[0]}"
            f" | {same[1]:.1%} | {most[1]} |"
        )
        found[name][kind] = np.bincount(apart[:, 0], minlength=1).tolist()
    return rows


def process_table(given: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    """Images a second of one and of two processes."""
    data = jpegs(real_images(given.data, given.images, given.seed), "800x600", given.seed)
    walls: dict[tuple[int, int], list[float]] = {}
    cpu: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(SHARDS):
            stored = [
                StoredImage(f"{number}-{row}", one, 0, 800, 600, "JPEG")
                for row, one in enumerate(data)
            ]
            write_shards(Path(folder, str(number)), stored, [])
            paths.append(shard_path(Path(folder, str(number)), 0))
        for turn, workers, shards in itertools.product(
            range(given.repeats), (1, 2), (FEW_SHARDS, SHARDS)
        ):
            start, cpu_before = time.perf_counter(), sum(os.times()[:4])
            cache = Path(folder, f"cache-{turn}-{workers}-{shards}")
            with Engine(workers) as engine:
                fingerprint_shards(paths[:shards], "phash", False, cache, engine)
            walls.setdefault((workers, shards), []).append(time.perf_counter() - start)
            if shards == SHARDS:
                cpu[workers].append(sum(os.times()[:4]) - cpu_before)
    found["processes"] = {
        f"{workers}, {shards} shards": s for (workers, shards), s in walls.items()
    }
    total = SHARDS * len(data)
    lines = [
        f"| processes | images/s, {total:,} images | start taken off | CPU ms, all processes |"
    ]
    lines.append("|---|---|---|---|")
    all_of_them = {workers: np.array(walls[workers, SHARDS]) for workers in (1, 2)}
    later = {workers: all_of_them[workers] - walls[workers, FEW_SHARDS] for workers in (1, 2)}
    for workers in (1, 2):
        rate = total / np.median(all_of_them[workers])
        rate_later = (SHARDS - FEW_SHARDS) * len(data) / np.median(later[workers])
        spent = np.median(cpu[workers]) / total * 1000
        lines.append(f"| {workers} | {rate:,.0f} | {rate_later:,.0f} | {spent:.2f} |")
    ratios = [np.median(walls_of[1] / walls_of[2]) for walls_of in (all_of_them, later)]
    lines.append(f"| 2 ÷ 1 | {ratios[0]:.2f}× | {ratios[1]:.2f}× | |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=200, help="of each set, and of a shard")
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--data", type=Path, default=PACS, help="PACS as Parquet")
    options.add_argument("--imagededup", default="", metavar="PYTHON", help="of its environment")
    options.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000])
    options.add_argument("--radii", type=int, nargs="*", default=[4, 8])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    if not given.data.is_file():
        options.error(f"--data: {given.data} not found")
    from benchmarks import pair_speed  # not above: every process that decodes would load it too
    from benchmarks.limits import processor

    names = ("pillow", "imagehash", "numpy", "scipy", "faiss-cpu")
    found: dict[str, Any] = {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
        "images": given.images,
        "repeats": given.repeats,
        "seed": given.seed,
    }
    print(json.dumps(found), flush=True)
    for table in (hashing_tables, process_table):
        print("", *table(given, found), sep="\n", flush=True)
    if given.sizes:
        table, found["pairs"] = pair_speed.tables(
            given.sizes, given.radii, given.repeats, given.seed, given.imagededup or None
        )
        print("", table, sep="\n")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
