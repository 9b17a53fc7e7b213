"""A small web, a teacher that is sure of most of it, and distillation from them.

As a program it distils into the folder that is its argument, for a test that kills it.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.console import Advance, no_progress
from pipeline.demo.domains import original_images
from pipeline.distill.objectives import OBJECTIVES, Terms
from pipeline.distill.trainer import Schedule, Trained, distill
from pipeline.distill.web import WebImages
from pipeline.models import build
from pipeline.models.network import Network
from pipeline.pixels import normalise

SIDE = 16
IMAGES = 64
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
TERMS = Terms(
    mixing=True,
    mixing_alpha=0.1,
    contrast_weight=0.001,
    contrast_temperature=0.3,
    kd_temperature=4.0,
)
SCHEDULE = Schedule(
    epochs=3,
    batch_size=16,
    lr=0.1,
    schedule="onecycle",
    momentum=0.9,
    weight_decay=5e-4,
    selection=True,
    cutoff=0.95,
    refill=True,
    crop="pad",
    flip=True,
    seed=0,
)
LONG = replace(SCHEDULE, epochs=8)


@cache
def teacher() -> Network:
    torch.manual_seed(11)
    network = build("resnet8", 10)
    pixels, _ = original_images("train", 64, SIDE, 1)
    for _ in range(20):  # running statistics of such images
        network(normalise(torch.from_numpy(pixels), MEAN, STD))
    network.fc.weight.data *= 120  # sure of most images, unsure of some
    return network.eval().requires_grad_(False)


@cache
def web(held_out: int = 8) -> WebImages:
    """The last `held_out` of the images are held out."""
    pixels = torch.from_numpy(original_images("train", IMAGES, SIDE, 2)[0])
    with torch.no_grad():
        logits = teacher()(normalise(pixels, MEAN, STD))
    ids = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pixels]
    rows = torch.arange(IMAGES)
    return WebImages(ids, pixels, logits, rows[: IMAGES - held_out], rows[IMAGES - held_out :])


def objective(name: str = "kd3", terms: Terms = TERMS, seed: int = 0) -> Any:
    example = normalise(web().pixels[:1], MEAN, STD)
    torch.manual_seed(seed)
    return OBJECTIVES[name](build("resnet8", 10), teacher(), example, terms)


@dataclass
class Run:
    objective: Any
    trained: Trained

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.objective.state_dict()


def run(
    folder: Path,
    schedule: Schedule = SCHEDULE,
    *,
    images: WebImages | None = None,
    student: Any = None,
    advance: Advance = no_progress,
    report: Callable[[list[dict[str, Any]]], None] = lambda curves: None,
    precision: torch.dtype = torch.float32,
) -> Run:
    """Distils, or goes on with what an earlier run left in `folder`."""
    student = student or objective(seed=schedule.seed)
    trained = distill(
        images or web(), student, MEAN, STD, schedule, precision, folder, advance, report
    )
    return Run(student, trained)


def same(one: Run, other: Run) -> bool:
    """Every weight and statistic is equal to the bit."""
    assert one.weights.keys() == other.weights.keys()
    return all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), LONG)
