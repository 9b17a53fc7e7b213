"""Exported files against the student as it was trained, on all test images.

    dvc repro embed && python -m benchmarks.exported --test ../shared/data/cifar10/test.parquet

Distils once, as params.yaml says, and takes the network as it was trained, its batch norms not yet
folded, for the truth. Beside it: folded, and the files of `pipeline export`, opened from the disk.
Seconds are of one pass over all images in batches of 64, in the order of the rows.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.distilled import distilled
from benchmarks.limits import processor
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.distill.objectives.objective import with_own_settings
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.export.checks import choose_pixels
from kd3_pipeline.export.files import INT8, ONNX, write_files
from kd3_pipeline.export.model import BATCH, open_model
from kd3_pipeline.export.program import as_input
from kd3_pipeline.export.quantised import write_int8
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.paramfile import read_params

CALIBRATED_ON = 256  # web images


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--test", default="demo", help="labelled images to answer")
    options.add_argument("--images", type=int, default=0, help="of them; 0 is all")
    options.add_argument("--epochs", type=int, help="instead of those in params.yaml")
    given = options.parse_args()
    section = with_own_settings(read_params(Path("params.yaml")).distill)
    if given.epochs:
        section = section.model_copy(update={"epochs": given.epochs})
    device = resolve_device(section.device)
    done = distilled(section, device, resolve_precision(section.precision, device))
    network, config = done.network.cpu(), done.config
    frame = Frame(config.input_size)
    test = load_labelled(given.test, "test", frame, given.images, 0, class_names=config.class_names)
    labels = test.labels
    embeddings = Embeddings.open(Path("data/embed"))
    web = choose_pixels(embeddings, CALIBRATED_ON, config.input_size, True)

    def by_torch(of: torch.nn.Module) -> Callable[[], np.ndarray]:
        place = torch.device("cpu")
        return lambda: logits_of(of, test.pixels, config.mean, config.std, BATCH, place)

    folded = fuse(network)
    config = replace(config, architecture=done.architecture | {"fused": True})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(
            folder,
            folded,
            config,
            formats=["onnx", "torch"],
            kind="uint8",
            int8="static",
            pixels=web,
        )
        dynamic = "model-int8-dynamic.onnx"
        write_int8(folder / dynamic, folder / ONNX, "dynamic", as_input(web.calibrate, "uint8"))
        answers = {"as trained": by_torch(network), "folded": by_torch(folded)}
        for file in (*files, dynamic):
            answers[file] = _by_file(folder / file, test.pixels)
        sizes = {file: (folder / file).stat().st_size / 1e6 for file in (*files, dynamic)}
        print(
            f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__};"
            f" {section.student}, {section.epochs} epochs, seed {section.seed};"
            f" {len(labels):,} images of {Path(given.test).name}; int8 static calibrated on"
            f" {len(web.calibrate)} web images\n"
        )
        print("| student | MB | right | another class | largest difference of a logit | s |")
        print("|---|---|---|---|---|---|")
        truth = None
        for what, answer in answers.items():
            start = time.perf_counter()
            logits = answer()
            seconds = time.perf_counter() - start
            truth = logits if truth is None else truth
            size = f"{sizes[what]:.3f}" if what in sizes else ""
            print(
                f"| {what.replace(INT8, f'{INT8} (static)')} | {size}"
                f" | {(logits.argmax(1) == labels).mean():.2%}"
                f" | {(logits.argmax(1) != truth.argmax(1)).sum():,}"
                f" | {np.abs(logits - truth).max():.2g} | {seconds:.2f} |"
            )


def _by_file(path: Path, pixels: np.ndarray) -> Callable[[], np.ndarray]:
    model = open_model(path)
    return lambda: model.logits(pixels)


if __name__ == "__main__":
    main()
