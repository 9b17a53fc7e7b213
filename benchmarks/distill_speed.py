"""This trainer beside the published training loop, on one device, in one run.

    python -m benchmarks.distill_speed                             # resnet20 → resnet8 on the CPU
    python -m benchmarks.distill_speed --pair resnet34-resnet18 --batch 1024 --images 200000

The pixels are random, because what they show does not matter for speed, and so are the weights.
Both arms train on all images with the same networks, batch and augmentation (RandomResizedCrop);
the published arm is `benchmarks/published.py`. Arms take turns --repeat times and the medians are
shown. Utilisation is of the data sheet's peak on a known GPU, else of what a large matrix product
reaches here. The floors are those of separate kernels: what they move at the speed of a copy, and
their launches one after another; torch.compile may go below them.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import published
from benchmarks.limits import (
    Traffic,
    bandwidth,
    launch_seconds,
    now,
    peak_memory,
    processor,
    product_flops,
)
from kd3_pipeline.console import no_progress
from kd3_pipeline.device import autocast, memory_format, resolve_device, resolve_precision
from kd3_pipeline.distill.cost import flops_per_image, peak_flops
from kd3_pipeline.distill.loader import Resident
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.run import distill
from kd3_pipeline.distill.selection import Selector
from kd3_pipeline.distill.views import Views
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.params import Distill
from kd3_pipeline.registry import OBJECTIVES

CLASSES, SIDE = 10, 32
MEAN, STD = [0.48, 0.457, 0.409], [0.275, 0.271, 0.281]
WARM_UP = 2  # steps that are not timed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pair", default="resnet20-resnet8", help="TEACHER-STUDENT")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--images", type=int, default=20_000, help="that are there")
    options.add_argument("--steps", type=int, default=20, help="of ours that are timed")
    options.add_argument("--published-steps", type=int, default=10)
    options.add_argument(
        "--judged", type=int, default=4000, help="images of the selection's timing"
    )
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--workers", type=int, default=4, help="of the published loader")
    options.add_argument("--device", default="auto")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    bench = Bench(given)
    arms: dict[str, Callable[[], float]] = {
        "published loop, float32": bench.published_training,
        "ours, `official`, float32": lambda: bench.training(objective="official", refill=True),
        "ours, `kd3`, float32": lambda: bench.training(precision="float32"),
        "**ours, `kd3`**": bench.training,
        "ours, `kd3`, without mixing": lambda: bench.training(mixing=False),
    }
    if bench.device.type == "cuda":
        arms["ours, `kd3`, not compiled"] = lambda: bench.training(compile="never")
    else:
        arms["ours, `kd3`, compiled"] = lambda: bench.training(compile="always")
    judges: dict[str, Callable[[], float]] = {
        "published selection": bench.published_judging,
        "**ours, selection**": bench.judging,
    }
    speeds: dict[str, list[float]] = {name: [] for name in arms | judges}
    for _ in range(given.repeat):
        for name, measure in (arms | judges).items():
            speeds[name].append(measure())
            print(f"  {name}: {speeds[name][-1]:,.0f} images/s", flush=True)
    found = bench.facts() | {"images_per_s": speeds}
    print(
        f"\n{found['device']}, {found['threads']} threads, torch {torch.__version__}, "
        f"{given.pair}, batch {given.batch}, {found['precision']} where not said otherwise\n"
    )
    print("| arm | images/s | beside published | TFLOP/s | utilisation |")
    print("|---|---|---|---|---|")
    for name, values in speeds.items():
        middle = statistics.median(values)
        base = statistics.median(
            speeds["published loop, float32" if name in arms else "published selection"]
        )
        flops = middle * found["gflop_per_image"] * 1e9
        cost = (
            f"{flops / 1e12:.3g} | {flops / found['peak_flops']:.1%}"
            if name == "**ours, `kd3`**"
            else " | "
        )
        print(f"| {name} | {middle:,.0f} | {middle / base:.1f}× | {cost} |")
    for name in (
        "gflop_per_image",
        "peak_source",
        "memory_floor_images_per_s",
        "launch_floor_images_per_s",
        "peak_memory_mib",
        "peak_memory_in_use_mib",
        "needed_memory_mib",
    ):
        print(
            f"- {name}: {found[name]:,.2f}"
            if isinstance(found[name], float)
            else f"- {name}: {found[name]}"
        )
    if given.json:
        given.json.write_text(json.dumps(vars(given) | found, indent=2, default=str) + "\n")


class Bench:
    """Both arms on the same pixels and networks."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.teacher_name, self.student_name = given.pair.split("-")
        self.device = resolve_device(given.device)
        self.precision = resolve_precision("auto", self.device)
        self.pixels = np.random.default_rng(0).integers(
            0, 256, (given.images, SIDE, SIDE, 3), np.uint8
        )
        torch.manual_seed(0)
        self.teacher = (
            build(self.teacher_name, CLASSES).to(self.device).eval().requires_grad_(False)
        )
        names = [f"class {label}" for label in range(CLASSES)]
        architecture = {"name": self.teacher_name, "num_classes": CLASSES}
        self.config = ModelConfig(architecture, names, MEAN, STD, SIDE, "random")

    def web(self, count: int) -> WebImages:
        """The first images, all to train on."""
        rows = torch.arange(count)
        logits = torch.zeros(count, CLASSES, device=self.device)
        pixels = Resident(self.pixels[:count], self.device)
        return WebImages([str(row) for row in range(count)], pixels, logits, rows, rows[:0])

    def training(self, **changes: Any) -> float:
        """Images a second of the trainer's own loop, in the second of two epochs."""
        section = Distill(
            epochs=2,
            batch_size=self.given.batch,
            student=self.student_name,
            selection="none",
            crop="resized",
            flip=True,
            lr=0.01,
        )
        fixed = OBJECTIVES.load(changes.get("objective", "kd3")).settings | {"selection": "none"}
        section = section.model_copy(update=fixed | changes)
        precision = resolve_precision(section.precision, self.device)
        with tempfile.TemporaryDirectory() as folder:
            _, trained = distill(
                section,
                self.web(self.given.steps * self.given.batch),
                self.teacher,
                self.config,
                precision,
                Path(folder),
                no_progress,
            )
        return trained.curves[-1]["images_per_s"]

    def published_training(self) -> float:
        """Images a second of the published loop, with its loader's workers already running."""
        of = self.published_modules()
        steps = self.given.published_steps
        kept = range(min(len(self.pixels), (WARM_UP + steps) * self.given.batch))
        loader = published.train_loader(self.pixels, kept, self.given.batch, self.given.workers)
        batches, sgd = iter(loader), published.optimizer(of)
        published.train_epoch(of, sgd, islice(batches, WARM_UP), self.device)
        started = now(self.device)
        published.train_epoch(of, sgd, islice(batches, steps), self.device)
        return steps * self.given.batch / (now(self.device) - started)

    def published_judging(self) -> float:
        """Images a second of the published selection."""
        of = self.published_modules()
        pixels = self.pixels[: self.given.judged]
        started = now(self.device)
        published.published_selection(
            of, pixels, 0.5, self.device, batch_size=self.given.batch, workers=self.given.workers
        )
        return len(pixels) / (now(self.device) - started)

    def judging(self) -> float:
        """Images a second of our selection, on whole images with the teacher's logits at hand."""
        section = Distill(epochs=240, batch_size=self.given.batch)
        web = self.web(self.given.judged)
        selector = Selector(web, self.objective(), self.views(), section, self.precision)
        selector.judge(1)
        started = now(self.device)
        selector.judge(2)
        return len(web.ids) / (now(self.device) - started)

    def facts(self) -> dict[str, Any]:
        """The machine, the arithmetic of a step, its floors, and the memory it takes."""
        objective = self.objective()
        batch = self.web(self.given.batch)
        images = self.views().whole(next(iter(batch.pixels.batches([batch.train]))))
        flops = flops_per_image(objective, images[:2])
        peak = peak_flops(self.device, self.precision)
        kernels, moved = self.traffic(objective, images)
        cuda = self.device.type == "cuda"
        # in processes of their own: this one keeps what earlier work has freed
        taken, needed = in_fresh_process(memory, self.given)
        # glibc keeps freed memory for later; told not to, it shows what is in use
        os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"
        used, _ = in_fresh_process(memory, self.given)
        del os.environ["MALLOC_TRIM_THRESHOLD_"]
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else processor(),
            "threads": torch.get_num_threads(),
            "precision": str(self.precision).removeprefix("torch."),
            "torch": torch.__version__,
            "gflop_per_image": flops / 1e9,
            "peak_flops": peak or product_flops(self.device, self.precision),
            "peak_source": "data sheet" if peak else "matrix product measured here",
            "memory_floor_images_per_s": len(images) / (moved / bandwidth(self.device)),
            "launch_floor_images_per_s": len(images) / (kernels * launch_seconds(self.device)),
            "peak_memory_mib": taken / 2**20,
            "peak_memory_in_use_mib": used / 2**20,
            "needed_memory_mib": needed / 2**20,
        }

    def objective(self) -> Objective:
        """KD3 with a fresh student, as the trainer makes it."""
        torch.manual_seed(0)
        student = build(self.student_name, CLASSES)
        few = self.views().whole(torch.from_numpy(self.pixels[:1]).to(self.device))
        objective = OBJECTIVES.load("kd3")(student.to(self.device), self.teacher, few, Distill())
        return objective.to(self.device, memory_format=memory_format(self.device))

    def views(self) -> Views:
        return Views(Distill(crop="resized", flip=True), MEAN, STD)

    def published_modules(self) -> published.Modules:
        torch.manual_seed(0)
        return published.modules(build(self.student_name, CLASSES), self.teacher, self.device)

    def step(self, objective: Objective, images: Tensor) -> None:
        """The networks' part of one training step."""
        shown = objective.views(images, torch.Generator().manual_seed(0))
        with autocast(self.device, self.precision):
            terms = objective(*shown)
        sum(terms.values(), torch.zeros((), device=self.device)).backward()

    def traffic(self, objective: Objective, images: Tensor) -> tuple[int, int]:
        """Operations of a step, and the bytes that they read and write."""
        objective.train()
        with Traffic() as counted:
            self.step(objective, images)
        return counted.operations, counted.bytes


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def memory(given: argparse.Namespace) -> tuple[int, int]:
    """The most bytes that training takes, and those of pixels, models and activations."""
    few = argparse.Namespace(**vars(given) | {"steps": 1, "batch": 2})
    Bench(few).training(compile="never")  # libraries load and kernels are made
    bench = Bench(given)
    with peak_memory(bench.device) as peak:
        bench.training(compile="never")
        taken = peak()
    objective = bench.objective()
    batch = bench.web(given.batch)
    images = bench.views().whole(next(iter(batch.pixels.batches([batch.train]))))
    held: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    shown = objective.views(images, torch.Generator().manual_seed(0))
    saving = torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor)
    with saving, autocast(bench.device, bench.precision):
        terms = objective.train()(*shown)  # held, or its graph would be freed
    weights = sum(tensor.nbytes for tensor in objective.parameters())
    # weights, gradients and momentum of what is trained, weights of the teacher
    models = 3 * weights + sum(tensor.nbytes for tensor in bench.teacher.parameters())
    pixels = bench.pixels[: given.steps * given.batch].nbytes
    del terms
    return taken, pixels + models + sum(held.values())


if __name__ == "__main__":
    main()
