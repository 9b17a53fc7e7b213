"""Temperatures found on web images without a label, by how sure they make a student say it is.

    dvc repro embed && python -m benchmarks.calibration --seeds 0 1 2 --held-out 0.15
    python -m benchmarks.calibration --images ../shared/data/cifar10/train.parquet

Students are distilled as params.yaml says, one a seed. Four temperatures: none; the one at which
the student best foretells the class that the teacher predicts of held-out web images; the one at
which it best foretells the teacher's whole softmax; and halfway between, which is what `evaluate`
takes. They are judged on images of the teacher's
own training set, which the students have never seen, so that the choice reads no test image; the
best temperature by these labels is shown beside.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from benchmarks.distilled import distilled, web_images
from benchmarks.limits import processor
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.distill.objectives.objective import with_own_settings
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.evaluate.calibration import fit_temperature, least_cross_entropy
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.evaluate.metrics import scores
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.models.checkpoint import load_model
from kd3_pipeline.paramfile import read_params

COLUMNS = ("temperature", "ece", "nll", "brier")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", default="demo", help="labelled images; of theirs, train")
    options.add_argument("--count", type=int, default=5000, help="of them; 0 is all")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epochs", type=int, help="instead of those in params.yaml")
    options.add_argument("--held-out", type=float, help="instead of that in params.yaml")
    given = options.parse_args()
    section = with_own_settings(read_params(Path("params.yaml")).distill)
    changes = {"epochs": given.epochs, "held_out": given.held_out}
    section = section.model_copy(update={k: v for k, v in changes.items() if v is not None})
    device = resolve_device(section.device)
    precision = resolve_precision(section.precision, device)
    held_out = web_images(section, device).held_out.numpy()
    embeddings = Embeddings.open(Path("data/embed"))
    _, config = load_model(Path("models/teacher"), torch.device("cpu"))
    shown = embeddings.centre(config.input_size)
    pixels, teacher = shown[held_out], embeddings.logits[held_out]
    print(
        f"{processor()}, torch {torch.__version__}; {section.student}, {section.epochs} epochs;"
        f" {len(held_out):,} web images held out; judged on {Path(given.images).name}, train\n"
    )
    print("| seed | right | fitted to | " + " | ".join(COLUMNS) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    for seed in given.seeds:
        done = distilled(section.model_copy(update={"seed": seed}), device, precision)
        names, side = done.config.class_names, done.config.input_size
        data = load_labelled(given.images, "train", Frame(side), given.count, 0, class_names=names)
        labels = data.labels
        of_web, of_labelled = (
            logits_of(done.network, of, done.config.mean, done.config.std, 256, device)
            for of in (pixels, data.pixels)
        )
        classes = np.eye(len(names))
        shares = softmax(teacher.astype(np.float64), axis=1)
        fitted = {
            "nothing": 1.0,
            "the teacher's class": least_cross_entropy(of_web, classes[teacher.argmax(1)]),
            "the teacher's softmax": least_cross_entropy(of_web, shares),
            "halfway": fit_temperature(of_web, teacher) or 1.0,
            "(the labels)": least_cross_entropy(of_labelled, classes[labels]),
        }
        right = (of_labelled.argmax(1) == labels).mean()
        for what, temperature in fitted.items():
            found = scores(labels, of_labelled / np.float32(temperature))
            print(
                f"| {seed} | {right:.1%} | {what} | {temperature:.3f} | {found['ece']:.2%}"
                f" | {found['nll']:.4f} | {found['brier']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
