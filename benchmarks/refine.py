"""Refined images of a project: what steps, rate, composition of batches and JPEG leave of a gap.

    dvc repro embed && python -m benchmarks.refine --images 2000

Every arm refines the same images; its distance is then that of batches from all over the crawl, by
the bytes that are stored. No label is read.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.embed.refine import (
    Remembering,
    batch_rows,
    corners_of,
    refine_batch,
    to_bytes,
)
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.norms import norms_to_match
from kd3_pipeline.params import Embed
from kd3_pipeline.pixels import normalise
from kd3_pipeline.pixelstore import decode_jpeg, encode_jpeg

CLASS = "8 steps, batches of one class each"
ARMS = {
    "8 steps": {"refine": 8},
    CLASS: {"refine": 8},
    "4 steps": {"refine": 4},
    "16 steps": {"refine": 16},
    "8 steps, rate 0.1": {"refine": 8, "refine_rate": 0.1},
    "8 steps, keep 0.5": {"refine": 8, "refine_keep": 0.5},
    "8 steps, batches of 64": {"refine": 8, "refine_batch": 64},
}
QUALITIES = (90, 75)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    options.add_argument("--device", default="auto")
    given = options.parse_args()
    device = resolve_device(given.device)
    network, config = load_model(Path("models/teacher"), device)
    embeddings = Embeddings.open(Path("data/embed"))
    rows = np.linspace(0, len(embeddings) - 1, min(given.images, len(embeddings))).astype(np.int64)
    pixels = np.array(embeddings.centre(config.input_size)[rows])
    answers = embeddings.logits[rows].argmax(axis=1)
    norms = norms_to_match(network, config.input_size, "embed.refine")
    precision = resolve_precision("auto", device)
    teacher = Remembering(network, norms, config.input_size, device, precision)
    print(f"{len(rows):,} images, {device.type}, {precision}, torch {torch.__version__}\n")
    print("| arm | distance | change (deviations) | same answer | mean confidence |")
    print("|---|---|---|---|---|")
    tell("untouched", pixels, pixels, teacher, config)
    for name in given.arms:
        section = Embed(**ARMS[name])
        batches = batch_rows(len(rows), section.refine_batch)
        if name == CLASS:
            batches = np.array_split(np.argsort(answers, kind="stable"), len(batches))
        found = refined(pixels, batches, teacher, config, section)
        tell(name, found, pixels, teacher, config)
        for quality in QUALITIES if name == "8 steps" else ():
            stored = [decode_jpeg(encode_jpeg(one, quality), teacher.side) for one in found]
            tell(f"{name}, as JPEG {quality}", np.stack(stored), pixels, teacher, config)


def refined(
    pixels: np.ndarray,
    batches: Sequence[np.ndarray],
    teacher: Remembering,
    config: ModelConfig,
    section: Embed,
) -> np.ndarray:
    """The images uint8 [N, S, S, 3] after the steps of `section`, batch by batch."""
    found = np.empty_like(pixels)
    for at, rows in enumerate(batches):
        shown = normalise(
            torch.from_numpy(pixels[rows]).to(teacher.device), config.mean, config.std
        )
        corners = corners_of(at, teacher.side, teacher.side, section.refine)
        images, _ = refine_batch(teacher, shown, corners, section)
        found[rows] = to_bytes(images, config.mean, config.std).cpu().numpy()
    return found


def tell(
    name: str, found: np.ndarray, before: np.ndarray, teacher: Remembering, config: ModelConfig
) -> None:
    """Prints a row: of images beside those that they were."""
    distances, logits, known = [], [], []
    for rows in batch_rows(len(found), Embed().refine_batch):
        for pixels, answers in ((before, known), (found, logits)):
            shown = torch.from_numpy(pixels[rows]).to(teacher.device)
            said, distance = teacher.answers(normalise(shown, config.mean, config.std))
            answers.append(said.float().cpu())
        distances.append(float(distance.mean()))
    after, told = torch.cat(logits), torch.cat(known)
    levels = np.square((found.astype(np.float64) - before) / 255 / np.array(config.std)).mean()
    same = float((after.argmax(1) == told.argmax(1)).double().mean())
    sure = float(after.softmax(1).amax(1).mean())
    print(
        f"| {name} | {np.mean(distances):.4f} | {levels**0.5:.3f} | {same:.1%} | {sure:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
