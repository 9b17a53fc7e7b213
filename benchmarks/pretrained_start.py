"""A student that starts from pretrained weights against a random start, at equal steps.

    python -m benchmarks.pretrained_start --labelled TINY/train-00000-of-00002.parquet \\
        --web TINY/train-00001-of-00002.parquet --test CIFAR10/test.parquet \\
        --teacher resnet56.safetensors --architecture resnet56 --folder work --seeds 0 1 2

The student's network is trained first, on `--labelled` images of objects: no animal and no vehicle,
of which the ten classes of CIFAR-10 consist. Then it is distilled by KD³ from unlabelled images of
`--web`, which the pretraining has not seen, once with these weights and once without, with the same
seed and parameters. Nothing is chosen by the test images, which are read at the end alone.

Runs are kept in runs.jsonl of `--folder`: the same command goes on where it stopped, and several of
them may share a folder, each with seeds or starts of its own. `--smoke` is a run of seconds on
drawn images, which says that all of it works and nothing else.
"""

import argparse
import fcntl
import hashlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.ablation import interval
from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.distill.loader import Resident
from kd3_pipeline.distill.run import distill
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill, Teacher
from kd3_pipeline.store import replacing
from kd3_pipeline.teacher.train import train
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import load_teacher

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIRST_OBJECT = "n02600000"  # in WordNet's order the animals of ImageNet come before
VEHICLES = {
    *("beach wagon", "bullet train", "convertible", "freight car", "go-kart", "gondola"),
    *("jinrikisha", "lawn mower", "lifeboat", "limousine", "moving van", "police van"),
    *("school bus", "sports car", "tractor", "trolleybus", "projectile"),
}
HELD_OUT = 0.1
STARTS = ("random", "pretrained")


class Task(NamedTuple):
    """Images uint8 [n, S, S, 3] and labels int64 [n] of all parts, and the teacher."""

    labelled: tuple[np.ndarray, np.ndarray]
    web: np.ndarray
    test: tuple[np.ndarray, np.ndarray]
    teacher: Network
    config: ModelConfig


def main() -> None:
    args = _arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    section = Distill(
        student=args.student,
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        precision=args.precision,
        held_out=HELD_OUT,
    )
    task = _drawn(args) if args.smoke else _kept(args)
    runs = args.folder / "runs.jsonl"
    settings = {"student": args.student, "epochs": args.epochs, "batch": args.batch_size}
    settings |= {
        "precision": args.precision,
        "lr": args.lr,
        "images": len(task.web),
        "pretraining": args.pretraining,
    }
    for seed in args.seeds:
        for start in args.starts:
            wanted = settings | {"seed": seed, "start": start}
            if any(wanted.items() <= row.items() for row in _rows(runs)):
                continue
            weights = _pretrained(args, task) if start == "pretrained" else ""
            changes = {"seed": seed, "student_weights": str(weights)}
            found = _run(section.model_copy(update=changes), task, args.folder)
            with runs.open("a", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(json.dumps(wanted | found) + "\n")
    print("\n".join(table([row for row in _rows(runs) if settings.items() <= row.items()])))


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Both starts by seed in percent, and the gain of the pretrained one with its interval."""
    found = {(row["seed"], row["start"]): row for row in rows}
    seeds = sorted({seed for seed, _ in found if all((seed, one) in found for one in STARTS)})
    lines = ["| | " + " | ".join(f"seed {seed}" for seed in seeds) + " | gain |"]
    lines.append("|---" * (len(seeds) + 2) + "|")
    for name in ("accuracy", "agreement"):
        values = {one: [100 * found[seed, one][name] for seed in seeds] for one in STARTS}
        gains = [after - before for before, after in zip(*values.values(), strict=True)]
        for one in STARTS:
            cells = " | ".join(f"{value:.1f}" for value in values[one])
            gain = interval(gains) if one == "pretrained" and gains else ""
            lines.append(f"| {name}, {one} start | {cells} | {gain} |")
    return lines


def _run(section: Distill, task: Task, folder: Path) -> dict[str, Any]:
    """One distillation, and what it came to."""
    begun = time.monotonic()
    web = _web(task, folder)
    place = folder / f"run-{section.seed}-{bool(section.student_weights)}"
    precision = getattr(torch, section.precision)
    objective, trained = distill(
        section, web, task.teacher, task.config, precision, place, no_progress
    )
    built = {"name": section.student, "num_classes": len(task.config.class_names)}
    network, _ = objective.deployed(built, task.config.architecture)
    pixels, labels = task.test
    logits = logits_of(network.eval(), pixels, MEAN, STD, 256, CPU)
    return {
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "agreement": trained.curves[-1]["agreement"],
        "first_agreement": trained.curves[0]["agreement"],
        "steps": section.epochs * (len(web.train) // section.batch_size),
        "seconds": round(time.monotonic() - begun),
    }


def _web(task: Task, folder: Path) -> WebImages:
    """The web images with the teacher's logits, which are asked for once."""
    ids = [hashlib.sha256(image.tobytes()).hexdigest() for image in task.web]
    path = folder / f"logits-{hashlib.sha256(''.join(ids).encode()).hexdigest()[:12]}.npy"
    if not path.exists():
        np.save(path, logits_of(task.teacher, task.web, MEAN, STD, 256, CPU))
    rows = torch.arange(len(ids))
    held = round(HELD_OUT * len(ids))
    logits = torch.from_numpy(np.load(path))
    return WebImages(ids, Resident(task.web, CPU), logits, rows[held:], rows[:held])


def _pretrained(args: argparse.Namespace, task: Task) -> Path:
    """File of the student's network, trained on the labelled images."""
    path = args.folder / f"{args.student}-{args.pretraining}.safetensors"
    if not path.exists():
        pixels, labels = task.labelled
        section = Teacher(
            mean=MEAN, std=STD, epochs=args.pretraining, batch_size=args.batch_size, lr=0.1
        )
        torch.manual_seed(1000)
        network = build(args.student, int(labels.max()) + 1)
        share = train(
            network, pixels, labels, section, CPU, getattr(torch, args.precision), no_progress
        )
        print(f"pretrained on {len(labels)} images of {labels.max() + 1} classes: {share:.1%}")
        save_file({name: value.clone() for name, value in network.state_dict().items()}, path)
    return path


def _read(args: argparse.Namespace) -> Task:
    names = _class_names(args.labelled)
    number, word = zip(*(name.split(" ", 1) for name in names), strict=True)
    objects = [
        label
        for label in range(len(names))
        if number[label] > FIRST_OBJECT and word[label].split(",")[0] not in VEHICLES
    ]
    network, config = _teacher(args)
    labelled = _images(args.labelled, args.labelled_images, objects)
    new = {label: place for place, label in enumerate(objects)}
    labels = np.array([new[label] for label in labelled[1].tolist()])
    web, _ = _images(args.web, args.images, None)
    return Task((labelled[0], labels), web, _images(args.test, 0, None), network, config)


def _teacher(args: argparse.Namespace) -> tuple[Network, ModelConfig]:
    classes = _class_names(args.test)
    network = build(args.architecture, len(classes))
    weights = read_weights(args.teacher)
    load_teacher(network, weights, 32)
    network.eval().requires_grad_(False)
    architecture = {"name": args.architecture, "num_classes": len(classes)}
    config = ModelConfig(architecture, classes, list(MEAN), list(STD), 32, "a file")
    return network, config


def _kept(args: argparse.Namespace) -> Task:
    """As `_read`, from what an earlier run has decoded."""
    path = args.folder / f"images-{args.images}-{args.labelled_images}.npz"
    parts = ("labelled", "labels", "web", "test", "truth")
    if not path.exists():
        task = _read(args)
        arrays = (*task.labelled, task.web, *task.test)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **dict(zip(parts, arrays, strict=True)))
        return task
    with np.load(path) as file:
        labelled, labels, web, test, truth = (file[name] for name in parts)
    network, config = _teacher(args)
    return Task((labelled, labels), web, (test, truth), network, config)


def _images(path: Path, count: int, labels: list[int] | None) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` images of these labels (0, None: all), of a side of 32, and the labels."""
    table = pq.read_table(path, columns=["image", "label"])
    rows = [
        row
        for row, label in enumerate(table["label"].to_pylist())
        if labels is None or label in labels
    ]
    table = table.take(rows[: count or None])
    pixels = [
        np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))
        for image in table["image"].to_pylist()
    ]
    return np.stack(pixels), table["label"].to_numpy()


def _class_names(path: Path) -> list[str]:
    metadata = pq.read_schema(path).metadata[b"huggingface"]
    return json.loads(metadata)["info"]["features"]["label"]["names"]


def _drawn(args: argparse.Namespace) -> Task:
    """Drawn images of a side of 16, and a teacher that saw some of them."""
    parts = [original_images("train", args.images, 16, seed) for seed in (0, 1, 2)]
    torch.manual_seed(0)
    teacher = build(args.student, 10)
    section = Teacher(mean=MEAN, std=STD, epochs=1, batch_size=args.batch_size)
    train(teacher, *parts[0], section, CPU, torch.float32, no_progress)
    teacher.eval().requires_grad_(False)
    architecture = {"name": args.student, "num_classes": 10}
    config = ModelConfig(
        architecture, list("abcdefghij"), list(MEAN), list(STD), 16, "drawn images"
    )
    return Task(parts[1], parts[2][0], parts[0], teacher, config)


def _rows(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--labelled", "--web", "--test", "--teacher"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--architecture", default="resnet56")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--labelled-images", type=int, default=20000)
    parser.add_argument("--pretraining", type=int, default=5, help="epochs on the labelled images")
    parser.add_argument("--images", type=int, default=4000, help="of the web")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        small = {"images": 48, "epochs": 1, "batch_size": 16, "pretraining": 1, "seeds": [0, 1]}
        vars(args).update(small)
    elif missing := [at for at in ("labelled", "web", "test", "teacher") if not getattr(args, at)]:
        parser.error(f"needs --{', --'.join(missing)} (or --smoke)")
    return args


if __name__ == "__main__":
    main()
