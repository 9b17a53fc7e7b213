"""Bytes that work allocates at its peak: of Python and NumPy by tracemalloc, and of Arrow.

They count the same on every machine and whatever else runs there, as memory of a process does not.
"""

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

Result = TypeVar("Result")
_POOLS: list[pa.MemoryPool] = []  # arrays may outlive the work, and need theirs


def allocated(work: Callable[[], Result]) -> tuple[Result, int]:
    """What `work` returns, and the bytes that it held at its peak beyond those held before.

    The peaks of Python and of Arrow are added, though they may be at different moments. What torch
    holds is not seen.
    """
    before = pa.default_memory_pool()
    _POOLS.append(pa.proxy_memory_pool(before))
    pa.set_memory_pool(_POOLS[-1])
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1] + _POOLS[-1].max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
