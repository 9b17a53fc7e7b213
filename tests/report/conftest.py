"""A small run: every file that the report reads, with hostile text in it."""

import csv
import hashlib
import io
import itertools
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
    leaked: int = 3
    contaminated: int = 0
    robustness: bool = True
    mistakes: int = 30
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
        for name in ("crawl", "dedup", "embed", "distill", "evaluate", "reports"):
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
        reasons = np.full(count, "", object)
        reasons[count - self.near_duplicates :] = "near-duplicate"
        reasons[count - self.near_duplicates - self.leaked : count - self.near_duplicates] = (
            "leaked"
        )
        kept, leaked = reasons == "", np.flatnonzero(reasons == "leaked")
        twin = reasons == "near-duplicate"
        twin[leaked[1:]] = True  # the first shows a test image, the others look like it
        of = [
            leaked[0] if reason == "leaked" else i % kept.sum() for i, reason in enumerate(reasons)
        ]
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
                    "reason": reasons.tolist(),
                    "group": pa.array(range(count), pa.int64()),
                    "duplicate_of": pa.array(
                        [ids[of[i]] if twin[i] else None for i in range(count)], pa.string()
                    ),
                    "distance": pa.array(
                        [i % 9 if twin[i] else None for i in range(count)], pa.int32()
                    ),
                    "similarity": pa.array(
                        [0.86 + i % 9 / 100 if twin[i] else None for i in range(count)],
                        pa.float32(),
                    ),
                    "test_image": pa.array(
                        [41 if reason == "leaked" else None for reason in reasons], pa.int64()
                    ),
                }
            ),
            root / "dedup" / "images.parquet",
        )
        if self.leaked:
            leak = {
                "id": [ids[leaked[0]]],
                "test_image": pa.array([41], pa.int64()),
                "similarity": pa.array([0.93], pa.float32()),
                "picture": pa.array([draw(41, 1, "PNG", (32, 32))], pa.binary()),
            }
            pq.write_table(pa.table(leak), root / "dedup" / "leaks.parquet")
        used = np.flatnonzero(kept)
        logits = rng.normal(size=(len(used), classes)).astype(np.float32)
        logits[np.arange(len(used)), labels[used]] += 2
        np.save(root / "embed" / "logits.npy", logits)
        features = rng.normal(size=(len(used), 16)) + 4 * np.eye(16)[labels[used] % 16]
        np.save(root / "embed" / "features.npy", features.astype(np.float16))
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
        falling = np.linspace(0.95, 0.4, max(1, self.epochs))[: self.epochs * self.selects]
        limits = [(at, label, of) for at, of in enumerate(falling, 1) for label in range(classes)]
        epochs, known, values = zip(*limits, strict=True) if limits else ((), (), ())
        pq.write_table(
            pa.table(
                {
                    "epoch": pa.array(epochs, pa.int32()),
                    "label": pa.array(known, pa.int64()),
                    "threshold": pa.array(values, pa.float32()),
                }
            ),
            root / "distill" / "thresholds.parquet",
        )
        self._reports(root / "reports", rng)
        self._mistakes(root / "evaluate" / "mistakes.parquet")
        return ReportSources(
            crawl=root / "crawl",
            dedup=root / "dedup" / "images.parquet",
            leaks=root / "dedup" / "leaks.parquet",
            embed=root / "embed",
            selection=root / "distill" / "selection.parquet",
            thresholds=root / "distill" / "thresholds.parquet",
            curves=root / "reports" / "distill.csv",
            metrics=root / "reports" / "metrics.json",
            predictions=root / "reports" / "predictions.csv",
            corruptions=root / "reports" / "corruptions.csv",
            mistakes=root / "evaluate" / "mistakes.parquet",
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
                    "licence": ("", "CC BY 4.0", HOSTILE_TITLE)[i % 3],
                    "engine": "demo",
                    "query": f"{self.class_names[label]} photo",
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
            limits = ["threshold_low", "threshold_mean"]
            out.writerow(["epoch", "lr", "alpha", "kept", *limits, "loss", *TERMS, *speed])
            for epoch in range(self.epochs):
                at = epoch / max(1, self.epochs)
                feature, contrast = np.exp(-3 * at) + rng.uniform(0, 0.05), 5.2 - at
                row = [0.05 if at < 0.6 else 0.005, max(0, 1 - at / 0.75) ** 2, 0.3 + 0.4 * at]
                row += [0.2 + 0.1 * at, 0.9 - 0.3 * at] if self.selects else ["", ""]
                row += [feature + contrast / 1000, feature, contrast]
                row += ["" if epoch == 1 else 0.95 - 0.4 * np.exp(-4 * at), 9000, 1.5]
                out.writerow([epoch + 1, *row])
        names, accuracy = self.class_names, {}
        with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            sure = ["student_confidence", "teacher_confidence"]
            out.writerow(["actual", "student", "teacher", *sure])
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
                    out.writerow([name, *guesses, "0.8123", "0.9012"])
                accuracy[name] = {"images": each} | {k: v / each for k, v in right.items()}

        with (folder / "corruptions.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["corruption", "severity", "teacher", "student"])
            for kind in ("gaussian_noise", "fog") if self.robustness else ():
                out.writerows([kind, at, 0.9 - 0.05 * at, 0.8 - 0.1 * at] for at in range(1, 6))
        values = json.dumps(self._metrics(accuracy))
        (folder / "metrics.json").write_text(values, encoding="utf-8")

    def _metrics(self, accuracy: dict[str, dict]) -> dict:
        def network(who: str, architecture: str, parameters: int) -> dict:
            mean = float(np.mean([row[who] for row in accuracy.values()]))
            margin = 1.96 * (mean * (1 - mean) / self.test_images) ** 0.5
            few = len(self.class_names) < 6
            return {
                "architecture": architecture,
                "accuracy": mean,
                "accuracy_low": max(0.0, mean - margin),
                "accuracy_high": min(1.0, mean + margin),
                "top5": None if few else 0.97,
                "top5_low": None if few else 0.95,
                "top5_high": None if few else 0.99,
                "nll": 0.4321,
                "brier": 0.2109,
                "ece": 0.0765,
                "parameters": parameters,
                "macs": 150 * parameters,
                "megabytes": parameters / 250_000,
                "latency_ms": [
                    {"device": "cpu", "threads": 1, "batch": batch, "p50": batch, "p95": 2 * batch}
                    for batch in (1, 128)
                ],
            }

        teacher = network("teacher", "resnet20", 272474)
        student = network("student", "resnet8", 78042)
        tempered = {
            "temperature": 1.317,
            "nll_tempered": 0.3987,
            "brier_tempered": 0.1998,
            "ece_tempered": 0.0234,
        }
        gap = 100 * (teacher["accuracy"] - student["accuracy"])
        edges = [at / 15 for at in range(16)]
        bins = [
            {
                "low": low,
                "high": high,
                "images": 6 * at,
                "confidence": (low + high) / 2 if at else None,
                "accuracy": low if at else None,
            }
            for at, (low, high) in enumerate(itertools.pairwise(edges))
        ]
        styles = [{"name": "sketch", "images": 40, "teacher": 0.7, "student": 0.55}]
        return {
            "test_set": "demo",
            "test_images": self.test_images,
            "class_names": self.class_names,
            "teacher": teacher,
            "student": student | tempered,
            "gap_points": gap,
            "gap_low": gap - 3.5,
            "gap_high": gap + 3.5,
            "only_teacher_right": 14,
            "only_student_right": 5,
            "mcnemar_p": 0.0636,
            "agreement": 0.87,
            "agreement_teacher_right": 0.912,
            "agreement_teacher_wrong": None,
            "kl": 0.2468,
            "per_class": [{"name": name} | row for name, row in accuracy.items()],
            "leaked": self.leaked or None,
            "contaminated": self.contaminated,
            "calibration": bins,
            "calibration_tempered": bins,
            "styles": styles if self.robustness else [],
            "corruption_error": {"teacher": 0.25, "student": 0.5, "relative": 201.4}
            if self.robustness
            else None,
        }

    def _mistakes(self, path: Path) -> None:
        names = self.class_names
        rows = [
            {
                "image": {"bytes": draw(i, i % len(names), "PNG", (32, 32)), "path": None},
                "actual": names[i % len(names)],
                "student": names[(i + 1) % len(names)],
                "teacher": names[i % len(names) if i % 3 else (i + 1) % len(names)],
                "student_confidence": 1 - i / 100,
                "teacher_confidence": 0.9,
            }
            for i in range(self.mistakes)
        ]
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def sources(tmp_path: Path) -> ReportSources:
    """The small run, written."""
    return World().write(tmp_path)
