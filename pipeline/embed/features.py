"""One pass of the teacher over the kept images: pixels, features and logits."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.console import Advance
from pipeline.device import autocast
from pipeline.embed.arrays import ArrayWriter
from pipeline.embed.batches import Batch, KeptImage, batches, locate, read
from pipeline.embed.finite import ENOUGH, TOO_WIDE, Float, Strays, TooWide, judge, started_with
from pipeline.embeddings import FEATURES, LOGITS, PIXELS, write_images
from pipeline.errors import ExternalError, UserError
from pipeline.models.checkpoint import ModelConfig
from pipeline.models.fuse import fuse
from pipeline.models.network import Network, pool
from pipeline.params import Embed
from pipeline.pixels import normalise, to_device
from pipeline.remedies import counted, remedy
from pipeline.store import remove

NAMED = 10  # problems that an error tells one by one
SLICE = 2**16  # pixels of images that a CPU passes at once: their maps stay in its cache

Read = Callable[[Batch], tuple[np.ndarray, list[str]]]


@dataclass(frozen=True)
class Passed:
    """A batch after the teacher's pass: pixels, features and logits, or what is wrong with it.

    `verdicts` are those of `judge` on each image.
    """

    arrays: dict[str, np.ndarray]
    verdicts: np.ndarray
    problems: list[str]


NOTHING = np.zeros(0, np.uint8)


def kept_images(verdicts: pa.Table) -> list[KeptImage]:
    """The images that dedup kept, in the order of the shards.

    Raises:
        UserError: none was kept.
    """
    columns = verdicts.select(["id", "shard", "row", "label", "kept"]).to_pylist()
    kept = [KeptImage(r["id"], r["shard"], r["row"], r["label"]) for r in columns if r["kept"]]
    if not kept:
        reasons = Counter(verdicts["reason"].to_pylist()).most_common()
        raise UserError(
            f"dedup kept none of {verdicts.num_rows:,} images ({counted(reasons)})",
            f"`pipeline dedup --dry-run` shows them; {remedy(reason for reason, _ in reasons)}",
        )
    return sorted(kept, key=lambda image: (image.shard, image.row))


def embed(
    kept: Sequence[KeptImage],
    crawl: Path,
    network: Network,
    config: ModelConfig,
    folder: Path,
    section: Embed,
    device: torch.device,
    precision: torch.dtype,
    advance: Advance,
) -> None:
    """Writes what `Embeddings` reads into `folder`, but for scores and index: `pixels.npy`
    (uint8 [N, S, S, 3]), `features.npy` (float16 [N, D]), `logits.npy` (float32 [N, C]) and
    `images.parquet` (row, id, label; class names).

    Where features of any image are beyond float16, they are float32 for all: the pass begins anew.
    Killed at any moment and called again with the same arguments it goes on behind the last whole
    shard, and what it writes is the same to the byte. Memory does not grow with N.

    Args:
        kept: in the order of `kept_images`.
        network: on `device`, in evaluation mode; stays as it is.
        section: its `batch_size`, `fit` and `workers` are used.
        precision: of convolutions; pooling and classifier are in float32.

    Raises:
        UserError: images can no longer be read, or the teacher's answer to them is not finite;
            names each of the first ten. Nothing stays.
        ExternalError: the disk is full or fails, or a process died.
    """
    found, problems = locate(kept, crawl)
    every = list(batches(found, crawl, section.batch_size))
    about = (every, len(kept), network, config, folder, section, device, precision, advance)
    try:
        _write(*about, problems, started_with(folder))
    except TooWide as stopped:
        remove(folder)
        advance(-stopped.done)
        _write(*about, problems, np.float32)
    columns = {
        "row": pa.array(range(len(kept)), pa.int64()),
        "id": pa.array([image.id for image in kept], pa.string()),
        "label": pa.array([image.label for image in kept], pa.int64()),
    }
    write_images(folder, columns, config.class_names)


def _write(
    every: Sequence[Batch],
    total: int,
    network: Network,
    config: ModelConfig,
    folder: Path,
    section: Embed,
    device: torch.device,
    precision: torch.dtype,
    advance: Advance,
    problems: list[str],
    kind: Float,
) -> None:
    """Writes the arrays of `total` images, features in `kind`.

    Raises:
        TooWide: float16 does not hold them.
        UserError, ExternalError: as `embed`.
    """
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        PIXELS: (np.uint8, (config.input_size, config.input_size, 3)),
        FEATURES: (kind, (network.feature_channels,)),
        LOGITS: (np.float32, (len(config.class_names),)),
    }
    problems = list(problems)  # of this pass
    teacher = TeacherPass(network, config, device, precision, kind)
    load = partial(read, side=config.input_size, fit=section.fit)
    passed = _passed_by_threads if device.type == "cpu" else _passed_by_device
    workers = section.workers or os.cpu_count() or 1
    with ArrayWriter(folder, total, layout) as arrays:
        done, strays = arrays.saved, Strays(arrays.saved)
        advance(done)
        rest = [batch for batch in every if batch.start >= arrays.saved]
        with closing(passed(rest, load, teacher, workers, problems)) as results:
            for batch, result in zip(rest, results, strict=True):
                problems += result.problems
                strays.add(batch, result.verdicts)
                if kind is np.float16 and (result.verdicts == TOO_WIDE).any():
                    raise TooWide(done)
                if not problems and not strays.found:
                    arrays.append(result.arrays)
                    if batch.last:
                        arrays.save()
                done += len(batch.rows)
                advance(len(batch.rows))
                if len(strays.found) >= ENOUGH:
                    break
    if problems or strays.found:
        remove(folder)
        raise _unreadable(problems) if problems else strays.error(done == total)


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
        self.network = fuse(network).to(memory_format=torch.channels_last)
        self.config, self.device, self.precision = config, device, precision
        self.stored = torch.float16 if kind is np.float16 else torch.float32

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


def _passed_by_threads(
    waiting: Sequence[Batch], load: Read, teacher: TeacherPass, workers: int, problems: list[str]
) -> Generator[Passed, None, None]:
    """Each thread decodes and passes batches of its own, with no other thread inside an operation.

    Pillow and torch work outside of the interpreter's lock. Threads that share every operation
    wait for the slowest of them dozens of times a batch, and compete with those that decode.
    """
    before = torch.get_num_threads()
    ended = threading.Event()
    step = max(1, SLICE // teacher.config.input_size**2)

    def work(batch: Batch) -> Passed:
        pixels, wrong = load(batch)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in range(0, len(pixels), step):
            if problems or wrong or ended.is_set():
                return Passed({}, NOTHING, wrong)
            parts.append(teacher(pixels[start : start + step]))
        features, logits, verdicts = (
            torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True)
        )
        return Passed({PIXELS: pixels, FEATURES: features, LOGITS: logits}, verdicts, [])

    threads = ThreadPoolExecutor(workers, "embed", torch.set_num_threads, (1,))
    try:
        yield from _ahead((threads.submit(work, batch).result for batch in waiting), 2 * workers)
    finally:
        ended.set()
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _passed_by_device(
    waiting: Sequence[Batch], load: Read, teacher: TeacherPass, workers: int, problems: list[str]
) -> Generator[Passed, None, None]:
    """Processes decode ahead, and the results of a batch are awaited when the next one is begun.

    Threads would not keep up with a GPU: much of Pillow's work on a small image holds the lock.
    """
    cuda = teacher.device.type == "cuda"

    def begun(pixels: np.ndarray, wrong: list[str]) -> Callable[[], Passed]:
        if problems or wrong:
            return lambda: Passed({}, NOTHING, wrong)
        # copies that a CUDA device makes in its own time land in pinned memory
        features, logits, verdicts = (part.to("cpu", non_blocking=cuda) for part in teacher(pixels))
        copied = torch.cuda.Event() if cuda else None
        if copied:
            copied.record()

        def finish() -> Passed:
            if copied:
                copied.synchronize()
            arrays = {PIXELS: pixels, FEATURES: features.numpy(), LOGITS: logits.numpy()}
            return Passed(arrays, verdicts.numpy(), [])

        return finish

    loader: DataLoader[Any] = DataLoader(
        _Decoding(waiting, load),
        batch_size=None,
        num_workers=min(workers, len(waiting)),
        collate_fn=_as_it_is,
        multiprocessing_context="spawn" if waiting else None,  # a fork may hold a lock
    )
    yield from _ahead((begun(*decoded) for decoded in _whole(loader)), 1)


def _whole(loader: DataLoader) -> Iterator[tuple[np.ndarray, list[str]]]:
    try:
        yield from loader
    except RuntimeError:
        raise ExternalError(
            "a process that decodes images died", "is there memory enough?"
        ) from None


@dataclass(frozen=True)
class _Decoding(Dataset[tuple[np.ndarray, list[str]]]):
    """The batches for torch's loader, whose processes end when this one does, however it does."""

    waiting: Sequence[Batch]
    load: Read

    def __len__(self) -> int:
        return len(self.waiting)

    def __getitem__(self, at: int) -> tuple[np.ndarray, list[str]]:
        return self.load(self.waiting[at])


def _as_it_is(decoded: Any) -> Any:
    # an array goes through a pipe; as a tensor it would need shared memory, scarce in containers
    return decoded


def _ahead(begun: Iterable[Callable[[], Passed]], most: int) -> Iterator[Passed]:
    """The results of work in its order, while at most so many others are under way."""
    waiting: deque[Callable[[], Passed]] = deque()
    for finish in begun:
        waiting.append(finish)
        if len(waiting) > most:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _unreadable(problems: list[str]) -> UserError:
    lines = problems[:NAMED]
    if len(problems) > NAMED:
        lines.append(f"and {len(problems) - NAMED:,} more")
    lines.append("restore data/crawl with `dvc checkout`, or run `dvc repro dedup`")
    return UserError("\n".join(lines))
