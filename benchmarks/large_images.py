"""All stages on images of 224 pixels: memory of each, bytes of both stores, speed of embed.

    python -m benchmarks.large_images --json large.json          # an hour on two idle cores
    python -m benchmarks.large_images --images 60 --tests 20 --speed 0 --side 64 --size 72 \\
        --architecture resnet8 --student resnet8                 # a look

A project is made in --folder, or in one that is removed: images (those of --data, a Parquet file
with a column `image`, or drawn: fields of colours that no two share), a teacher of random weights
whose batch norms have seen some of them, and a test set of other images. Then the stages run, each
as a process of its own, `embed` once for each store; distill takes the JPEGs.

Peak: the most memory of the stage and of its own processes together (proportional set size, looked
at five times a second, Linux), or of its largest process at any time where that is more.

Speed: `embed` beside a bare loop, as benchmarks.embed_speed has them, in one process, by turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image, ImageDraw

from benchmarks.embed_speed import Bench
from benchmarks.limits import processor
from kd3_pipeline.device import resolve_device
from kd3_pipeline.embeddings import STORES
from kd3_pipeline.frames import Frame
from kd3_pipeline.images import decode
from kd3_pipeline.models import build
from kd3_pipeline.pixels import normalise

ROOT = Path(__file__).parent.parent
CLASSES = 10
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
WANTED_MB, WANTED_RATIO = 2500, 0.85


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--tests", type=int, default=400)
    options.add_argument("--data", type=Path, help="Parquet file with encoded images")
    options.add_argument("--architecture", default="torchvision/resnet50")
    options.add_argument("--student", default="torchvision/mobilenet_v3_small")
    options.add_argument("--side", type=int, default=224)
    options.add_argument("--size", type=int, default=256)
    options.add_argument("--quality", type=int, default=90)
    options.add_argument("--batch", type=int, default=16, help="of distill")
    options.add_argument("--share", type=float, default=0.1, help="of the images, distilled from")
    options.add_argument("--speed", type=int, default=320, help="images of the speed's arms; 0: no")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--folder", type=Path)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "torchvision", "pillow")},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch, "project")
        fill(folder, given)
        found |= stages(folder, given)
        if given.speed:
            found["speed"] = {store: speed(folder, given, store) for store in STORES}
    print(markdown(given, found))
    text = json.dumps({"options": vars(given)} | found, indent=2, default=str)
    print(f"\n```json\n{text}\n```")
    if given.json:
        given.json.write_text(text + "\n")


def fill(folder: Path, given: argparse.Namespace) -> None:
    """The project's params.yaml, images, test set and teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    every = encoded(given.data) if given.data else drawn(given.seed, 3 * given.size // 2)
    number = 0
    for part, count in (("pictures", given.images), ("tests", given.tests)):
        for data in islice(every, count):
            place = folder / part / f"class {number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:06}.jpg").write_bytes(data)
            number += 1
    if number < given.images + given.tests:
        raise SystemExit(f"{given.data} has only {number} images")
    torch.manual_seed(given.seed)
    network = build(given.architecture, CLASSES).train()
    frame = Frame(given.side, "crop", given.size)
    paths = sorted((folder / "pictures").glob("*/*"))[:16]
    pixels = torch.from_numpy(np.stack([frame.of(decode(path.read_bytes())) for path in paths]))
    with torch.no_grad():
        network(normalise(pixels, MEAN, STD))
    torch.save(network.state_dict(), folder / "teacher.pt")
    (folder / "params.yaml").write_text(yaml.safe_dump(params(given), sort_keys=False))


def params(given: argparse.Namespace) -> dict[str, Any]:
    names = [f"class {label}" for label in range(CLASSES)]
    return {
        "crawl": {"classes": names, "engine": "files", "source": "pictures"},
        "dedup": {"leaks": False},
        "teacher": {
            "source": "file",
            "path": "teacher.pt",
            "architecture": given.architecture,
            "input_size": given.side,
            "class_names": names,
            "mean": MEAN,
            "std": STD,
        },
        "embed": {"size": given.size, "store": "jpeg", "jpeg_quality": given.quality},
        "distill": {
            "student": given.student,
            "epochs": 1,
            "batch_size": given.batch,
            "lr": 0.05,
            "selection": "confident",
            "confident_share": given.share,
        },
        "evaluate": {"test_set": "tests", "images": 0, "latency": False},
        "export": {"formats": ["onnx"]},
    }


def stages(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Peak and seconds of each stage, and bytes an image of both stores."""
    found: dict[str, Any] = {"stages": [], "bytes_an_image": {}}
    runs = [("crawl", ()), ("dedup", ()), ("teacher", ())]
    runs += [("embed", ("--set", f"embed.store={store}")) for store in STORES]
    runs += [("distill", ()), ("evaluate", ()), ("export", ())]
    for stage, more in runs:
        name = " ".join([stage, *(one.partition("=")[2] for one in more[1:])])
        seconds, peak = measured([stage, "--quiet", *more], folder)
        found["stages"].append({"stage": name, "seconds": seconds, "peak_mb": peak})
        print(f"{name}: {seconds:.0f} s, {peak:,.0f} MB", file=sys.stderr, flush=True)
        for store, files in STORES.items():
            paths = [folder / "data/embed" / file for file in files]
            if all(path.is_file() for path in paths):
                count = pq.read_metadata(folder / "data/embed/images.parquet").num_rows
                size = sum(path.stat().st_size for path in paths)
                found["images"], found["bytes_an_image"][store] = count, size / count
    found["store"] = json.loads((folder / "reports/embed.json").read_text())["store"]
    return found


def measured(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of a stage, and the most memory that it and its processes had, in MB.

    Raises:
        SystemExit: the stage failed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "kd3_stages", *arguments], cwd=folder, env=environment
    )
    while True:
        family = [process.pid, *descendants(process.pid)]
        most = max(kilobytes(one, "status", "VmHWM") for one in family)
        peak = max(peak, most, sum(kilobytes(one, "smaps_rollup", "Pss") for one in family))
        try:
            process.wait(0.2)
            break
        except subprocess.TimeoutExpired:
            continue
    if process.returncode:
        raise SystemExit(f"{arguments[0]} ended with {process.returncode}")
    return time.perf_counter() - started, peak * 1024 / 1e6


def descendants(process: int) -> list[int]:
    """Processes below one, as the system has them now."""
    found: list[int] = []
    with suppress(OSError):
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def kilobytes(process: int, file: str, name: str) -> int:
    """A figure of a process's memory; 0 if it has ended."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
    return 0


def speed(folder: Path, given: argparse.Namespace, store: str) -> dict[str, Any]:
    """Images a second of `embed` and of loops over tensors, and the ratios of the rounds."""
    about = argparse.Namespace(
        architecture=given.architecture,
        images=given.speed,
        batch=32,
        repeat=given.repeat,
        workers=os.cpu_count() or 1,
        seed=given.seed,
        side=given.side,
        size=given.size,
        store=store,
    )
    return Bench(about, folder / "data/crawl", resolve_device("cpu")).throughput()


def encoded(data: Path) -> Iterator[bytes]:
    for batch in pq.ParquetFile(data).iter_batches(100, columns=["image"]):
        yield from batch["image"].field("bytes").to_pylist()


def drawn(seed: int, side: int) -> Iterator[bytes]:
    """JPEGs that differ all over: fields of colour with some noise, and shapes on them."""
    draws = np.random.default_rng(seed)
    while True:
        field = Image.fromarray(draws.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        image = field.resize((side, side), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(image)
        for _ in range(6):
            left, top = draws.integers(0, side, 2).tolist()
            box = (left, top, left + side // 4, top + side // 5)
            colour = tuple(draws.integers(0, 256, 3).tolist())
            (pen.ellipse if draws.random() < 0.5 else pen.rectangle)(box, fill=colour)
        noise = draws.normal(0, 6, (side, side, 3))
        pixels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
        out = BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=90)
        yield out.getvalue()


def markdown(given: argparse.Namespace, found: dict[str, Any]) -> str:
    """The tables, and what was wanted."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        f"{found['processor']}; {versions}; {given.data.name if given.data else 'drawn'} images,"
        f" {found['images']:,} kept of {given.images:,}, {given.tests:,} tests;"
        f" {given.architecture} → {given.student}, {given.side} of {given.size} pixels, batch"
        f" {given.batch}, seed {given.seed}; wanted: under {WANTED_MB:,} MB",
        "",
        "| stage | seconds | peak MB |",
        "|---|---|---|",
    ]
    for one in found["stages"]:
        lines.append(f"| {one['stage']} | {one['seconds']:.0f} | {one['peak_mb']:,.0f} |")
    lines += ["", "| store | bytes an image | 400,000 images |", "|---|---|---|"]
    for store, size in found["bytes_an_image"].items():
        lines.append(f"| {store} | {size:,.0f} | {400_000 * size / 1e9:.1f} GB |")
    told = found["store"]
    lines += [
        "",
        f"Teacher's class the same in {told['same_class']:.1%} of {told['images']} images, logits"
        f" off by {told['logit_change']:.2%} of their deviation.",
    ]
    if "speed" in found:
        lines += ["", f"| embed beside, wanted ≥ {WANTED_RATIO} | raw | jpeg |", "|---|---|---|"]
        ratios = {store: one["ratio"] for store, one in found["speed"].items()}
        for name in ratios["raw"]:
            lines.append(f"| {name} | {ratios['raw'][name]:.2f} | {ratios['jpeg'][name]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
