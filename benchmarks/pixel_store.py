"""What a pixel store loses and takes: raw, JPEG and WebP, by a teacher's answers to real images.

    python -m benchmarks.pixel_store --data PATH/pacs-dog-horse/train.parquet   # ten minutes
    python -m benchmarks.pixel_store --data FILE --images 40 --epochs 0         # a look

Images of a Parquet file (columns `image`, `label`, and `domain` if it is there: each pair of label
and domain is a class) become squares of --size pixels, of which the teacher takes the centre of
--side. A quarter is for measuring; on the others the teacher is trained here, from random weights,
unless --teacher names the folder of one (models/teacher, whose classes need not be those).

Bytes and pictures: of each encoder, with its time of one thread's processor. Loss: the share of
images with the teacher's class of before, the mean difference of a logit as a share of the logits'
deviation, and the accuracy (of a teacher that was trained here).
"""

import argparse
import io
import json
import math
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.limits import processor
from kd3_pipeline.console import no_progress
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.frames import to_square
from kd3_pipeline.images import decode
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Teacher
from kd3_pipeline.pixelstore import decode_jpeg, encode_jpeg
from kd3_pipeline.teacher.train import train

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CPU = torch.device("cpu")
Encode = Callable[[np.ndarray], bytes]


def pillow(kind: str, **options: Any) -> Encode:
    def encode(pixels: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind, **options)
        return out.getvalue()

    return encode


ENCODERS: dict[str, Encode | None] = {
    "raw": None,
    **{f"jpeg {q}": (lambda pixels, q=q: encode_jpeg(pixels, q)) for q in (75, 85, 90, 95)},
    "jpeg 90, half colour": pillow("JPEG", quality=90, subsampling=2),
    **{f"webp {q}": pillow("WEBP", quality=q) for q in (85, 90, 95)},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--images", type=int, default=0, help="to read, drawn; 0: all")
    options.add_argument("--teacher", type=Path, help="folder of a model")
    options.add_argument("--architecture", default="torchvision/mobilenet_v3_small")
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--side", type=int, default=224)
    options.add_argument("--size", type=int, default=256)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    pixels, labels, names = read(given.data, given.images, given.size, given.seed)
    measured = np.arange(len(pixels)) % 4 == 0
    network, config = teacher(given, pixels[~measured], labels[~measured], names)
    shown, known = pixels[measured], None if given.teacher else labels[measured]
    rows = arms(shown, network, config, known)
    found = {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "torchvision", "pillow")},
        "images": len(shown),
        "trained_on": 0 if given.teacher else int((~measured).sum()),
        "teacher": str(config.architecture["name"]),
        "arms": rows,
    }
    print(markdown(given, found))
    text = json.dumps({"options": vars(given)} | found, indent=2, default=str)
    print(f"\n```json\n{text}\n```")
    if given.json:
        given.json.write_text(text + "\n")


def read(data: Path, count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Squares uint8 [N, size, size, 3] in an order that is drawn, labels int64 [N], and names."""
    table = pq.read_table(data)
    order = np.random.default_rng(seed).permutation(table.num_rows)[: count or None]
    columns = [name for name in ("label", "domain") if name in table.column_names]
    words = [" ".join(str(table[name][row]) for name in columns) for row in order.tolist()]
    names = sorted(set(words))
    labels = np.array([names.index(word) for word in words], np.int64)
    images = table["image"].combine_chunks().field("bytes")
    squares = (to_square(decode(images[row].as_py()), size, "crop") for row in order.tolist())
    return np.stack(list(squares)), labels, names


def centre(pixels: np.ndarray, side: int) -> np.ndarray:
    margin = (pixels.shape[1] - side) // 2
    return pixels[:, margin : margin + side, margin : margin + side]


def teacher(
    given: argparse.Namespace, pixels: np.ndarray, labels: np.ndarray, names: list[str]
) -> tuple[Network, ModelConfig]:
    """That of a folder, or one trained on these images."""
    if given.teacher:
        return load_model(given.teacher, CPU)
    torch.manual_seed(given.seed)
    network = build(given.architecture, len(names)).eval()
    config = ModelConfig(
        {"name": given.architecture, "num_classes": len(names)}, names, MEAN, STD, given.side, ""
    )
    if given.epochs:
        section = Teacher(
            epochs=given.epochs,
            batch_size=32,
            lr=0.05,
            mean=MEAN,
            std=STD,
            input_size=given.side,
            seed=given.seed,
        )
        shown = np.ascontiguousarray(centre(pixels, given.side))
        train(network, shown, labels, section, CPU, torch.bfloat16, told)
    return network, config


def told(n: int = 1, note: str = "") -> None:
    if note:
        print(note, flush=True)


def arms(
    pixels: np.ndarray, network: Network, config: ModelConfig, labels: np.ndarray | None
) -> list[dict[str, Any]]:
    """Figures of each encoder on uint8 [N, S, S, 3]."""
    rows = []
    before = answers(pixels, network, config)
    spread = before.std()
    for name, encode in ENCODERS.items():
        after, row = pixels, {"store": name, "bytes": float(pixels[0].nbytes)}
        if encode:
            after, figures = through(encode, pixels)
            row |= figures
        logits = answers(after, network, config) if encode else before
        seen = logits.argmax(axis=1)
        row["same_class"] = float((seen == before.argmax(axis=1)).mean())
        row["logit_change"] = float(np.abs(logits - before).mean() / spread)
        if labels is not None:
            row["accuracy"] = float((seen == labels).mean())
        rows.append(row)
    return rows


def through(encode: Encode, pixels: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """The images encoded and decoded again, and what that takes and loses."""
    started = time.thread_time()
    files = [encode(image) for image in pixels]
    middle = time.thread_time()
    after = np.stack([decoded(data, pixels.shape[1]) for data in files])
    ended = time.thread_time()
    error = np.mean(
        [np.square(a.astype(float) - b).mean() for a, b in zip(pixels, after, strict=True)]
    )
    return after, {
        "bytes": float(np.mean([len(data) for data in files])),
        "encode_ms": 1000 * (middle - started) / len(files),
        "decode_ms": 1000 * (ended - middle) / len(files),
        "psnr": 10 * math.log10(255**2 / error),
    }


def decoded(data: bytes, side: int) -> np.ndarray:
    if data[:2] == b"\xff\xd8":
        return decode_jpeg(data, side)
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def answers(pixels: np.ndarray, network: Network, config: ModelConfig) -> np.ndarray:
    shown = centre(pixels, config.input_size)
    return logits_of(network, shown, config.mean, config.std, 32, CPU, no_progress)


def markdown(given: argparse.Namespace, found: dict[str, Any]) -> str:
    """The table."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    trained = f"trained on {found['trained_on']:,} others" if found["trained_on"] else "given"
    lines = [
        f"{found['processor']}; {versions}; {found['images']:,} images of {given.data.parent.name},"
        f" {given.size} pixels; teacher {found['teacher']}, {trained}, sees {given.side}; seed"
        f" {given.seed}",
        "",
        "| store | bytes an image | 400,000 | encode ms | decode ms | PSNR | same class"
        " | logits off | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["arms"]:
        times = [f"{row[key]:.2f}" if key in row else "" for key in ("encode_ms", "decode_ms")]
        cells = [
            row["store"],
            f"{row['bytes']:,.0f}",
            f"{400_000 * row['bytes'] / 1e9:.1f} GB",
            *times,
            f"{row['psnr']:.1f}" if "psnr" in row else "",
            f"{row['same_class']:.2%}",
            f"{row['logit_change']:.2%}",
            f"{row['accuracy']:.2%}" if "accuracy" in row else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
