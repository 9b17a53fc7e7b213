"""Cost of a training step in arithmetic, and the most that a device does in its time."""

import copy
import re
import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kd3_pipeline.distill.objectives.objective import Objective

# dense bfloat16 products a second, from the makers' data sheets
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "V100": 125e12,
    "T4": 65e12,
}


def flops_per_image(objective: Objective, images: Tensor) -> float:
    """Operations of one training step for one image: products and sums of convolutions and
    matrix products, two a multiplication, forward and backward, teacher included: but not one that
    is a program, nor one whose answers are stored.

    Args:
        images: two or more of them, normalised; nothing is changed by them.
    """
    probe = copied(objective).train()
    generator = torch.Generator().manual_seed(0)
    counter = FlopCounterMode(display=False)
    known = {"answers": probe.answers(images)} if probe.stored else {}
    with counter:
        terms = probe(*probe.views(images, generator), **known)
        sum(terms.values(), torch.zeros((), device=images.device)).backward()
    return counter.get_total_flops() / len(images)


def copied(objective: Objective) -> Objective:
    """A copy to try something on; the teacher and what it answered are the same."""
    same = objective.teacher, objective.stored
    return copy.deepcopy(objective, {id(one): one for one in same})


def peak_flops(device: torch.device, precision: torch.dtype) -> float | None:
    """The most operations a second that the data sheet promises; None where it is not known."""
    if device.type != "cuda" or precision != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name(device)
    # whole words: an L40 is no L4, and an A1000 no A100
    found = (peak for card, peak in PEAK_FLOPS.items() if re.search(rf"\b{card}\b", name))
    return next(found, None)


class Meter:
    """Speed of training in images and in arithmetic.

    Args:
        images: two or more of them, as the objective is shown them; nothing is changed by them.
        precision: of products.
    """

    def __init__(self, objective: Objective, images: Tensor, precision: torch.dtype) -> None:
        self._flops = flops_per_image(objective, images)
        self._peak = peak_flops(images.device, precision)
        self._started = time.monotonic()

    def start(self) -> None:
        """The time counts from now on."""
        self._started = time.monotonic()

    def stop(self, images: int, processes: int) -> dict[str, Any]:
        """Figures of the training of `images` since `start`, on so many devices."""
        speed = images / (time.monotonic() - self._started)
        flops = speed * self._flops
        return {
            "images_per_s": round(speed),
            "tflops": significant(flops / 1e12),
            "utilisation": self._peak and significant(flops / (self._peak * processes)),
        }


def significant(value: float) -> float:
    """The value with six digits."""
    return float(f"{value:.6g}")
