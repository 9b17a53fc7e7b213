import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.embed.features import embed, kept_images
from kd3_pipeline.engine import Engine
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Embed
from kd3_pipeline.store import StoredImage, write_shards, write_table
from tests.one_thread import one_thread as one_thread

SIDE = 16


@dataclass
class Crawled:
    """A crawl of 24 images, of which dedup kept every one but each third."""

    folder: Path
    images: list[StoredImage]
    pixels: np.ndarray  # what is encoded in the images, losslessly
    network: Network
    config: ModelConfig

    @property
    def kept(self) -> list[int]:
        return [row for row in range(len(self.images)) if row % 3]

    def verdicts(self) -> pa.Table:
        """The kept images among the others, in no order."""
        order = np.random.default_rng(0).permutation(len(self.images)).tolist()
        kept = set(self.kept)
        return pa.table(
            {
                "id": [self.images[row].id for row in order],
                "shard": pa.array([row // 10 for row in order], pa.int32()),
                "row": pa.array([row % 10 for row in order], pa.int32()),
                "label": pa.array([self.images[row].label for row in order], pa.int64()),
                "kept": [row in kept for row in order],
            }
        )


def run(crawled: Crawled, folder: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Embeds what was crawled, in float32 on the CPU unless told otherwise."""
    kept = changes.pop("kept", None) or kept_images(crawled.verdicts())
    advance = changes.pop("advance", no_progress)
    precision = changes.pop("precision", torch.float32)
    about = (kept, crawled.folder, crawled.network, crawled.config, folder)
    with Engine(changes.pop("workers", 2)) as engine:
        section = Embed(**{"batch_size": 5} | changes)
        embed(*about, section, torch.device("cpu"), precision, engine, advance)
    return {name: np.load(folder / f"{name}.npy") for name in ("pixels", "features", "logits")}


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored(data: bytes, label: int) -> StoredImage:
    return StoredImage(hashlib.sha256(data).hexdigest(), data, label, SIDE, SIDE, "PNG")


@pytest.fixture
def crawled(tmp_path, monkeypatch) -> Crawled:
    monkeypatch.setattr("kd3_pipeline.store.SHARD_ROWS", 10)
    pixels, labels = original_images("train", 24, SIDE, 5)
    images = []
    for image, label in zip(pixels, labels.tolist(), strict=True):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        images.append(stored(out.getvalue(), label))
    folder = tmp_path / "data" / "crawl"
    names = [f"class {label}" for label in range(10)]
    write_shards(folder, images, names)
    manifest = {
        "label": [image.label for image in images] + [10],
        "id": [image.id for image in images] + [images[1].id],
        "outcome": ["stored"] * 24 + ["duplicate"],
        "class": [names[image.label] for image in images] + ["other"],
        "title": [f"picture {row}" for row in range(24)] + [""],
        "url": [f"https://a.example/{row}.png" for row in range(24)] + ["https://b.example/"],
        "page_url": [f"https://a.example/{row}" for row in range(24)] + [""],
        "licence": ["CC BY"] * 25,
        "licence_url": ["https://licence.example/by"] * 25,
    }
    write_table(folder / "manifest.parquet", pa.table(manifest))
    torch.manual_seed(2)
    network = build("resnet8", 10).eval()
    architecture = {"name": "resnet8", "num_classes": 10}
    config = ModelConfig(architecture, names, [0.5, 0.4, 0.3], [0.25] * 3, SIDE, "a test")
    return Crawled(folder, images, pixels, network, config)
