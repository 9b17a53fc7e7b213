"""Embedding beside a bare forward loop, its growth, and the index, in one run.

    python -m benchmarks.embed_speed --data PATH/tiny-imagenet-32   # half an hour on two cores
    python -m benchmarks.embed_speed --sizes 1000,4000 --images 2000 --rows 20000   # a look
    python -m benchmarks.embed_speed --device cuda --architecture resnet34 --images 100000
    python -m benchmarks.embed_speed --side 224 --size 256 --store jpeg --batch 32 --rows 0 \
        --architecture torchvision/resnet50 --images 400 --sizes ''   # large images

Throughput: `embed` as the stage runs it, from encoded images in shards to arrays on disk, against
loops over normalised float tensors that are in the device's memory already and whose results are
thrown away. The bare loop is the network as it was loaded; the tuned loop has batch norms folded,
channels last. Arms take turns --repeat times; a ratio is the median of the rounds' ratios, in
which both arms have the same precision. One round that is not counted comes first. What starting
decoding processes costs is in the time.

Growth: each size in a fresh process, with the check of the normalisation and every score of images
and classes; its peak is the whole process's resident memory (Linux), and the exponent is
log(time ratio) / log(size ratio) of the smallest and the largest.

Index: --rows x --width features like a classifier's: non-negative, in classes, of about 60
dimensions. Recall at 10 against exact search, single queries and batches of 100, one thread.

Images are those of --data (Parquet with an `image` column, repeated if they are too few), or drawn.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from benchmarks.limits import now, processor
from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.device import autocast, resolve_device, resolve_precision
from kd3_pipeline.embed.batches import Batch, KeptImage, Reading
from kd3_pipeline.embed.features import embed
from kd3_pipeline.embed.index import build_index, search
from kd3_pipeline.embed.predictions import read_logits
from kd3_pipeline.embed.scores import score
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.engine import Engine
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.params import Embed
from kd3_pipeline.pixels import normalise
from kd3_pipeline.store import SHARD_ROWS, StoredImage, shard_paths, write_shards
from kd3_pipeline.teacher.normalisation import check_normalisation, sample

CLASSES, DRAWN = 10, 2000
MEAN, STD = [0.48, 0.457, 0.409], [0.275, 0.271, 0.281]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WANTED = {"ratio": 0.85, "memory_mb": 1500, "exponent": 1.1, "recall": 0.98, "query_ms": 2.0}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="folder of Parquet files with encoded images")
    options.add_argument("--architecture", default="resnet20")
    options.add_argument("--images", type=int, default=20_000, help="of the throughput's arms")
    options.add_argument("--side", type=int, default=32, help="of the network's input")
    options.add_argument("--size", type=int, default=0, help="of the stored pixels, as embed.size")
    options.add_argument("--store", default="raw", help="as embed.store")
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--sizes", default="10000,100000", help="images of the growth's runs")
    options.add_argument("--rows", type=int, default=100_000, help="of the index; 0 for none")
    options.add_argument("--width", type=int, default=512)
    options.add_argument("--kinds", default="auto,flat,hnsw,ivfpq", help="of index")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options.add_argument("--device", default="auto")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    sizes = sorted(int(size) for size in given.sizes.split(",") if size)
    device = resolve_device(given.device)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "pillow", "faiss-cpu", "pyarrow")},
    }
    with tempfile.TemporaryDirectory() as scratch:
        crawl = Path(scratch, "crawl")
        found["source"] = fill(
            crawl, given.data, max([given.images, *sizes]), given.seed, given.size or given.side
        )
        bench = Bench(given, crawl, device)
        found |= bench.throughput()
        found["growth"] = [in_fresh_process(grown, given, crawl, size) for size in sizes]
    if given.rows:
        features = features_like(given.rows, given.width, given.seed)
        found["index"] = [indexed(features, kind) for kind in given.kinds.split(",")]
    print(markdown(given, found))
    text = json.dumps({"options": vars(given)} | found, indent=2, default=str)
    print(f"\n```json\n{text}\n```")
    if given.json:
        given.json.write_text(text + "\n")


class Bench:
    """The arms, on the same images and network."""

    def __init__(self, given: argparse.Namespace, crawl: Path, device: torch.device) -> None:
        self.given, self.crawl, self.device = given, crawl, device
        torch.manual_seed(given.seed)
        # its weights are random, because what they make of an image does not matter for speed
        self.network = build(given.architecture, CLASSES).to(device).eval()
        names = [f"class {label}" for label in range(CLASSES)]
        architecture = {"name": given.architecture, "num_classes": CLASSES}
        self.config = ModelConfig(architecture, names, MEAN, STD, given.side, "random")

    def throughput(self) -> dict[str, Any]:
        """Images a second of each arm, by round, and the medians of the rounds' ratios."""
        precisions = ["float32"]
        if resolve_precision("auto", self.device) == torch.bfloat16:
            precisions.append("bfloat16")
        images = self.tensors()
        arms: dict[str, Callable[[], int]] = {}
        for name in precisions:
            arms[f"embed, {name}"] = lambda name=name: self.embed(self.given.images, name)
            arms[f"bare loop, {name}"] = lambda name=name: self.loop(self.network, images, name)
            tuned = fuse(self.network).to(memory_format=torch.channels_last)
            last = [batch.contiguous(memory_format=torch.channels_last) for batch in images]
            arms[f"tuned loop, {name}"] = lambda n=name, t=tuned, x=last: self.loop(t, x, n)
        arms["decoding, one thread"] = self.decoding
        speeds: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(self.given.repeat + 1):
            for name, work in arms.items():
                started = now(self.device)
                done = work()
                if turn:
                    speeds[name].append(done / (now(self.device) - started))
        ratios = {
            f"{loop}, {name}": statistics.median(
                ours / theirs
                for ours, theirs in zip(
                    speeds[f"embed, {name}"], speeds[f"{loop}, {name}"], strict=True
                )
            )
            for name in precisions
            for loop in ("bare loop", "tuned loop")
        }
        return {"images_per_s": speeds, "ratio": ratios}

    def kept(self, count: int) -> list[KeptImage]:
        paths = shard_paths(self.crawl)
        ids = (
            (shard, row, name)
            for shard, path in enumerate(paths)
            for row, name in enumerate(pq.read_table(path, columns=["id"])["id"].to_pylist())
        )
        return [KeptImage(name, shard, row, 0) for shard, row, name in islice(ids, count)]

    def embed(self, count: int, precision: str, scores: bool = False) -> int:
        """Embeds as the stage does, with or without what follows the pass (but for the index)."""
        given = self.given
        section = Embed(
            batch_size=given.batch,
            redundant=0.2,
            size=given.size,
            store=given.store,
        )
        with tempfile.TemporaryDirectory() as scratch, Engine(given.workers) as engine:
            folder = Path(scratch, "embed")
            embed(
                self.kept(count),
                self.crawl,
                self.network,
                self.config,
                folder,
                section,
                self.device,
                PRECISIONS[precision],
                engine,
                no_progress,
            )
            if scores:
                self.score(Embeddings.open(folder), section)
        return count

    def score(self, found: Embeddings, section: Embed) -> None:
        """Everything that can be asked for."""
        shown = found.centre(self.given.side)[sample(len(found))]
        check_normalisation(self.network, self.config, np.array(shown))
        predictions = read_logits(found.logits)
        score(found.features, predictions, self.network, section, no_progress)

    def tensors(self) -> list[Tensor]:
        """A few batches that take turns: more would not be read any faster."""
        few = islice(decoded(self.crawl, self.given.side), 4 * self.given.batch)
        pixels = np.stack(list(few))
        batches = torch.from_numpy(pixels).to(self.device).split(self.given.batch)
        return [normalise(batch, MEAN, STD).contiguous() for batch in batches]

    @torch.inference_mode()
    def loop(self, network: Network, batches: list[Tensor], precision: str) -> int:
        """Passes as many images as `embed` does."""
        done = 0
        for batch in cycle(batches):
            if done >= self.given.images:
                return done
            with autocast(self.device, PRECISIONS[precision]):
                network.classify(pool(network.features(batch)))
            done += len(batch)
        return done

    def decoding(self) -> int:
        few = min(self.given.images, SHARD_ROWS)
        return sum(1 for _ in islice(decoded(self.crawl, self.given.size or self.given.side), few))


def grown(given: argparse.Namespace, crawl: Path, size: int) -> dict[str, Any]:
    """Seconds and the most resident memory of embedding so many images, in this process."""
    device = resolve_device(given.device)
    bench = Bench(given, crawl, device)
    precision = str(resolve_precision("auto", device)).removeprefix("torch.")
    bench.embed(min(size, 2 * given.batch), precision)  # libraries load and kernels are made
    started = time.perf_counter()
    bench.embed(size, precision, scores=True)
    seconds = time.perf_counter() - started
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
    return {"images": size, "seconds": seconds, "peak_mb": peak, "precision": precision}


def indexed(features: np.ndarray, kind: str) -> dict[str, Any]:
    """What an index of this kind is like; a batch is of 100 queries, without reading the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.faiss")
        report = build_index(features, path, kind)
        size = path.stat().st_size / 1e6
        queries = features[:: len(features) // 100][:100]
        faiss.omp_set_num_threads(1)
        started = time.perf_counter()
        search(path, queries[:1], 10)
        read_ms = 1000 * (time.perf_counter() - started)
        started = time.perf_counter()
        search(path, queries, 10)
        batch_ms = (1000 * (time.perf_counter() - started) - read_ms) / (len(queries) - 1)
    return {"asked": kind, **vars(report), "batch_ms": batch_ms, "read_ms": read_ms, "mb": size}


def features_like(rows: int, width: int, seed: int) -> np.ndarray:
    """float16 [rows, width], as pooled behind a ReLU: in 200 classes, each of them wide."""
    draws = np.random.default_rng(seed)
    spectrum = np.arange(1, 129) ** -0.5  # of the directions in which images differ
    directions = draws.standard_normal((128, width)) * spectrum[:, None]
    centres = draws.standard_normal((200, 128))
    features = np.empty((rows, width), np.float16)
    for start in range(0, rows, 10_000):
        few = len(features[start : start + 10_000])
        place = centres[draws.integers(0, 200, few)] + draws.standard_normal((few, 128))
        noise = 0.3 * draws.standard_normal((few, width))
        features[start : start + few] = np.maximum(place @ directions + noise, 0)
    return features


def fill(crawl: Path, data: Path | None, count: int, seed: int, side: int = 32) -> str:
    """Writes `count` images as a crawl would, and says where they are from."""
    images = encoded(data) if data else drawn(seed, side)
    numbered = enumerate(islice(cycle(images), count))
    write_shards(
        crawl,
        (StoredImage(f"{at:064x}", one, -1, side, side, "WEBP") for at, one in numbered),
        [],
    )
    return data.name if data else f"{DRAWN} drawn images, repeated"


def encoded(data: Path) -> Iterator[bytes]:
    for path in sorted(data.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=["image"]):
            yield from batch["image"].field("bytes").to_pylist()


def drawn(seed: int, side: int) -> Iterator[bytes]:
    pixels, _ = original_images("train", DRAWN, side, seed)
    for image in pixels:
        out = BytesIO()
        Image.fromarray(image).save(out, "WEBP", quality=92)
        yield out.getvalue()


def decoded(crawl: Path, side: int) -> Iterator[np.ndarray]:
    """The images of a crawl, as embed's own function decodes them, 100 at a time."""
    for path in shard_paths(crawl):
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        for start in range(0, len(ids), 100):
            rows = tuple(range(start, min(start + 100, len(ids))))
            batch = Batch(path, rows, tuple(ids[start : start + 100]), 0, True)
            found = Reading(side, side, "crop")(batch)
            assert not found.problems, found.problems
            yield from found.shown


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def exponent(growth: list[dict[str, Any]]) -> float | None:
    """Of the time, from the smallest size to the largest."""
    if len(growth) < 2:
        return None
    first, last = growth[0], growth[-1]
    return math.log(last["seconds"] / first["seconds"]) / math.log(last["images"] / first["images"])


def markdown(given: argparse.Namespace, found: dict[str, Any]) -> str:
    """The tables, and what was wanted beside what was found."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        f"{found['device']}; {found['processor']}; {versions}; {found['source']};"
        f" {given.architecture}, {given.images:,} images of {given.side} pixels (stored"
        f" {given.size or given.side}, {given.store}), batch {given.batch},"
        f" {given.workers} workers, median of {given.repeat}, seed {given.seed}",
        "",
        "| arm | images/s |",
        "|---|---|",
    ]
    for name, speeds in found["images_per_s"].items():
        lines.append(f"| {name} | {statistics.median(speeds):,.0f} |")
    lines += ["", "| embed beside | ratio | wanted |", "|---|---|---|"]
    for name, ratio in found["ratio"].items():
        wanted = f"≥ {WANTED['ratio']}" if name.startswith("bare") else ""
        lines.append(f"| {name} | {ratio:.2f} | {wanted} |")
    lines += ["", "| images | seconds | images/s | peak MB | precision |", "|---|---|---|---|---|"]
    for run in found["growth"]:
        lines.append(
            f"| {run['images']:,} | {run['seconds']:.1f} | {run['images'] / run['seconds']:,.0f}"
            f" | {run['peak_mb']:,.0f} | {run['precision']} |"
        )
    grows = exponent(found["growth"])
    if grows is not None:
        lines += [
            "",
            f"Growth exponent {grows:.2f} (wanted ≤ {WANTED['exponent']}); wanted memory"
            f" under {WANTED['memory_mb']:,} MB.",
        ]
    if "index" in found:
        lines += [
            "",
            f"{given.rows:,} × {given.width}, one thread; wanted: recall@10 ≥ {WANTED['recall']},"
            f" a query under {WANTED['query_ms']} ms",
            "",
            "| asked | built | recall@10 | build s | single ms | batch ms | MB |",
            "|---|---|---|---|---|---|---|",
        ]
    for index in found.get("index", []):
        lines.append(
            f"| {index['asked']} | {index['kind']} | {index['recall_at_10']:.4f}"
            f" | {index['build_seconds']:.1f} | {index['query_ms']:.2f} | {index['batch_ms']:.2f}"
            f" | {index['mb']:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
