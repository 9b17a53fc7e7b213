"""A small web, a teacher that is sure of most of it, and distillation from them.

`start` and `together` run something in processes of its own, which can be killed.
"""

import hashlib
import io
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.distill.loader import Resident
from kd3_pipeline.distill.objectives.objective import Objective, with_own_settings
from kd3_pipeline.distill.parallel import ALONE, World, join, leave
from kd3_pipeline.distill.trainer import Trained, train
from kd3_pipeline.distill.views import Views
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.models import build
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import normalise
from kd3_pipeline.registry import OBJECTIVES

CPU = torch.device("cpu")
SIDE = 16
IMAGES = 64
CLASS_COUNT = 10
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
# α as published: 0 in the end
SECTION = Distill(epochs=3, batch_size=16, lr=0.1, flip=True, teacher_floor=0.0)
TIMES = ("seconds", "images_per_s", "tflops")
# forked from a process that has imported and made everything: a start takes no time
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch._dynamo", "pytest", "tests.distill.warm"])


def section(**changes: Any) -> Distill:
    """The small distillation with parameters changed."""
    return SECTION.model_copy(update=changes)


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
    train, out = rows[: IMAGES - held_out], rows[IMAGES - held_out :]
    return WebImages(ids, Resident(pixels, CPU), logits, train, out)


def pixels(rows: slice = slice(None)) -> Tensor:
    """uint8 [n, SIDE, SIDE, 3] of the web images."""
    return next(iter(web().pixels.batches([torch.arange(IMAGES)[rows]])))


def objective(of: Distill = SECTION) -> Objective:
    """The objective of these parameters, with what it fixes itself, and a student of their seed."""
    of = with_own_settings(of)
    example = normalise(pixels(slice(1)), MEAN, STD)
    torch.manual_seed(of.seed)
    return OBJECTIVES.load(of.objective)(build(of.student, 10), teacher(), example, of)


@dataclass
class Run:
    objective: Objective
    trained: Trained

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.objective.state_dict()


def run(
    folder: Path,
    of: Distill = SECTION,
    *,
    images: WebImages | None = None,
    student: Objective | None = None,
    advance: Advance = no_progress,
    report: Callable[[list[dict[str, Any]]], None] = lambda curves: None,
    precision: torch.dtype = torch.float32,
    world: World = ALONE,
) -> Run:
    """Distils, or goes on with what an earlier run left in `folder`."""
    of = with_own_settings(of)
    images, student = images or web(), student or objective(of)
    student.world = world
    views = Views(of, MEAN, STD)
    trained = train(images, student, views, of, precision, folder, advance, report)
    return Run(student, trained)


def same(one: Run, other: Run) -> bool:
    """Every weight and statistic is equal to the bit."""
    return equal(one.weights, other.weights)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    """The weights and statistics as they are now."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def timeless(done: Run) -> list[dict[str, Any]]:
    """The curves without what differs from run to run."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in done.trained.curves]


def start(task: Callable[..., None], *args: Any) -> BaseProcess:
    """A process that does `task` on one thread; interrupted, it exits with 130."""
    process = PROCESSES.Process(target=_guarded, args=(task, *args), daemon=True)
    process.start()
    return process


def together(size: int, task: Callable[..., Any], *args: Any) -> list[Any]:
    """What `task(world, *args)` returns in each of `size` processes that share one distillation."""
    processes, results = start_together(size, task, *args)
    found = []
    for process, result in zip(processes, results, strict=True):
        try:
            found.append(torch.load(io.BytesIO(result.recv_bytes()), weights_only=False))
        except EOFError:
            process.join()
            raise AssertionError(f"a process ended with {process.exitcode}") from None
        process.join()
    return found


def start_together(
    size: int, task: Callable[..., Any], *args: Any
) -> tuple[list[BaseProcess], list[Connection]]:
    """Processes that share one distillation as under torchrun, and where their results arrive."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, results = [], []
    for rank in range(size):
        here, there = PROCESSES.Pipe(duplex=False)
        processes.append(start(_shared, rank, size, port, there, task, *args))
        there.close()  # so that the end of the process is the end of the pipe
        results.append(here)
    return processes, results


def _guarded(task: Callable[..., None], *args: Any) -> None:
    # a shell that starts the tests in the background has it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    try:
        task(*args)
    except KeyboardInterrupt:
        sys.exit(130)


def _shared(
    rank: int, size: int, port: int, result: Connection, task: Callable[..., Any], *args: Any
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    world = join("cpu")
    assert world == World(rank, size)
    content = io.BytesIO()
    torch.save(task(world, *args), content)
    result.send_bytes(content.getvalue())
    leave(world)
    assert not distributed.is_initialized()
