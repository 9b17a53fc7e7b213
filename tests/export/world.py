"""Small project that has come as far as `evaluate`, with hostile text wherever the web writes."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from kd3_pipeline import selections, verdicts
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.embeddings import PIXELS, write_images
from kd3_pipeline.kd3 import Transfer
from kd3_pipeline.manifest import Candidate, Fetched, manifest, signed
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.distilled import Distilled
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network, drop_classifier
from kd3_pipeline.pixels import normalise
from kd3_pipeline.store import write_json, write_table

SIDE = 16
NAMES = ["circle", "<script>alert(1)</script>", "a`b|c\n---\nd", "star"]
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
MADE = {
    "software": "kd3-pipeline 0.1.0",
    "user_agent": "Mozilla/5.0 (compatible; kd3-pipeline/0.1.0; +https://a.example/`<b>`)",
    "robots": True,
    "opt_outs": ["tdm-reservation"],
    "parameters": {"per_class": 3},
}
TITLE = "look\x1b[2J \u202e<b>here</b>"
EPOCHS = 4
IMAGES = [f"image {number}" for number in range(6)]
IDS = [hashlib.sha256(image.encode()).hexdigest() for image in IMAGES]
USED, TWICE, NEVER, HELD_OUT, DROPPED, LEAKED = IDS
NETWORK = {
    "macs": 40_700_000,
    "megabytes": 0.31,
    "latency_ms": [],
    "top5": None,
    "top5_low": None,
    "top5_high": None,
    "nll": 0.41,
    "brier": 0.2,
    "ece": 0.043,
    "cut": "map",
    "input_size": 16,
    "mean": MEAN,
    "std": STD,
    "commonest_class": "moon",
    "commonest_share": 0.28,
}
METRICS = {
    "test_set": "/home/someone/secret/wild|life.parquet",
    "test_images": 90,
    "left_out": {"broken": 0, "unlabelled": 0, "other_class": 0},
    "class_names": NAMES,
    "classes_measured": 4,
    "teacher": {
        "architecture": "resnet20",
        "parameters": 272474,
        "accuracy": 0.9,
        "accuracy_low": 0.82,
        "accuracy_high": 0.95,
        **NETWORK,
    },
    "student": {
        "architecture": "resnet8",
        "parameters": 78042,
        "accuracy": 0.8667,
        "accuracy_low": 0.78,
        "accuracy_high": 0.92,
        **NETWORK,
        "temperature": 1.0,
        "nll_tempered": 0.4,
        "brier_tempered": 0.2,
        "ece_tempered": 0.011,
    },
    "gap_points": 3.33,
    "gap_low": -1.2,
    "gap_high": 7.9,
    "only_teacher_right": 5,
    "only_student_right": 2,
    "mcnemar_p": 0.453,
    "agreement": 0.9,
    "agreement_teacher_right": 0.93,
    "agreement_teacher_wrong": None,
    "kl": 0.2,
    "per_class": [],
    "leaked": None,
    "contaminated": None,
    "calibration": [],
    "calibration_tempered": [],
    "styles": [],
    "corruption_error": None,
    "warnings": [],
}
CONFIG = ModelConfig(
    Distilled.architecture(
        backbone="resnet8",
        teacher={"name": "resnet8", "num_classes": len(NAMES)},
        side=4,
        num_classes=len(NAMES),
        fused=True,
    ),
    NAMES,
    MEAN,
    STD,
    SIDE,
    "kd3 from 6 web images",
)


@cache
def pixels(count: int = 300) -> np.ndarray:
    """uint8 [count, SIDE, SIDE, 3]."""
    return original_images("train", count, SIDE, 2)[0]


@cache
def student() -> Network:
    """A student with statistics of such images, folded, that tells them apart."""
    torch.manual_seed(3)
    teacher, backbone = build("resnet8", len(NAMES)), build("resnet8", len(NAMES))
    drop_classifier(backbone)
    transfer = Transfer(backbone.feature_channels, teacher.feature_channels, 2)
    network = Distilled(backbone, transfer, teacher.classifier, 4).train()
    images = normalise(torch.from_numpy(pixels()), MEAN, STD)
    with torch.no_grad():
        for _ in range(20):
            network(images)
    network.fc.weight.data *= 20
    network.eval()
    with torch.no_grad():
        network.fc.bias.data -= network(images).mean(dim=0)  # every class is seen in some
    return fuse(network).requires_grad_(False)


def write_world(root: Path) -> None:
    """Writes every file that `export` and `trace` read below `root`."""
    save_model(root / "models/student", student(), CONFIG)
    write_json(root / "reports/metrics.json", METRICS)
    write_pixels(root / "data/embed")
    write_tables(root)


def write_pixels(folder: Path) -> None:
    """The part of the embeddings that `export` reads."""
    count = len(pixels())
    columns = {"row": range(count), "id": [f"{row:064x}" for row in range(count)]}
    columns["label"] = [0] * count
    write_images(folder, columns, NAMES)
    np.save(folder / PIXELS, pixels())


def write_tables(root: Path) -> None:
    """The crawl's manifest, what dedup judged, and what was selected."""
    found: dict[Candidate, Fetched] = {}

    def candidate(label: int, url: str, outcome: str, id: str | None = None, **told: str) -> None:
        query = f"{NAMES[label]} photo"
        one = Candidate(label, NAMES[label], "bing", query, len(found), url, **told)
        at = "2026-05-04T03:02:01+00:00" if id == USED else ""
        detail = "HTTP 404" * (id is None)
        found[one] = Fetched(url, outcome, detail, id=id, final_url=url, fetched_at=at)

    candidate(0, "https://a.example/1.jpg", "ok", USED, title=TITLE, licence="CC BY `4.0`|")
    candidate(1, "https://a.example/2.jpg", "ok", TWICE, page_url="javascript:alert(1)")
    candidate(3, "https://b.example/2.jpg", "ok", TWICE, licence="CC0", creator="A. B.")
    candidate(3, "https://a.example/3.jpg", "ok", NEVER)
    candidate(0, "https://c.example/4.jpg", "ok", HELD_OUT)
    candidate(0, "https://c.example/5.jpg", "ok", DROPPED)
    candidate(0, "https://[broken/6.jpg", "ok", LEAKED)
    candidate(0, "https://c.example/gone.jpg", "http_error")
    table = signed(manifest(list(found), found), MADE)
    write_table(root / "data/crawl/manifest.parquet", table)

    blank = dict.fromkeys(verdicts.SCHEMA.names)
    judged = [blank | {"id": id, "label": 0, "kept": True, "reason": ""} for id in IDS]
    judged[1]["label"] = 3
    judged[4] |= {
        "kept": False,
        "reason": "near-duplicate",
        "duplicate_of": USED,
        "distance": 3,
    }
    judged[5] |= {"kept": False, "reason": "leaked"}
    dedup = pa.Table.from_pylist(judged, schema=verdicts.SCHEMA)
    write_table(root / "data/dedup/images.parquet", dedup)

    times = {USED: 3, TWICE: 1, NEVER: 0, HELD_OUT: 0}
    selection = [
        {
            "row": row,
            "id": id,
            "predicted": 0,
            "confidence": 0.5,
            "held_out": id == HELD_OUT,
            "times_kept": count,
            "kept": [epoch < count for epoch in range(EPOCHS)],
        }
        for row, (id, count) in enumerate(times.items())
    ]
    table = pa.Table.from_pylist(selection, schema=selections.SCHEMA)
    write_table(root / "data/distill/selection.parquet", table)


def measured(**student: object) -> dict:
    """The metrics with values of the student added."""
    return json.loads(json.dumps(METRICS)) | {"student": METRICS["student"] | student}
