"""Bytes that work allocates: of Python and NumPy by tracemalloc, and of Arrow by its own counter.

They count the same on every machine and whatever else runs there, as memory of a process does not.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_POOLS: list[pa.MemoryPool] = []  # what is left of a result is given back to its own


@dataclass(frozen=True)
class Figure:
    """What a table of all images takes.

    Attributes:
        stays, peak: bytes a row: of what is there afterwards, and at most meanwhile; before the
            work is 0. The peaks of Python and of Arrow are added, though they may be at different
            moments. What torch holds is not seen.
        seconds: of CPU, of another run in which nothing is counted; None: not measured.
    """

    stage: str
    table: str
    rows: int
    stays: float
    peak: float
    seconds: float | None


def measured(
    stage: str, table: str, rows: int, work: Callable[[], Any], timed: bool = False
) -> tuple[Any, Figure]:
    """What `work` gives, and its figures; it runs once more to be `timed`."""
    seconds = None
    if timed:
        began = time.process_time()
        work()
        seconds = time.process_time() - began
    gc.collect()
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)  # counts from 0
    _POOLS.append(pool)
    tracemalloc.start()
    pa.set_memory_pool(pool)
    try:
        result = work()
        gc.collect()
        stays, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    stays, peak = stays + pool.bytes_allocated(), peak + (pool.max_memory() or 0)
    return result, Figure(stage, table, rows, stays / rows, peak / rows, seconds)


def allocated(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and the bytes that it held at its peak."""
    result, figure = measured("", "", 1, work)
    return result, figure.peak
