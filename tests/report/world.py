"""Small run: every file that the report reads, with hostile text in it."""

import hashlib
import io
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from kd3_pipeline import selections, verdicts
from kd3_pipeline.embeddings import FEATURES, LOGITS, PIXELS, write_images
from kd3_pipeline.manifest import Candidate, Fetched, manifest
from kd3_pipeline.report.page import ReportFiles
from kd3_pipeline.store import IMAGE_COLUMNS, shard_path, write_csv, write_json, write_table

HOSTILE_CLASS = "<script>alert(1)</script>"
HOSTILE_TITLE = '"><img src=x onerror=alert(1)>'
HOSTILE_URL = "javascript:alert(1)"
TERMS = ("feature", "contrast")
SHARD = 25  # images in one
MOMENTS = {
    "error_before": 0.5421,
    "error_after": 0.3123,
    "effective": 17,
    "penalty": 0.01,
    "largest_weight": 2.0,
    "moments": 128,
    "left_out": 3,
    "directions": 6,
    "measured_on": 51,
    "layers": [
        {"layer": "bn1", "before": 0.61, "after": 0.29},
        {"layer": '<b>"layer1"</b>', "before": 0.47, "after": 0.33},
    ],
}


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
    """A run to write; `write` returns the paths."""

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
    macs: dict[str, int] = field(
        default_factory=lambda: {"teacher": 40_813_184, "student": 12_006_400}
    )
    slower: dict[str, float] = field(default_factory=lambda: {"teacher": 2.0, "student": 1.0})
    warnings: list[str] = field(default_factory=list)
    embed_warnings: list[str] = field(default_factory=list)
    scores: bool = True
    moments: bool = False
    pictures: dict[int, bytes] = field(default_factory=dict)
    size: tuple[int, int] = (64, 48)

    def write(self, root: Path) -> ReportFiles:
        """Write every file below `root`."""
        rng = np.random.default_rng(0)
        labels = np.arange(self.images) % len(self.class_names)
        data = [
            self.pictures.get(at)
            or draw(at, int(label), ("JPEG", "PNG", "WEBP", "GIF")[at % 4], self.size)
            for at, label in enumerate(labels)
        ]
        ids = [hashlib.sha256(content + b"%d" % at).hexdigest() for at, content in enumerate(data)]
        self._crawl(root / "crawl", data, ids, labels)
        kept = self._dedup(root / "dedup", ids, labels)
        self._distill(root, [ids[at] for at in kept], labels[kept], rng)
        self._evaluate(root, rng)
        write_json(root / "reports" / "crawl.json", self._summary())
        embedded = {"normalisation": "fits", "images": len(kept), "warnings": self.embed_warnings}
        if self.moments:
            embedded["moments"] = MOMENTS
        write_json(root / "reports" / "embed.json", embedded)
        return ReportFiles(
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
            harvest=root / "reports" / "crawl.json",
            embedded=root / "reports" / "embed.json",
        )

    def _crawl(self, folder: Path, data: list[bytes], ids: list[str], labels: np.ndarray) -> None:
        folder.mkdir(parents=True)
        for shard, start in enumerate(range(0, len(data), SHARD)):
            part = slice(start, start + SHARD)
            images = [{"bytes": content, "path": None} for content in data[part]]
            columns = {"id": ids[part], "label": labels[part]}
            columns |= {"image": pa.array(images, IMAGE_COLUMNS["image"])}
            pq.write_table(pa.table(columns), shard_path(folder, shard), row_group_size=10)
        found: dict[Candidate, Fetched] = {}
        lost = [reason for reason, count in self.lost.items() for _ in range(count)]
        for at, outcome in enumerate(["ok"] * len(data) + lost):
            name = self.class_names[at % len(self.class_names)]
            page = HOSTILE_URL if at % 5 == 0 else f"https://host{at % 7}.example/page/{at}?a=1&b=2"
            candidate = Candidate(
                label=at % len(self.class_names),
                class_name=name,
                engine="demo",
                query=f"{name} photo",
                rank=at,
                url=page if at % 2 else f"https://img.example/{at}.jpg",
                page_url=page,
                title=HOSTILE_TITLE if at % 4 == 0 else f"A picture \u202eof number {at}",
                licence=("", "CC BY 4.0", HOSTILE_TITLE)[at % 3],
            )
            id = ids[at] if outcome == "ok" else None
            found[candidate] = Fetched(candidate.url, outcome, id=id)
        write_table(folder / "manifest.parquet", manifest(list(found), found))

    def _summary(self) -> dict:
        """The crawl's: the first class is full, the others are not."""
        classes = [
            {
                "name": name,
                "stored": 20 // (at + 1),
                "wanted": 20,
                "results": 31,
                "why": at and f"the engine has no more {HOSTILE_TITLE}",
                "queries": [
                    {"query": f"{name} photo", "variant": "", "results": 30, "ended": "no more"},
                    {"query": name, "variant": "synonym <b>", "results": 1, "ended": HOSTILE_TITLE},
                ],
            }
            for at, name in enumerate(self.class_names)
        ]
        host = {"images": 338, "why": "429 <i>", "again_at": "2026-11-29T12:00:00+00:00"}
        return {
            "candidates": 72,
            "stored": 36,
            "outcomes": {"stored": 36, "blocked": 4, "forgotten": 3},
            "classes": [one | {"why": one["why"] or ""} for one in classes],
            "later": {"images": 338, "pages": 2, "hosts": {HOSTILE_TITLE: host}},
            "empty": [HOSTILE_CLASS],
            "signals": {"seen": {"content-signal": 40, "c2pa": 2}, "refused": {"c2pa": 1}},
            "blocked": 4,
            "refused": f"contact missing {HOSTILE_TITLE}",
            "coverage": {
                "rounds": [
                    {"asked_more": 30, "new_images": 12},
                    {"asked_more": 8, "new_images": 3},
                ],
                "ended": "nothing new came <b>",
                "classes": [
                    {
                        "name": "circle",
                        "stored": 9,
                        "teacher_says": 9,
                        "asked_more": 20,
                        "starved": False,
                    },
                    {
                        "name": HOSTILE_CLASS,
                        "stored": 9,
                        "teacher_says": 2,
                        "asked_more": 18,
                        "starved": True,
                    },
                    {
                        "name": "star",
                        "stored": 9,
                        "teacher_says": None,
                        "asked_more": 0,
                        "starved": False,
                    },
                ],
            },
        }

    def _dedup(self, folder: Path, ids: list[str], labels: np.ndarray) -> np.ndarray:
        """Positions of the images that are kept: the first ones."""
        end = self.images - self.near_duplicates
        first_leak = end - self.leaked
        rows = []
        for at, (id, label) in enumerate(zip(ids, labels.tolist(), strict=True)):
            reason = "" if at < first_leak else "leaked" if at < end else "near-duplicate"
            row = dict.fromkeys(verdicts.SCHEMA.names) | {"id": id, "label": label}
            row |= {"shard": at // SHARD, "row": at % SHARD}
            row |= {"kept": not reason, "reason": reason}
            # the first leak shows a test image, the others look like it
            if (reason and at != first_leak) or reason == "near-duplicate":
                of = first_leak if reason == "leaked" else at % first_leak
                row |= {"duplicate_of": ids[of], "distance": at % 9}
                row |= {"similarity": 0.86 + at % 9 / 100}
            if reason == "leaked":
                row["test_image"] = 41
            rows.append(row)
        table = pa.Table.from_pylist(rows, schema=verdicts.SCHEMA)
        write_table(folder / "images.parquet", table)
        if self.leaked:
            leak = {
                "id": [ids[first_leak]],
                "test_image": pa.array([41], pa.int64()),
                "similarity": pa.array([0.93], pa.float32()),
                "picture": pa.array([draw(41, 1, "PNG", (32, 32))], pa.binary()),
            }
            write_table(folder / "leaks.parquet", pa.table(leak))
        return np.arange(first_leak)

    def _distill(
        self, root: Path, ids: list[str], labels: np.ndarray, rng: np.random.Generator
    ) -> None:
        """What `embed` and `distill` leave of the images that were kept."""
        count, classes = len(ids), len(self.class_names)
        columns = {"row": pa.array(range(count), pa.int64()), "id": pa.array(ids)}
        columns["label"] = pa.array(labels, pa.int64())
        if self.scores:
            columns["off_topic"] = pa.array(np.linspace(1, 0, count), pa.float32())
            columns["redundant"] = pa.array(np.arange(count) % 5 == 0)
        if self.moments:
            columns["moment_weight"] = pa.array(np.linspace(0, 2, count), pa.float32())
        write_images(root / "embed", columns, self.class_names)
        logits = rng.normal(size=(count, classes)).astype(np.float32)
        logits[np.arange(count), labels] += 2
        np.save(root / "embed" / LOGITS, logits)
        features = rng.normal(size=(count, 16)) + 4 * np.eye(16)[labels % 16]
        np.save(root / "embed" / FEATURES, features.astype(np.float16))
        digits = np.arange(count)[:, None] // (1, 5, 25) % 5  # a colour that names the image
        pixels = np.broadcast_to((60 * digits).astype(np.uint8)[:, None, None], (count, 8, 8, 3))
        np.save(root / "embed" / PIXELS, pixels)
        confidence = rng.beta(0.6, 0.8, count)
        chosen = rng.random((count, self.epochs)) < confidence[:, None]
        chosen |= not self.selects
        selection = {
            "row": range(count),
            "id": ids,
            "predicted": logits.argmax(1),
            "confidence": confidence,
            "held_out": np.zeros(count, bool),
            "times_kept": chosen.sum(1),
            "kept": chosen.tolist(),
        }
        table = pa.table(selection, schema=selections.SCHEMA)
        write_table(root / "distill" / "selection.parquet", table)
        falling = np.linspace(0.95, 0.4, max(1, self.epochs))[: self.epochs * self.selects]
        limits = {
            "epoch": pa.array(np.repeat(np.arange(1, len(falling) + 1), classes), pa.int32()),
            "label": pa.array(np.tile(np.arange(classes), len(falling)), pa.int64()),
            "threshold": pa.array(np.repeat(falling, classes), pa.float32()),
        }
        write_table(root / "distill" / "thresholds.parquet", pa.table(limits))
        self._curves(root / "reports" / "distill.csv", rng)

    def _curves(self, path: Path, rng: np.random.Generator) -> None:
        columns = ["epoch", "lr", "alpha", "kept", "threshold_low", "threshold_mean", "loss"]
        columns += [*TERMS, "agreement", "images_per_s", "seconds"]
        rows = []
        for epoch in range(self.epochs):
            at = epoch / max(1, self.epochs)
            feature, contrast = np.exp(-3 * at) + rng.uniform(0, 0.05), 5.2 - at
            row = [0.05 if at < 0.6 else 0.005, max(0, 1 - at / 0.75) ** 2, 0.3 + 0.4 * at]
            row += [0.2 + 0.1 * at, 0.9 - 0.3 * at] if self.selects else [None, None]
            row += [feature + contrast / 1000, feature, contrast]
            row += [None if epoch == 1 else 0.95 - 0.4 * np.exp(-4 * at), 9000, 1.5]
            rows.append([epoch + 1, *row])
        write_csv(path, columns, rows)

    def _evaluate(self, root: Path, rng: np.random.Generator) -> None:
        accuracy = self._predictions(root / "reports" / "predictions.csv", rng)
        kinds = ("gaussian_noise", "fog") if self.robustness else ()
        write_csv(
            root / "reports" / "corruptions.csv",
            ["corruption", "severity", "teacher", "student"],
            ([kind, at, 0.9 - 0.05 * at, 0.8 - 0.1 * at] for kind in kinds for at in range(1, 6)),
        )
        write_json(root / "reports" / "metrics.json", self._metrics(accuracy))
        self._mistakes(root / "evaluate" / "mistakes.parquet")

    def _predictions(self, path: Path, rng: np.random.Generator) -> dict[str, dict]:
        """Images and both accuracies of each class."""
        names, accuracy, rows = self.class_names, {}, []
        each = self.test_images // len(names)
        for label, name in enumerate(names):
            right = {"student": 0, "teacher": 0}
            for _ in range(each):
                guesses = []
                for who, skill in (("student", 0.9), ("teacher", 0.96)):
                    good = rng.random() < skill - 0.012 * (label % 10)
                    other = (label + 1 + int(rng.integers(0, 4)) ** 2) % len(names)
                    guess = label if good else other
                    right[who] += guess == label
                    guesses.append(names[guess])
                rows.append([name, *guesses, "0.8123", "0.9012"])
            accuracy[name] = {"images": each} | {who: of / each for who, of in right.items()}
        sure = ["student_confidence", "teacher_confidence"]
        write_csv(path, ["actual", "student", "teacher", *sure], rows)
        return accuracy

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
                "cut": "map",
                "input_size": 32,
                "mean": [0.5, 0.45, 0.4],
                "std": [0.25, 0.2, 0.3],
                "commonest_class": self.class_names[0],
                "commonest_share": 0.36,
                "parameters": parameters,
                "macs": self.macs[who],
                "megabytes": parameters / 250_000,
                "latency_ms": [
                    {
                        "device": "cpu",
                        "threads": 1,
                        "batch": batch,
                        "p50": batch * self.slower[who],
                        "p95": 2 * batch * self.slower[who],
                    }
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
            "left_out": {"broken": 0, "unlabelled": 0, "other_class": 0},
            "classes_measured": len(self.class_names),
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
            "warnings": self.warnings,
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
            write_table(path, pa.Table.from_pylist(rows))
