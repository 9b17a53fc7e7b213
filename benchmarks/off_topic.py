"""How well scores without labels tell images of the teacher's classes from all others.

    python -m benchmarks.off_topic --data PATH/tiny-imagenet-32 --teacher PATH/models/teacher
    python -m benchmarks.off_topic --demo    # in a folder where `pipeline embed` has run

ROC-AUC of off-topic images over on-topic ones, of embed's `off_topic`, of its two parts, and of the
teacher's confidence. With --data, all images of Tiny-ImageNet are one web, the teacher one of
CIFAR-10, and on-topic is what CIFAR-10 has a class for, by Tiny-ImageNet's own names (WordNet's);
names of which one cannot say are left out. With --cifar10 a second web has CIFAR-10's test images
in place of those: the easier task of the literature, because they are of another collection too.
With --demo, on-topic is what the demo drew as any of its classes, asked for or not.

The interval is that of 1,000 bootstrap samples of the images, drawn on- and off-topic apart.
"""

import argparse
import json
import re
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.limits import processor
from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.world import plan
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.embed.passing import TeacherPass
from kd3_pipeline.embed.predictions import Predictions, read_logits
from kd3_pipeline.embed.topic import core_distance, off_topic
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.manifest import STORED, read_manifest
from kd3_pipeline.models.checkpoint import load_model
from kd3_pipeline.paramfile import read_params

ON_TOPIC = {
    "automobile": ("beach wagon", "convertible", "limousine", "sports car"),
    "bird": ("goose", "black stork", "king penguin", "albatross"),
    "cat": ("tabby", "Persian cat", "Egyptian cat"),
    "dog": (
        *("Chihuahua", "Yorkshire terrier", "golden retriever"),
        *("Labrador retriever", "German shepherd", "standard poodle"),
    ),
    "frog": ("bullfrog", "tailed frog"),
    "ship": ("lifeboat",),
    "truck": ("moving van",),
}
UNCLEAR = ("police van", "gazelle", "gondola")
BOOTSTRAP, BATCH = 1000, 256


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="folder of Tiny-ImageNet's Parquet files")
    options.add_argument("--teacher", type=Path, help="a model of CIFAR-10's classes")
    options.add_argument("--cifar10", help="its test images, as evaluate.test_set")
    options.add_argument("--images", type=int, default=20_000, help="drawn from --data; 0 is all")
    options.add_argument("--demo", action="store_true")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    if bool(given.data) != bool(given.teacher) or not (given.data or given.demo):
        options.error("give --data and --teacher, or --demo, or all three")
    webs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    if given.data:
        teacher = Teacher(given.teacher)
        pixels, on_topic = tiny_imagenet(given.data, given.images, given.seed)
        features, logits = teacher(pixels)
        webs["Tiny-ImageNet"] = features, logits, on_topic
        if given.cifar10:
            side = teacher.config.input_size
            added = teacher(
                load_labelled(given.cifar10, "test", Frame(side), 4000, given.seed).pixels[:]
            )
            parts = zip(added, (features, logits), strict=True)
            both = [np.concatenate([one, other[~on_topic]]) for one, other in parts]
            webs["CIFAR-10 in Tiny-ImageNet"] = *both, np.arange(len(both[0])) < len(added[0])
    if given.demo:
        webs["demo"] = demo()
    found: dict[str, Any] = {
        "processor": processor(),
        "versions": {name: version(name) for name in ("torch", "faiss-cpu", "scikit-learn")},
        "webs": {name: measured(*web, given.seed) for name, web in webs.items()},
    }
    print("| web | images | on-topic | confidence | energy | core distance | off_topic |")
    print("|---|---|---|---|---|---|---|")
    for name, web in found["webs"].items():
        scores = " | ".join(
            f"{one['auc']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
            for one in web["scores"].values()
        )
        print(f"| {name} | {web['images']:,} | {web['on_topic']:,} | {scores} |")
    text = json.dumps({"options": vars(given)} | found, indent=2, default=str)
    print(f"\n```json\n{text}\n```")
    if given.json:
        given.json.write_text(text + "\n")


def measured(
    features: np.ndarray, logits: np.ndarray, on_topic: np.ndarray, seed: int
) -> dict[str, Any]:
    """AUC of each score; the images count as one web."""
    predictions = read_logits(logits)
    return {
        "images": len(on_topic),
        "on_topic": int(on_topic.sum()),
        "scores": {
            name: auc(values, on_topic, seed)
            for name, values in scores_of(features, predictions).items()
        },
    }


def scores_of(features: np.ndarray, predictions: Predictions) -> dict[str, np.ndarray]:
    """Higher is more off-topic."""
    distance = core_distance(features, predictions, no_progress)
    return {
        "confidence": -predictions.confidence,
        "energy": predictions.energy,
        "core distance": distance,
        "off_topic": off_topic(predictions, distance),
    }


def auc(values: np.ndarray, on_topic: np.ndarray, seed: int) -> dict[str, float]:
    """ROC-AUC with its 95% interval."""
    draws = np.random.default_rng(seed)
    sides = [values[on_topic], values[~on_topic]]
    truth = np.repeat([0, 1], [len(side) for side in sides])
    again = [
        roc_auc_score(truth, np.concatenate([draws.choice(side, len(side)) for side in sides]))
        for _ in range(BOOTSTRAP)
    ]
    low, high = np.quantile(again, [0.025, 0.975])
    whole = float(roc_auc_score(truth, np.concatenate(sides)))
    return {"auc": whole, "low": float(low), "high": float(high)}


class Teacher:
    """Features float16 [N, D] and logits float32 [N, C] of pixels, as embed computes them."""

    def __init__(self, folder: Path) -> None:
        device = resolve_device("auto")
        network, self.config = load_model(folder, device)
        self.passed = TeacherPass(network, self.config, device, resolve_precision("auto", device))

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = range(0, len(pixels), BATCH)
        parts = [self.passed(np.asarray(pixels[start : start + BATCH])) for start in starts]
        features, logits, _ = (
            torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True)
        )
        return features, logits


def tiny_imagenet(folder: Path, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 32, 32, 3] of images whose topic is clear, and which are on-topic."""
    files = [pq.ParquetFile(path) for path in sorted(folder.glob("*.parquet"))]
    described = json.loads(files[0].schema_arrow.metadata[b"huggingface"])
    names = [name.partition(" ")[2] for name in described["info"]["features"]["label"]["names"]]
    labels = np.concatenate([file.read(["label"])["label"].to_numpy() for file in files])
    clear = np.flatnonzero(~np.isin(labels, [names.index(name) for name in UNCLEAR]))
    chosen = np.random.default_rng(seed).permutation(clear)[: count or None]
    chosen.sort()
    encoded = [
        data
        for file in files
        for data in file.read(["image"])["image"].combine_chunks().field("bytes")
    ]
    pixels = [Image.open(BytesIO(encoded[row].as_py())).convert("RGB") for row in chosen]
    wanted = [names.index(name) for several in ON_TOPIC.values() for name in several]
    return np.stack([np.asarray(image) for image in pixels]), np.isin(labels[chosen], wanted)


def demo() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, logits and which images are on-topic, of the demo in the current folder."""
    seed = read_params(Path("params.yaml")).crawl.seed
    stored = pc.field("outcome") == STORED
    manifest = read_manifest(Path("data/crawl/manifest.parquet"), ["id", "url"], stored)
    place = {
        row["id"]: [int(number) for number in re.search(r"/i/(\d+)/(\d+)-", row["url"]).groups()]
        for row in manifest.to_pylist()
    }
    embeddings = Embeddings.open(Path("data/embed"))
    longest = max(rank for _, rank in place.values()) + 1
    drawn = [
        plan(label, longest, seed)[rank].drawn for label, rank in map(place.get, embeddings.ids)
    ]
    return embeddings.features, embeddings.logits, np.array([label is not None for label in drawn])


if __name__ == "__main__":
    main()
