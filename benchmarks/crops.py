"""Crops of photographs: how sure a teacher is of them, and what they do to a student.

    python -m benchmarks.crops --data PATH/pacs-dog-horse/train.parquet --teacher models/teacher
    python -m benchmarks.crops --data FILE --teacher FOLDER --images 200 --epochs 1   # a look

The web are the images of a Parquet file (columns `image`, and `domain` if it is there), larger than
the teacher's input; a fifth of them is held out. Arms: the whole images, `embed.crops` of 2 and of
4, and the whole ones with `distill.crop: resized`, which cuts parts out of the stored pixels and
enlarges them. All else is as `distill` has it, with equal steps. Judged by agreement with the
teacher on the held-out images, whole as they are; with --test also on labelled images of the
teacher's own kind, which choose nothing. Intervals are 95%, Student's t, paired by seed.
"""

import argparse
import hashlib
import io
import json
import os
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy.special import softmax

from benchmarks.ablation import interval
from benchmarks.limits import processor
from kd3_pipeline.console import no_progress
from kd3_pipeline.device import resolve_precision
from kd3_pipeline.distill.run import distill
from kd3_pipeline.distill.web import load_web_images
from kd3_pipeline.embed.batches import KeptImage
from kd3_pipeline.embed.cropfigures import crop_figures
from kd3_pipeline.embed.features import embed
from kd3_pipeline.embeddings import CROP_FILES, CROP_STORES, Embeddings
from kd3_pipeline.engine import Engine
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill, Embed
from kd3_pipeline.store import StoredImage, shard_paths, write_shards

CPU = torch.device("cpu")
BATCH = 128
ARMS: dict[str, tuple[int, dict[str, Any]]] = {  # embed.crops, and changes of distill
    "whole images": (1, {}),
    "`embed.crops: 2`": (2, {}),
    "`embed.crops: 4`": (4, {}),
    "`distill.crop: resized`": (1, {"crop": "resized", "crop_scale": 0.12}),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--teacher", type=Path, required=True, help="folder of a model")
    options.add_argument("--test", type=Path, help="labelled images of the teacher's classes")
    options.add_argument("--images", type=int, default=0, help="drawn with seed 0; 0: all")
    options.add_argument("--student", default="resnet8")
    options.add_argument("--epochs", type=int, default=12)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    teacher, config = load_model(given.teacher, CPU)
    teacher.requires_grad_(False)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(given, teacher, config, Path(scratch))
        found = {
            "processor": f"{processor()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("torch", "pillow")},
            "images": len(bench.kept),
            "sure": [bench.sure(crops) for crops in (2, 4)],
            "runs": [bench.run(arm, seed) for seed in given.seeds for arm in ARMS],
        }
    print(markdown(given, found))
    text = json.dumps({"options": vars(given)} | found, indent=2, default=str)
    print(f"\n```json\n{text}\n```")
    if given.json:
        given.json.write_text(text + "\n")


class Bench:
    """The arms, on the same images and teacher."""

    def __init__(
        self, given: argparse.Namespace, teacher: Network, config: ModelConfig, scratch: Path
    ) -> None:
        self.given, self.teacher, self.config, self.scratch = given, teacher, config, scratch
        self.precision = resolve_precision("auto", CPU)
        self.kept, self.domains = fill(scratch / "crawl", given.data, given.images)
        self.test = None
        if given.test:
            self.test = load_labelled(str(given.test), "test", Frame(config.input_size), 0, 0)
            self.expected = self.answers(teacher)

    def answers(self, network: Network) -> np.ndarray:
        """Class that a network sees in each test image."""
        assert self.test
        about = (self.test.pixels, self.config.mean, self.config.std, 256, CPU)
        return logits_of(network, *about).argmax(axis=1)

    def embedded(self, crops: int) -> Embeddings:
        """What `embed` leaves."""
        folder = self.scratch / f"embed-{crops}"
        if not folder.exists():
            about = (self.kept, self.scratch / "crawl", self.teacher, self.config, folder)
            engine = Engine.chosen({})
            embed(*about, Embed(crops=crops), CPU, self.precision, engine, no_progress)
        return Embeddings.open(folder)

    def sure(self, crops: int) -> dict[str, Any]:
        """Confidence in the whole images and in their crops, over all and by domain."""
        found = self.embedded(crops)
        there = ~np.isnan(found.crop_boxes[:, :, 0])
        parts = softmax(found.crop_logits.astype(np.float64), axis=2).max(axis=2)
        whole = np.broadcast_to(
            softmax(found.logits.astype(np.float64), axis=1).max(axis=1)[:, None], parts.shape
        )
        by_domain = {
            name: [round(float(values[these].mean()), 3) for values in (whole, parts)]
            for name in sorted(set(self.domains.tolist()))
            if (these := there & (self.domains == name)[:, None]).any()
        }
        figures = crop_figures(found, (*CROP_STORES["raw"], *CROP_FILES))
        return asdict(figures) | {"by_domain": by_domain}

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """Distils once."""
        crops, changes = ARMS[arm]
        section = Distill(
            student=self.given.student,
            epochs=self.given.epochs,
            batch_size=BATCH,
            held_out=0.2,
            seed=seed,
            device="cpu",
            **changes,
        )
        self.embedded(crops)
        web = load_web_images(self.scratch / f"embed-{crops}", section, CPU)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            about = (section, web, self.teacher, self.config, self.precision, Path(folder))
            objective, trained = distill(*about, no_progress)
        row: dict[str, Any] = {
            "arm": arm,
            "seed": seed,
            "steps": self.given.epochs * (len(web.train) // section.batch_size),
            "seconds": round(time.perf_counter() - started, 1),
            "held_out": len(web.held_out),
            "agreement": trained.curves[-1]["agreement"],
        }
        if self.test:
            student = {"name": section.student, "num_classes": len(self.config.class_names)}
            network, _ = objective.deployed(student, self.config.architecture)
            says = self.answers(network.eval())
            row["test_agreement"] = round(float((says == self.expected).mean()), 4)
            row["test_accuracy"] = round(float((says == self.test.labels).mean()), 4)
        print(json.dumps(row), flush=True)
        return row


def fill(crawl: Path, data: Path, count: int) -> tuple[list[KeptImage], np.ndarray]:
    """Writes images as a crawl would; gives them, all kept, and the domain of each."""
    table = pq.read_table(data)
    order = np.sort(np.random.default_rng(0).permutation(table.num_rows)[: count or None])
    encoded = table["image"].combine_chunks().field("bytes").take(order).to_pylist()
    domains = [""] * len(encoded)
    if "domain" in table.column_names:
        domains = table["domain"].take(order).to_pylist()
    images = []
    for one in encoded:
        with Image.open(io.BytesIO(one)) as image:
            size, kind = image.size, image.format or ""
        images.append(StoredImage(hashlib.sha256(one).hexdigest(), one, -1, *size, kind))
    write_shards(crawl, images, [])
    kept = [
        KeptImage(name, shard, row, -1)
        for shard, path in enumerate(shard_paths(crawl))
        for row, name in enumerate(pq.read_table(path, columns=["id"])["id"].to_pylist())
    ]
    return kept, np.array(domains)


def markdown(given: argparse.Namespace, found: dict[str, Any]) -> str:
    """The tables."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    runs = found["runs"]
    lines = [
        f"{found['processor']}; {versions}; {found['images']:,} images of {given.data.parent.name},"
        f" {runs[0]['held_out']} held out; {given.student}, {runs[0]['steps']} steps, seeds"
        f" {', '.join(map(str, given.seeds))}",
        "",
        "| views | crops | sure of the whole | of crops | by domain |",
        "|---|---|---|---|---|",
    ]
    for one in found["sure"]:
        domains = "; ".join(f"{name} {a} → {b}" for name, (a, b) in one["by_domain"].items())
        lines.append(
            f"| {one['kept']} | {one['crops']:,} | {one['whole_confidence']:.3f}"
            f" | {one['crop_confidence']:.3f} | {domains} |"
        )
    kinds = [name for name in ("agreement", "test_agreement", "test_accuracy") if name in runs[0]]
    lines += ["", f"| arm | {' | '.join(kinds)} | seconds |", "|---" * (len(kinds) + 2) + "|"]
    for arm in ARMS:
        rows = [row for row in runs if row["arm"] == arm]
        plain = [row for row in runs if row["arm"] == "whole images"]
        cells = []
        for kind in kinds:
            cell = f"{100 * np.mean([row[kind] for row in rows]):.1f}"
            if rows != plain:
                pairs = zip(rows, plain, strict=True)
                cell += f" ({interval([100 * (a[kind] - b[kind]) for a, b in pairs])})"
            cells.append(cell)
        seconds = np.mean([row["seconds"] for row in rows])
        lines.append(f"| {arm} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
