"""A small run: every file that the report reads, with hostile text in it."""

import csv
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from pipeline.report.page import ReportSources

HOSTILE_CLASS = "<script>alert(1)</script>"
HOSTILE_TITLE = '"><img src=x onerror=alert(1)>'
HOSTILE_URL = "javascript:alert(1)"
TERMS = ("feature", "contrast")


def draw(index: int, label: int, kind: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    """An encoded picture of one shape, another one for every index."""
    rng = np.random.default_rng([index, label])
    image = Image.new("RGB", size, tuple(rng.integers(120, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    width, height = size
    radius = min(size) * rng.uniform(0.2, 0.4)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6)
    colour = tuple(rng.integers(0, 140, 3).tolist())
    if label % 3 == 0:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        turn = rng.uniform(0, 90)
        pen.regular_polygon((x, y, radius), 3 + label % 7, rotation=turn, fill=colour)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@dataclass
class World:
    """What to write; `write` returns the paths."""

    class_names: list[str] = field(default_factory=lambda: ["circle", HOSTILE_CLASS, "star"])
    images: int = 60
    near_duplicates: int = 6
    lost: dict[str, int] = field(
        default_factory=lambda: {"http_error": 7, "timeout": 3, "a new reason <b>": 2}
    )
    epochs: int = 5
    test_images: int = 90
    selects: bool = True
    shard: int = 25
    pictures: dict[int, bytes] = field(default_factory=dict)
    size: tuple[int, int] = (64, 48)

    def write(self, root: Path) -> ReportSources:
        """Write every file below `root`."""
        rng = np.random.default_rng(0)
        for name in ("crawl", "dedup", "embed", "distill", "reports"):
            (root / name).mkdir(parents=True, exist_ok=True)
        count, classes = self.images, len(self.class_names)
        labels = np.arange(count) % classes
        kinds = ("JPEG", "PNG", "WEBP", "GIF")
        data = [
            self.pictures.get(i) or draw(i, int(labels[i]), kinds[i % 4], self.size)
            for i in range(count)
        ]
        ids = [hashlib.sha256(content + b"%d" % i).hexdigest() for i, content in enumerate(data)]
        self._crawl(root / "crawl", data, ids, labels)
        kept = np.ones(count, bool)
        kept[count - self.near_duplicates :] = False
        twins = [None if ok else ids[i % max(1, kept.sum())] for i, ok in enumerate(kept)]
        pq.write_table(
            pa.table(
                {
                    "id": ids,
                    "shard": pa.array([i // self.shard for i in range(count)], pa.int32()),
                    "row": pa.array([i % self.shard for i in range(count)], pa.int32()),
                    "label": pa.array(labels, pa.int64()),
                    "width": pa.array([self.size[0]] * count, pa.int32()),
                    "height": pa.array([self.size[1]] * count, pa.int32()),
                    "hash": pa.array(range(count), pa.uint64()),
                    "kept": kept,
                    "reason": ["" if ok else "near-duplicate" for ok in kept],
                    "group": pa.array(range(count), pa.int64()),
                    "duplicate_of": pa.array(twins, pa.string()),
                    "distance": pa.array(
                        [None if ok else i % 9 for i, ok in enumerate(kept)], pa.int32()
                    ),
                }
            ),
            root / "dedup" / "images.parquet",
        )
        used = np.flatnonzero(kept)
        logits = rng.normal(size=(len(used), classes)).astype(np.float32)
        logits[np.arange(len(used)), labels[used]] += 3
        np.save(root / "embed" / "logits.npy", logits)
        rows = pa.array(range(len(used)), pa.int64())
        used_ids = [ids[i] for i in used]
        images = {"row": rows, "id": used_ids, "label": pa.array(labels[used], pa.int64())}
        pq.write_table(pa.table(images), root / "embed" / "images.parquet")
        chance = rng.beta(0.6, 0.8, len(used))
        chosen = rng.random((len(used), self.epochs)) < chance[:, None]
        chosen |= not self.selects
        pq.write_table(
            pa.table(
                {
                    "row": rows,
                    "id": used_ids,
                    "predicted": pa.array(logits.argmax(1), pa.int64()),
                    "confidence": pa.array(chance, pa.float32()),
                    "held_out": pa.array(np.zeros(len(used), bool)),
                    "times_kept": pa.array(chosen.sum(1), pa.int32()),
                    "kept": pa.array(chosen.tolist(), pa.list_(pa.bool_())),
                }
            ),
            root / "distill" / "selection.parquet",
        )
        self._reports(root / "reports", rng)
        return ReportSources(
            crawl=root / "crawl",
            dedup=root / "dedup" / "images.parquet",
            embed=root / "embed",
            selection=root / "distill" / "selection.parquet",
            curves=root / "reports" / "distill.csv",
            metrics=root / "reports" / "metrics.json",
            predictions=root / "reports" / "predictions.csv",
        )

    def _crawl(self, folder: Path, data: list[bytes], ids: list[str], labels: np.ndarray) -> None:
        for shard in range(0, len(data), self.shard):
            part = slice(shard, shard + self.shard)
            table = pa.table(
                {
                    "id": ids[part],
                    "image": pa.array(
                        [{"bytes": content, "path": None} for content in data[part]],
                        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                    ),
                    "label": pa.array(labels[part], pa.int64()),
                }
            )
            name = f"images-{shard // self.shard:05d}.parquet"
            pq.write_table(table, folder / name, row_group_size=10)
        lost = [reason for reason, number in self.lost.items() for _ in range(number)]
        rows = []
        for i, reason in enumerate(["stored"] * len(data) + lost):
            label = i % len(self.class_names)
            stored = reason == "stored"
            page = (f"https://host{i % 7}.example/page/{i}?a=1&b=2", HOSTILE_URL)[i % 5 == 0]
            rows.append(
                {
                    "label": label,
                    "class": self.class_names[label],
                    "url": page if i % 2 else f"https://img.example/{i}.jpg",
                    "page_url": page,
                    "title": HOSTILE_TITLE if i % 4 == 0 else f"A picture \u202eof number {i}",
                    "outcome": reason,
                    "id": ids[i] if stored else None,
                }
            )
        pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")

    def _reports(self, folder: Path, rng: np.random.Generator) -> None:
        with (folder / "distill.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            speed = ("agreement", "images_per_s", "seconds")
            out.writerow(["epoch", "lr", "alpha", "kept", "loss", *TERMS, *speed])
            for epoch in range(self.epochs):
                at = epoch / max(1, self.epochs)
                feature, contrast = np.exp(-3 * at) + rng.uniform(0, 0.05), 5.2 - at
                row = [0.05 if at < 0.6 else 0.005, max(0, 1 - at / 0.75) ** 2, 0.3 + 0.4 * at]
                row += [feature + contrast / 1000, feature, contrast]
                row += ["" if epoch == 1 else 0.95 - 0.4 * np.exp(-4 * at), 9000, 1.5]
                out.writerow([epoch + 1, *row])
        names, accuracy = self.class_names, {}
        with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["actual", "student", "teacher"])
            for label, name in enumerate(names):
                each = self.test_images // len(names)
                right = {"student": 0, "teacher": 0}
                for _ in range(each):
                    guesses = []
                    for who, skill in (("student", 0.9), ("teacher", 0.96)):
                        good = rng.random() < skill - 0.012 * (label % 10)
                        other = (label + 1 + int(rng.integers(0, 4)) ** 2) % len(names)
                        guess = label if good else other
                        right[who] += guess == label
                        guesses.append(names[guess])
                    out.writerow([name, *guesses])
                accuracy[name] = {"images": each} | {k: v / each for k, v in right.items()}

        def model(who: str, architecture: str, parameters: int) -> dict:
            mean = float(np.mean([row[who] for row in accuracy.values()]))
            margin = 1.96 * (mean * (1 - mean) / self.test_images) ** 0.5
            return {
                "architecture": architecture,
                "accuracy": mean,
                "accuracy_low": max(0.0, mean - margin),
                "accuracy_high": min(1.0, mean + margin),
                "parameters": parameters,
            }

        teacher, student = model("teacher", "resnet20", 272474), model("student", "resnet8", 78042)
        metrics = {
            "test_set": "demo",
            "test_images": self.test_images,
            "class_names": names,
            "teacher": teacher,
            "student": student,
            "gap_points": 100 * (teacher["accuracy"] - student["accuracy"]),
            "agreement": 0.87,
            "per_class": [{"name": name} | row for name, row in accuracy.items()],
        }
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


@pytest.fixture
def sources(tmp_path: Path) -> ReportSources:
    """The small run, written."""
    return World().write(tmp_path)
