"""The teacher's pass over batches of images: by threads on a CPU, ahead of it on a GPU."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.device import autocast, laid_out
from kd3_pipeline.embed.batches import Batch, Carried, Decoded, Reading
from kd3_pipeline.embed.crops import surest
from kd3_pipeline.embed.finite import FEATURES_WRONG, Float, judge
from kd3_pipeline.embeddings import (
    CROP_BOXES,
    CROP_JPEGS,
    CROP_LOGITS,
    CROPS,
    FEATURES,
    JPEGS,
    LOGITS,
    PIXELS,
)
from kd3_pipeline.engine import Engine
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.keeping import keeps_values
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.pixels import normalise, to_device

SLICE = 2**16  # pixels of images that a CPU passes at once: their maps stay in its cache
FEWEST = 8  # images at once, so that large ones do not read all weights for each
IN_FLIGHT = 2**29  # bytes of pixels that are decoded ahead of a GPU


@dataclass(frozen=True)
class Passed:
    """A batch after the teacher's pass: what is written of it, or what is wrong with it.

    `verdicts` are those of `judge` on each image.
    """

    arrays: dict[str, np.ndarray | list[bytes]]
    verdicts: np.ndarray
    problems: list[str]


NOTHING = np.zeros(0, np.uint8)
TURN = threading.Lock()


class TeacherPass:
    """The teacher as it is fastest: batch norms folded, channels last."""

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        device: torch.device,
        precision: torch.dtype,
        kind: Float = np.float16,
    ) -> None:
        """`kind` is the dtype of the features."""
        # channels last also on a CPU: without a backward pass it is the faster layout there too
        self.network = laid_out(fuse(network), torch.channels_last)
        self.config, self.device, self.precision = config, device, precision
        self.stored = torch.float16 if kind is np.float16 else torch.float32

    @cached_property
    def keeps_values(self) -> bool:
        """Whether the network keeps values that another pass at the same time would change."""
        return keeps_values(self.network, self.config.input_size)

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, D], logits float32 [B, C] and verdicts of `judge` [B], on the device, of
        uint8 [B, S, S, 3].

        A GPU may still be at work on them.
        """
        images = to_device(torch.from_numpy(pixels), self.device)
        shown = normalise(images, self.config.mean, self.config.std)
        with autocast(self.device, self.precision):
            feature_map = self.network.features(shown.contiguous(memory_format=torch.channels_last))
        pooled = pool(feature_map.float())
        logits = self.network.classify(pooled)
        return pooled.to(self.stored), logits, judge(pooled, logits)


@dataclass(frozen=True)
class Passing:
    """What decodes and passes a batch on one thread, here or on another machine.

    Attributes:
        turns: whether no two threads of a process may be within the network.
    """

    load: Reading
    teacher: TeacherPass
    turns: bool

    def __call__(self, batch: Batch, ended: Callable[[], object] = lambda: False) -> Passed:
        """The batch after the pass; nothing once `ended()`."""
        torch.set_num_threads(1)
        decoded = self.load(batch)
        step = max(FEWEST, SLICE // self.teacher.config.input_size**2)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in range(0, len(decoded.shown), step):
            if decoded.problems or ended():
                return Passed({}, NOTHING, decoded.problems)
            with TURN if self.turns else nullcontext():
                parts.append(self.teacher(decoded.shown[start : start + step]))
        answers = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
        return _kept(decoded, self.load.crops, *answers)


def passed_by_threads(
    waiting: Sequence[Batch],
    load: Reading,
    teacher: TeacherPass,
    engine: Engine,
    problems: list[str],
) -> Generator[Passed, None, None]:
    """Each thread decodes and passes batches of its own, with no other thread inside an operation.

    Pillow and torch work outside of the interpreter's lock. Threads that share every operation
    wait for the slowest of them dozens of times a batch, and compete with those that decode. A
    network that keeps values from one layer to another passes one part at a time.
    """
    before = torch.get_num_threads()
    ended = threading.Event()
    work = Passing(load, teacher, one_at_a_time(waiting, teacher, engine.threads))

    def begun(batch: Batch) -> Callable[[], Passed]:
        return threads.submit(work, batch, lambda: problems or ended.is_set()).result

    threads = ThreadPoolExecutor(engine.threads, "embed")
    try:
        yield from _ahead(map(begun, waiting), 2 * engine.threads)
    finally:
        ended.set()
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def passed_by_cluster(
    waiting: Sequence[Batch],
    load: Reading,
    teacher: TeacherPass,
    engine: Engine,
    problems: list[str],
) -> Generator[Passed, None, None]:
    """Workers elsewhere decode and pass batches, on one thread each, as threads here would."""
    # several of them may be threads of one process
    yield from engine.map(Passing(load, teacher, teacher.keeps_values), waiting, Carried.of)


def one_at_a_time(waiting: Sequence[Batch], teacher: TeacherPass, workers: int) -> bool:
    """Whether threads that pass these batches have to wait for one another's pass."""
    return min(workers, len(waiting)) > 1 and teacher.keeps_values


def passed_by_device(
    waiting: Sequence[Batch],
    load: Reading,
    teacher: TeacherPass,
    engine: Engine,
    problems: list[str],
) -> Generator[Passed, None, None]:
    """Processes decode ahead, and the results of a batch are awaited when the next one is begun.

    Threads would not keep up with a GPU: much of Pillow's work on a small image holds the lock.
    """
    cuda = teacher.device.type == "cuda"

    def begun(decoded: Decoded) -> Callable[[], Passed]:
        if problems or decoded.problems:
            return lambda: Passed({}, NOTHING, decoded.problems)
        passed = teacher(decoded.shown)
        # copies that a CUDA device makes in its own time land in pinned memory
        features, logits, verdicts = (part.to("cpu", non_blocking=cuda) for part in passed)
        copied = torch.cuda.Event() if cuda else None
        if copied:
            copied.record()

        def finish() -> Passed:
            if copied:
                copied.synchronize()
            answers = (part.numpy() for part in (features, logits, verdicts))
            return _kept(decoded, load.crops, *answers)

        return finish

    most = max((len(batch.rows) for batch in waiting), default=1) * load.stored**2 * 3 * load.views
    # two that each worker holds ready beside the one that it decodes, unless they are large
    ahead = max(1, min(2 * engine.pool.workers, IN_FLIGHT // most))
    carry = Carried.of if engine.cluster else None
    with closing(engine.map(load, waiting, carry, ahead=ahead)) as decoded:
        yield from _ahead(map(begun, decoded), 1)


def _kept(
    decoded: Decoded, crops: int, features: np.ndarray, logits: np.ndarray, verdicts: np.ndarray
) -> Passed:
    """What is written of a batch of B images, by file, out of all M views of them.

    Args:
        crops: views of an image that are kept.
        features, logits, verdicts: [M, ...].
    """
    views, stored = decoded.views, decoded.stored
    found = verdicts[: len(verdicts) - int((views.scale < 1).sum())].copy()
    count, jpegs = len(found), isinstance(stored, list)
    arrays = {
        JPEGS if jpegs else PIXELS: stored[:count],
        FEATURES: features[:count],
        LOGITS: logits[:count],
    }
    if crops > 1:
        wrong = np.flatnonzero(verdicts >= FEATURES_WRONG)
        if len(wrong):  # which is an error, so nothing of it is written
            np.maximum.at(found, views.image[wrong], verdicts[wrong])
            return Passed({}, found, [])
        rows = surest(logits, views, crops - 1)
        arrays |= {
            CROP_JPEGS if jpegs else CROPS: (
                [stored[row] for row in rows.flat] if isinstance(stored, list) else stored[rows]
            ),
            CROP_LOGITS: logits[rows],
            CROP_BOXES: views.box[rows],
        }
    return Passed(arrays, found, [])


def _ahead(begun: Iterable[Callable[[], Passed]], most: int) -> Iterator[Passed]:
    """The results of work in its order, while at most so many others are under way."""
    waiting: deque[Callable[[], Passed]] = deque()
    for finish in begun:
        waiting.append(finish)
        if len(waiting) > most:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
