"""Look-alikes: how the CPU time of finding stars grows with copies of one picture, and with many
pictures of one layout.

    python -m benchmarks.dedup_lookalikes
    python -m benchmarks.dedup_lookalikes --sizes 1250 2500 5000 10000 --compared 64 --radius 12

Copies are one drawn picture, cut off by up to 2% at each side, brighter or darker and saved at
another quality. Mixed are copies of N / 50 drawn pictures. Signs are a disc with a ring, all alike
but for what is written on it: none is a copy, but the hashes of all are near each other. Told apart
are signs that are verified, but for none of which it is believed that it is a copy: what it costs
where all are kept, and more than --compared are near each other. Images are fingerprinted
first, which is not timed; what is timed is `kd3_pipeline.dedup.judgement.judge`, in one thread
where OMP_NUM_THREADS is 1. The exponent is the slope of a line through the logarithms of all sizes.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from benchmarks.limits import processor
from kd3_pipeline.dedup.fingerprints import Fingerprints, fingerprint_images, zeros
from kd3_pipeline.dedup.judgement import Rules, judge, summarise
from kd3_pipeline.dedup.originals import KEPT, close_up
from kd3_pipeline.dedup.provenance import Provenance
from kd3_pipeline.dedup.verifier import verifier

SIDE = 240  # pixels of a drawn picture
AT_ONCE = 500  # images encoded and fingerprinted
COPIES = 50  # of each picture, of `mixed`
Draw = Callable[[int, int], Image.Image]  # number of the picture, and of how many


@lru_cache
def photo(number: int) -> Image.Image:
    """A smooth ground with shapes and grain, like no other number's."""
    draws = np.random.default_rng([1, number])
    ground = draws.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(ground).resize((SIDE, SIDE * 3 // 4), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = draws.uniform(0, 0.8, 2) * image.size
        width, height = draws.uniform(0.05, 0.4, 2) * image.size
        shape = draws.choice([pen.ellipse, pen.rectangle])
        colour = tuple(draws.integers(0, 256, 3).tolist())
        shape((left, top, left + width, top + height), fill=colour)
    grain = draws.normal(0, 6, (image.height, image.width, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def jittered(image: Image.Image, draws: np.random.Generator) -> Image.Image:
    """Cut off by up to 2% at each side, and brighter or darker."""
    sides = np.tile(image.size, 2)
    cut = draws.uniform(0, 0.02, 4) * sides
    left, top, right, bottom = np.where([1, 1, 0, 0], cut, sides - cut).round().astype(int).tolist()
    image = image.crop((left, top, right, bottom))
    return ImageEnhance.Brightness(image).enhance(draws.uniform(0.85, 1.15))


def copy(number: int, total: int) -> Image.Image:
    return jittered(photo(0), np.random.default_rng([2, number]))


def mixed(number: int, total: int) -> Image.Image:
    return jittered(photo(number % max(total // COPIES, 1)), np.random.default_rng([2, number]))


def sign(number: int, total: int) -> Image.Image:
    """A disc with a ring, on which something else is written on each."""
    draws = np.random.default_rng([3, number])
    image = Image.new("RGB", (SIDE, SIDE), (120, 160, 200))
    pen = ImageDraw.Draw(image)
    pen.ellipse((20, 20, 220, 220), "white", (200, 20, 30), 26)
    for x in (80, 112, 144):
        for y in (88, 112, 136):
            if draws.random() < 0.5:
                reach = draws.integers(5, 12, 4)
                pen.rectangle((x - reach[0], y - reach[1], x + reach[2], y + reach[3]), "black")
    return image.filter(ImageFilter.GaussianBlur(1))


APART = "told apart"
KINDS: dict[str, Draw] = {"copies": copy, "mixed": mixed, "signs": sign, APART: sign}


def fingerprints_of(draw: Draw, total: int) -> tuple[Fingerprints, list[bytes]]:
    """The fingerprints of `total` pictures of a kind with a table of them, and their files."""
    arrays, rows, every = zeros(total), [], []
    for start in range(0, total, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, total))
        files = []
        for number in numbers:
            file, quality = io.BytesIO(), int(np.random.default_rng([4, number]).integers(60, 96))
            image = draw(number, total)
            image.save(file, "JPEG", quality=quality)
            files.append(file.getvalue())
            width, height = image.size
            rows.append({"id": f"{number:08}", "width": width, "height": height})
            rows[-1] |= {"label": 0, "shard": 0, "row": number, "size": len(files[-1]), "error": ""}
        found, _ = fingerprint_images(files, "phash", exact=False)
        every += files
        for name, values in arrays.items():
            values[start : start + len(files)] = getattr(found, name)
    return Fingerprints(pa.Table.from_pylist(rows), **arrays), every


def measured(kind: str, total: int, rules: Rules) -> dict[str, Any]:
    """CPU time of judging so many pictures of a kind, and what was judged."""
    fingerprints, files = fingerprints_of(KINDS[kind], total)
    asked = 0

    def verify(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        nonlocal asked, seconds_asked
        asked += len(i)
        started = time.process_time()
        alike = real(i, j)
        seconds_asked += time.process_time() - started
        return np.zeros_like(alike) if kind == APART else alike

    def close_ups(rows: np.ndarray, side: int) -> np.ndarray:
        return np.array([shown(row, side) for row in rows.tolist()])

    @lru_cache(KEPT // (3 * SIDE**2))
    def shown(row: int, side: int) -> np.ndarray:
        return close_up(files[row], fingerprints.cut[row], side)

    seconds_asked, real = 0.0, verifier(fingerprints, close_ups)
    nowhere = Provenance()
    started = time.process_time()
    table = judge(fingerprints, verify, rules, nowhere)
    seconds = time.process_time() - started
    summary = summarise(table, nowhere, {}, rules.radius)
    return {
        "kind": kind,
        "images": total,
        "verified": asked,
        "seconds": seconds,
        "verifying": seconds_asked,
        "kept": summary["kept"],
        "capped": summary["capped"],
    }


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| pictures | images | CPU s | verifying | pairs verified | an image | kept | capped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['kind']} | {row['images']:,} | {row['seconds']:.2f} | {row['verifying']:.2f}"
            f" | {row['verified']:,} | {row['verified'] / row['images']:.2f} | {row['kept']:,}"
            f" | {row['capped']:,} |"
        )
    for kind in dict.fromkeys(row["kind"] for row in rows):
        some = [row for row in rows if row["kind"] == kind]
        if len(some) > 1:
            sizes = [row["images"] for row in some]
            grows = exponent(sizes, [row["seconds"] for row in some])
            rest = exponent(sizes, [row["seconds"] - row["verifying"] for row in some])
            lines.append(
                f"\n{kind}: CPU time grows as N^{grows:.2f}, what is not verifying N^{rest:.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1250, 2500, 5000, 10_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--radius", type=int, default=12)
    parser.add_argument("--similarity", type=float, default=0.85)
    parser.add_argument("--compared", type=int, default=64, help="0 is all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rules = Rules(options.radius, options.similarity, 0.93, options.compared, "drop")
    rows = []
    for kind in options.kinds:
        for total in options.sizes:
            rows.append(measured(kind, total, rules))
            print(json.dumps(rows[-1]), flush=True)
    machine = f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(
        f"\n{machine}; radius {options.radius}, similarity {options.similarity},"
        f" compared {options.compared}\n\n{markdown(rows)}"
    )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
