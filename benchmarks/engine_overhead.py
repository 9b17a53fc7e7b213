"""What a cluster costs beside processes of this machine: hashing of pictures of 227 pixels.

    RAY_ADDRESS=HOST:PORT python -m benchmarks.engine_overhead --workers 2
    DASK_ADDRESS=HOST:PORT python -m benchmarks.engine_overhead --workers 2

The cluster has to have as many CPUs on this machine as --workers. Arms take turns --repeat times;
a ratio is the median of the rounds' ratios of wall time after the first result, so neither the
start of processes nor that of a connection counts. All results are compared, to the byte.
"""

import argparse
import hashlib
import io
import statistics
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from kd3_pipeline.dedup.fingerprints import ARRAYS, Fingerprints
from kd3_pipeline.dedup.shards import Group, _fingerprinted, _stored
from kd3_pipeline.engine import Engine
from kd3_pipeline.store import StoredImage, shard_paths, write_shards


def main() -> None:
    """Prints the seconds of each round, and the ratio."""
    options = argparse.ArgumentParser()
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--images", type=int, default=10_000)
    options.add_argument("--side", type=int, default=227)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    there = Engine.chosen()
    with TemporaryDirectory() as folder:
        write_shards(Path(folder), drawn(given.images, given.side, given.seed), [])
        groups = [
            Group(path, number)
            for path in shard_paths(Path(folder))
            for number in range(pq.ParquetFile(path).num_row_groups)
        ]
        rounds = []
        for turn in range(given.repeat):
            with Engine(given.workers) as here:
                one, expected = seconds(here, groups)
            with there:
                other, found = seconds(there, groups)
            assert found == expected, "the cluster gives other bytes"
            rounds.append(other / one)
            print(f"round {turn}: processes {one:.1f} s, {there.cluster} {other:.1f} s")
    print(f"ratio after the first of {len(groups)} results: {statistics.median(rounds):.2f}")


def seconds(engine: Engine, groups: list[Group]) -> tuple[float, str]:
    """Wall time from the first result to the last, and a digest of all."""
    work = partial(_fingerprinted, kind="phash", exact=False)
    results = engine.map(work, groups, _stored)
    digest = hashlib.sha256(content(next(results)))
    start = time.perf_counter()
    for one in results:
        digest.update(content(one))
    return time.perf_counter() - start, digest.hexdigest()


def content(of: Fingerprints) -> bytes:
    """All arrays of a piece."""
    return b"".join(getattr(of, name).tobytes() for name in ARRAYS)


def drawn(count: int, side: int, seed: int) -> list[StoredImage]:
    """JPEGs of fields of colour with noise, all different."""
    draws = np.random.default_rng(seed)
    images = []
    for label in range(count):
        small = Image.fromarray(draws.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        field = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noisy = (field + draws.integers(-12, 13, field.shape)).clip(0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(noisy).save(out, "JPEG", quality=85)
        data = out.getvalue()
        name = hashlib.sha256(data).hexdigest()
        images.append(StoredImage(name, data, label % 10, side, side, "JPEG"))
    return images


if __name__ == "__main__":
    main()
