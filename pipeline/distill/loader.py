"""Pixels of the web images: all on the device, or read from disk as needed."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.pixels import to_device
from kd3_pipeline.pixelstore import Pixels

AHEAD = 2  # batches that are read while one is in use
CHUNK = 64 * 2**20  # bytes that pass through the host's memory at a time
MEMINFO = Path("/proc/meminfo")


class Resident:
    """All pixels, uint8 [N, S, S, 3], in the memory of the device."""

    kind = "resident"

    def __init__(self, pixels: Pixels | Tensor, device: torch.device) -> None:
        self.device = device
        if isinstance(pixels, Tensor):
            self._pixels = pixels.to(device)
            return
        self._pixels = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
        rows = max(1, CHUNK // math.prod(pixels.shape[1:]))
        for start in range(0, len(pixels), rows):
            part = np.array(pixels[start : start + rows])
            self._pixels[start : start + rows] = torch.from_numpy(part)

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def side(self) -> int:
        return self._pixels.shape[1]

    def batches(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pixels of each int64 CPU tensor of rows, in its order, on the device."""
        for batch in rows:
            yield self._pixels.index_select(0, to_device(batch, self.device))


class Streamed:
    """Pixels, uint8 [N, S, S, 3], that stay in their file; a thread reads two batches ahead.

    JPEGs are decoded there, by as many threads as there are cores.
    """

    kind = "streamed"

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self.device = device
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def side(self) -> int:
        return self._pixels.shape[1]

    def batches(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pixels of each int64 CPU tensor of rows, in its order, on the device.

        The thread ends with the iterator: at its end, when it is closed or dropped, or at an
        error. `rows` is iterated by the caller's thread, so it may draw from a generator.

        Raises:
            IndexError: a row that is not there; like any error of the thread, it is raised
                in place of its batch.
        """
        remaining = iter(rows)
        waiting: deque[Future[Tensor]] = deque()
        thread = ThreadPoolExecutor(1, thread_name_prefix="pixels")
        try:
            for batch in islice(remaining, AHEAD):
                waiting.append(thread.submit(self._read, batch))
            while waiting:
                pixels = waiting.popleft().result()
                for batch in islice(remaining, 1):
                    waiting.append(thread.submit(self._read, batch))
                yield to_device(pixels, self.device)
        finally:
            thread.shutdown(cancel_futures=True)

    def _read(self, batch: Tensor) -> Tensor:
        # a new buffer each time: torch's allocator gives pinned memory out again only when the
        # copies from it are done, so none is overwritten while the device still reads it
        pixels = torch.empty(
            (len(batch), *self._pixels.shape[1:]),
            dtype=torch.uint8,
            pin_memory=self.device.type == "cuda",
        )
        rows = batch.numpy()
        order = rows.argsort()  # a disk is faster from front to back
        pixels.numpy()[order] = self._pixels[rows[order]]
        return pixels


def open_pixels(pixels: Pixels, device: torch.device, where: str = "auto") -> Resident | Streamed:
    """The pixels uint8 [N, S, S, 3] of a file that is read as they are indexed.

    Args:
        where: `resident`, `streamed`, or `auto`: resident if at most half of the device's free
            memory is taken so, by the decoded pixels.
    """
    if where == "auto":
        size = math.prod(pixels.shape)
        where = "resident" if size <= free_memory(device) / 2 else "streamed"
    return Resident(pixels, device) if where == "resident" else Streamed(pixels, device)


def free_memory(device: torch.device) -> int:
    """Bytes of the device's memory that are free; of a device other than CUDA, the host's.

    Where the system does not say (macOS), half of what is built in is taken to be free.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            name, amount, *_ = line.split()
            if name == "MemAvailable:":
                return int(amount) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
