"""One pass of the teacher over the kept images: pixels, features and logits."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.console import Advance
from pipeline.device import autocast
from pipeline.embed.pieces import KeptImage, Piece, cut, read, there
from pipeline.embed.rows import Rows
from pipeline.errors import ExternalError, UserError
from pipeline.images import Fit
from pipeline.models.checkpoint import ModelConfig
from pipeline.models.fuse import fuse
from pipeline.models.network import Network, pool
from pipeline.pixels import normalise, to_device
from pipeline.store import remove, write_table

ARRAYS = ("pixels.npy", "features.npy", "logits.npy")
NAMED = 10  # problems that an error tells one by one
SLICE = 2**16  # pixels of images that a CPU passes at once: their maps stay in its cache

Read = Callable[[Piece], tuple[np.ndarray, list[str]]]


@dataclass(frozen=True)
class Passed:
    """A piece after the teacher's pass: pixels, features and logits, or what is wrong with it."""

    arrays: dict[str, np.ndarray]
    problems: list[str]


def kept_images(verdicts: pa.Table) -> list[KeptImage]:
    """The images that dedup kept, in the order of the shards.

    Raises:
        UserError: none was kept.
    """
    columns = verdicts.select(["id", "shard", "row", "label", "kept"]).to_pylist()
    kept = [KeptImage(r["id"], r["shard"], r["row"], r["label"]) for r in columns if r["kept"]]
    if not kept:
        raise UserError("dedup kept no image", "crawl more, or lower dedup.radius")
    return sorted(kept, key=lambda image: (image.shard, image.row))


def embed(
    kept: Sequence[KeptImage],
    crawl: Path,
    network: Network,
    config: ModelConfig,
    folder: Path,
    *,
    batch_size: int,
    fit: Fit,
    device: torch.device,
    precision: torch.dtype,
    workers: int,
    advance: Advance,
) -> None:
    """Writes `pixels.npy` (uint8 [N, S, S, 3]), `features.npy` (float16 [N, D]), `logits.npy`
    (float32 [N, C]) and `images.parquet` (row → id, label) into `folder`.

    Killed at any moment and called again with the same arguments it goes on behind the last whole
    shard, and what it writes is the same to the byte. Memory does not grow with N.

    Args:
        kept: in the order of `kept_images`.
        network: on `device`, in evaluation mode; stays as it is.
        precision: of convolutions; pooling and classifier are in float32.
        workers: threads that decode and pass images on a CPU, processes that decode for any other
            device; at least 1.

    Raises:
        UserError: images can no longer be read; names each of the first ten. Nothing stays.
        ExternalError: the disk is full or fails, or a process died.
    """
    found, problems = there(kept, crawl)
    layout = {
        "pixels": (np.uint8, (config.input_size, config.input_size, 3)),
        "features": (np.float16, (network.feature_channels,)),
        "logits": (np.float32, (len(config.class_names),)),
    }
    teacher = TeacherPass(network, config, device, precision)
    load = partial(read, side=config.input_size, fit=fit)
    passed = _passed_by_threads if device.type == "cpu" else _passed_by_device
    with Rows(folder, len(kept), layout) as rows:
        advance(rows.saved)
        pieces = [piece for piece in cut(found, crawl, batch_size) if piece.start >= rows.saved]
        with closing(passed(pieces, load, teacher, workers, problems)) as results:
            for piece, result in zip(pieces, results, strict=True):
                problems += result.problems
                if not problems:
                    rows.append(result.arrays)
                    if piece.last:
                        rows.save()
                advance(len(piece.rows))
    if problems:
        remove(folder)
        raise _unreadable(problems)
    columns = {
        "row": pa.array(range(len(kept)), pa.int64()),
        "id": [image.id for image in kept],
        "label": pa.array([image.label for image in kept], pa.int64()),
    }
    write_table(folder / "images.parquet", pa.table(columns))


class TeacherPass:
    """The teacher as it is fastest: batch norms folded, channels last."""

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        # channels last also on a CPU: without a backward pass it is the faster layout there too
        self.network = fuse(network).to(memory_format=torch.channels_last)
        self.config, self.device, self.precision = config, device, precision

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features float16 [B, D] and logits float32 [B, C] of uint8 [B, S, S, 3], on the device.

        A GPU may still be at work on them.
        """
        images = to_device(torch.from_numpy(pixels), self.device)
        shown = normalise(images, self.config.mean, self.config.std)
        with autocast(self.device, self.precision):
            feature_map = self.network.features(shown.contiguous(memory_format=torch.channels_last))
        pooled = pool(feature_map.float())
        return pooled.half(), self.network.classify(pooled)


def _passed_by_threads(
    pieces: Sequence[Piece], load: Read, teacher: TeacherPass, workers: int, problems: list[str]
) -> Generator[Passed, None, None]:
    """Each thread decodes and passes pieces of its own, with no other thread inside an operation.

    Pillow and torch work outside of the interpreter's lock. Threads that share every operation
    wait for the slowest of them dozens of times a batch, and compete with those that decode.
    """
    before = torch.get_num_threads()
    ended = threading.Event()
    step = max(1, SLICE // teacher.config.input_size**2)

    def work(piece: Piece) -> Passed:
        pixels, wrong = load(piece)
        parts: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(pixels), step):
            if problems or wrong or ended.is_set():
                return Passed({}, wrong)
            parts.append(teacher(pixels[start : start + step]))
        features, logits = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
        return Passed({"pixels": pixels, "features": features, "logits": logits}, [])

    threads = ThreadPoolExecutor(workers, "embed", torch.set_num_threads, (1,))
    try:
        yield from _ahead((threads.submit(work, piece).result for piece in pieces), 2 * workers)
    finally:
        ended.set()
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _passed_by_device(
    pieces: Sequence[Piece], load: Read, teacher: TeacherPass, workers: int, problems: list[str]
) -> Generator[Passed, None, None]:
    """Processes decode ahead, and the results of a piece are awaited when the next one is begun.

    Threads would not keep up with a GPU: much of Pillow's work on a small image holds the lock.
    """
    cuda = teacher.device.type == "cuda"

    def begun(pixels: np.ndarray, wrong: list[str]) -> Callable[[], Passed]:
        if problems or wrong:
            return lambda: Passed({}, wrong)
        # copies that a CUDA device makes in its own time land in pinned memory
        features, logits = (part.to("cpu", non_blocking=cuda) for part in teacher(pixels))
        copied = torch.cuda.Event() if cuda else None
        if copied:
            copied.record()

        def finish() -> Passed:
            if copied:
                copied.synchronize()
            arrays = {"pixels": pixels, "features": features.numpy(), "logits": logits.numpy()}
            return Passed(arrays, [])

        return finish

    loader = DataLoader(
        _Decoding(pieces, load),
        batch_size=None,
        num_workers=min(workers, len(pieces)),
        collate_fn=_as_it_is,
        multiprocessing_context="spawn" if pieces else None,  # a fork may hold a lock
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
class _Decoding:
    """The pieces for torch's loader, whose processes end when this one does, however it does."""

    pieces: Sequence[Piece]
    load: Read

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, at: int) -> tuple[np.ndarray, list[str]]:
        return self.load(self.pieces[at])


def _as_it_is(decoded: tuple[np.ndarray, list[str]]) -> tuple[np.ndarray, list[str]]:
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
